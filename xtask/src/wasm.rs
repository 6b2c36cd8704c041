//! Checks that the library compiles for the browser.

use std::process::Command;

use crate::{cargo, root, run, succeeds};

const TARGET: &str = "wasm32-unknown-unknown";

/// With rustup's target, or else with the standard library's source as Debian packages it.
pub fn check() -> anyhow::Result<()> {
    if succeeds("rustup", &["target", "add", TARGET]) {
        return run(&mut cargo(&["check", "-p", "blockpruner", "--target", TARGET]));
    }
    let debian = || std::path::Path::new("/usr/lib/rust-web").exists() || succeeds("dpkg", &["-s", "rust-web-src"]);
    if cfg!(target_os = "linux") && !debian() {
        eprintln!("xtask: rustup cannot fetch {TARGET}, installing Debian's rustc-web");
        if let Err(error) = crate::driver::apt_install(&["rustc-web", "cargo-web", "rust-web-src"]) {
            eprintln!("xtask: it could not be installed: {error:#}");
        }
    }
    if !debian() {
        eprintln!("xtask: skipped the check for {TARGET}: neither rustup nor apt-get can provide the target");
        return Ok(());
    }
    let mut command = Command::new("/usr/bin/cargo");
    command
        .args(["check", "-p", "blockpruner", "-Z", "build-std=std,panic_abort", "--target", TARGET, "--target-dir"])
        .arg(root().join("target/wasm-std"))
        .env("RUSTC", "/usr/bin/rustc")
        .env("RUSTC_BOOTSTRAP", "1")
        // Variables that rustup's cargo sets for its own compiler.
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO")
        .current_dir(root());
    run(&mut command)
}
