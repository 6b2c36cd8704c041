//! What a release needs besides tests that pass: documentation, lints for the browser, packages, licences.

use std::collections::BTreeSet;

use anyhow::{Context, bail};

use crate::{cargo, run, wasm};

/// Licences that a dependency may have: none of them asks anything of the programs that use it but to be named, or, in the
/// case of MPL-2.0, that changes to its own files are published.
const LICENCES: [&str; 8] =
    ["Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MPL-2.0", "Unicode-3.0", "Zlib"];

/// Formatting and lints, among these that nothing is newer than the Rust version that the workspace states
/// (`clippy::incompatible_msrv`).
pub fn lints() -> anyhow::Result<()> {
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// The library as programs have it that bring their own model and text. By itself it has other features of its dependencies,
/// which are checked again: minutes for a few lines, so that this runs only by `--only without-builtin`.
pub fn without_builtin() -> anyhow::Result<()> {
    run(&mut cargo(&["clippy", "-p", "blockpruner", "--no-default-features", "--", "-D", "warnings"]))
}

/// Documentation without warnings, packages that hold all they need, licences.
pub fn release() -> anyhow::Result<()> {
    licences()?;
    let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"]);
    run(doc.env("RUSTDOCFLAGS", "-D warnings"))?;
    // As programs see the library: without what is private, which links must not lead to.
    run(cargo(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    // All that are published at once, as they need each other; cargo does so from 1.90 on. Compiling them again shows nothing
    // that the tests do not, but for a file that a package lacks: leave `--no-verify` out before a release.
    run(&mut cargo(&["publish", "--workspace", "--dry-run", "--allow-dirty", "--no-verify", "--quiet"]))
}

/// Lints of what only the browser compiles, where the toolchain has them.
pub fn browser_lints() -> anyhow::Result<()> {
    match wasm::Toolchain::find().map(|toolchain| toolchain.clippy(&["-p", "blockpruner-web"])).transpose()?.flatten() {
        Some(mut clippy) => run(&mut clippy),
        None => {
            eprintln!("xtask: skipped the lints for wasm32: this machine's toolchain for it has no clippy");
            Ok(())
        }
    }
}

/// Every dependency states a licence that may be used.
fn licences() -> anyhow::Result<()> {
    let output = cargo(&["metadata", "--format-version", "1", "--locked"]).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("cargo metadata is no JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let refused: BTreeSet<String> = packages
        .iter()
        .filter(|package| !package["license"].as_str().is_some_and(is_allowed))
        .map(|package| format!("{} {}: {}", package["name"], package["version"], package["license"]))
        .collect();
    if !refused.is_empty() {
        bail!("licences that are not on the list in xtask/src/checks.rs:\n  {}", Vec::from_iter(refused).join("\n  "));
    }
    eprintln!("xtask: the licences of {} packages are fine", packages.len());
    Ok(())
}

/// Whether an SPDX expression, or one with slashes as old crates have it, can be met with licences of the list.
fn is_allowed(expression: &str) -> bool {
    let allowed = |licence: &spdx::LicenseReq| licence.license.id().is_some_and(|id| LICENCES.contains(&id.name));
    spdx::Expression::parse_mode(expression, spdx::ParseMode::LAX).is_ok_and(|licence| licence.evaluate(allowed))
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn licences_are_judged_by_what_may_be_chosen() {
        for good in ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "(MIT OR Apache-2.0) AND Unicode-3.0", "MIT AND ISC"] {
            assert!(is_allowed(good), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND GPL-3.0", "", "SSPL-1.0 OR AGPL-3.0"] {
            assert!(!is_allowed(bad), "{bad}");
        }
    }
}
