//! Cargo for the browser's target: rustup's, or the standard library from source as Debian packages it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};

use crate::{cargo, root, succeeds};

const TARGET: &str = "wasm32-unknown-unknown";

/// A way to run cargo for wasm32.
pub struct Toolchain {
    /// Whether the standard library is compiled too.
    from_source: bool,
}

impl Toolchain {
    /// The one that can be had here; None, with a line that says so, if there is none.
    pub fn find() -> Option<Self> {
        if succeeds("rustup", &["target", "add", TARGET]) {
            return Some(Self { from_source: false });
        }
        let debian = || succeeds("dpkg", &["-s", "rustc-web", "cargo-web", "rust-web-src"]);
        if cfg!(target_os = "linux") && !debian() {
            eprintln!("xtask: rustup cannot fetch {TARGET}, installing Debian's rustc-web");
            if let Err(error) = crate::driver::apt_install(&["rustc-web", "cargo-web", "rust-web-src"]) {
                eprintln!("xtask: it could not be installed: {error:#}");
            }
        }
        if debian() {
            return Some(Self { from_source: true });
        }
        eprintln!("xtask: no toolchain for {TARGET}: neither rustup nor apt-get can provide it");
        None
    }

    /// Clippy with `args`, for wasm32, warnings being errors; None where the toolchain has no clippy.
    pub fn clippy(&self, args: &[&str]) -> anyhow::Result<Option<Command>> {
        if self.from_source {
            return Ok(None);
        }
        let mut command = self.cargo(&[&["clippy"], args].concat())?;
        command.args(["--", "-D", "warnings"]);
        Ok(Some(command))
    }

    /// Cargo with `args`, for wasm32. Build outputs go to a folder of their own, see [`Toolchain::output`].
    pub fn cargo(&self, args: &[&str]) -> anyhow::Result<Command> {
        let mut command = if self.from_source {
            let mut command = Command::new("/usr/bin/cargo");
            command
                .args(args)
                .args(["-Z", "build-std=std,panic_abort"])
                .env("RUSTC", "/usr/bin/rustc")
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", rust_lld()?)
                // Variables that rustup's cargo sets for its own compiler.
                .env_remove("RUSTUP_TOOLCHAIN")
                .env_remove("CARGO")
                .current_dir(root());
            command
        } else {
            cargo(args)
        };
        command.args(["--target", TARGET, "--target-dir"]).arg(target_dir());
        Ok(command)
    }

    /// A file that [`Toolchain::cargo`] built with a profile.
    pub fn output(&self, profile: &str, file: &str) -> PathBuf {
        target_dir().join(TARGET).join(profile).join(file)
    }
}

/// Where what the browser needs is built, beside the native build rather than after it.
pub fn target_dir() -> PathBuf {
    root().join("target/wasm")
}

/// Debian's compiler comes without the linker for wasm; rustup's toolchains have it.
fn rust_lld() -> anyhow::Result<PathBuf> {
    let output = Command::new("rustc").args(["--print", "target-libdir"]).output().context("cannot start rustc")?;
    let libdir = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let lld = libdir.parent().unwrap_or(&libdir).join("bin/rust-lld");
    if !lld.exists() {
        bail!("{} is missing: install rustup's toolchain, which brings the linker for {TARGET}", lld.display());
    }
    Ok(lld)
}
