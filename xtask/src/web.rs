//! The page and the npm package: WebAssembly, its JavaScript side, and the bundle.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::driver::apt_install;
use crate::wasm::Toolchain;
use crate::{cargo, root, run, succeeds};

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
    let mut bindgen = Command::new(wasm_bindgen()?);
    bindgen.args(["--target", "web", "--remove-name-section", "--remove-producers-section", "--out-dir"]);
    run(bindgen.arg(web().join("pkg")).arg(wasm))?;

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
    run(&mut cargo(&["build", "-p", "blockpruner-cli"]))?;
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

fn npm(args: &[&str]) -> Command {
    let mut command = Command::new(if cfg!(windows) { "npm.cmd" } else { "npm" });
    command.args(args).current_dir(web());
    command
}

/// Installs Node.js where apt-get can.
fn ensure_node() -> anyhow::Result<bool> {
    let there = || succeeds("node", &["--version"]) && succeeds("npm", &["--version"]);
    if !there() && cfg!(target_os = "linux") {
        eprintln!("xtask: installing nodejs and npm, which bundle the page");
        if let Err(error) = apt_install(&["nodejs", "npm"]) {
            eprintln!("xtask: they could not be installed: {error:#}");
        }
    }
    if !there() {
        eprintln!("xtask: Node.js with npm is missing, version 20.19 or later");
    }
    Ok(there())
}

/// The wasm-bindgen program, which must have exactly the version of the crate.
fn wasm_bindgen() -> anyhow::Result<PathBuf> {
    let version = locked_version("wasm-bindgen")?;
    let tools = root().join("target/tools");
    let program = tools.join("bin").join(if cfg!(windows) { "wasm-bindgen.exe" } else { "wasm-bindgen" });
    let output = Command::new(&program).arg("--version").output();
    if output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == format!("wasm-bindgen {version}")) {
        return Ok(program);
    }
    let mut install = cargo(&["install", "wasm-bindgen-cli", "--version", &version, "--force", "--root"]);
    run(install.arg(&tools).arg("--target-dir").arg(tools.join("build")))?;
    Ok(program)
}

/// The version of a crate in Cargo.lock.
fn locked_version(name: &str) -> anyhow::Result<String> {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).context("cannot read Cargo.lock")?;
    let mut lines = lock.lines().skip_while(|line| *line != format!("name = \"{name}\""));
    match lines.nth(1).and_then(|line| line.strip_prefix("version = \"")) {
        Some(version) => Ok(version.trim_end_matches('"').to_string()),
        None => bail!("Cargo.lock does not name {name}"),
    }
}
