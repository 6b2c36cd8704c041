//! Vulkan drivers: the one that is needed, and a second one for tests.

use std::path::Path;
use std::process::Command;

use anyhow::bail;

use crate::{cargo, run, succeeds};

const SWIFTSHADER: &str = "/usr/lib/chromium/vk_swiftshader_icd.json";

/// On Linux, installs Mesa's drivers if no Vulkan driver is there. Elsewhere the system has one.
pub fn ensure_vulkan() -> anyhow::Result<()> {
    if !cfg!(target_os = "linux") || has_vulkan() {
        return Ok(());
    }
    eprintln!("xtask: no Vulkan driver was found, installing mesa-vulkan-drivers");
    if !apt_install(&["mesa-vulkan-drivers"])? {
        bail!(
            "there is no apt-get here: install your distribution's Vulkan driver (Mesa has lavapipe, which needs no GPU)"
        );
    }
    Ok(())
}

fn has_vulkan() -> bool {
    if ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"].iter().any(|name| std::env::var_os(name).is_some()) {
        return true;
    }
    let has_json = |folder: &str| {
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        files.map(|file| file.path()).any(|path| path.extension().is_some_and(|extension| extension == "json"))
    };
    ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d"].into_iter().any(has_json)
}

/// Installs packages, with sudo where needed. False if this system has no apt-get.
pub fn apt_install(packages: &[&str]) -> anyhow::Result<bool> {
    if !succeeds("apt-get", &["--version"]) {
        return Ok(false);
    }
    let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    let apt_get = || match root {
        true => Command::new("apt-get"),
        false => {
            let mut sudo = Command::new("sudo");
            sudo.arg("apt-get");
            sudo
        }
    };
    run(apt_get().arg("update"))?;
    run(apt_get().args(["install", "-y", "--no-install-recommends"]).args(packages))?;
    Ok(true)
}

/// On Linux, installs the driver of Chromium if it is not there, and with it the browser.
pub fn ensure_swiftshader() -> anyhow::Result<()> {
    if cfg!(target_os = "linux") && !Path::new(SWIFTSHADER).exists() {
        eprintln!("xtask: installing chromium, which brings SwiftShader, a second Vulkan driver for the tests");
        if let Err(error) = apt_install(&["chromium"]) {
            eprintln!("xtask: chromium could not be installed: {error:#}");
        }
    }
    Ok(())
}

/// Repeats the tests that run on a device with SwiftShader, the driver of Chromium.
pub fn test_on_swiftshader() -> anyhow::Result<()> {
    ensure_swiftshader()?;
    if !Path::new(SWIFTSHADER).exists() {
        eprintln!("xtask: skipped the tests on SwiftShader: {SWIFTSHADER} is not there");
        return Ok(());
    }
    // The whole workspace, so that dependencies keep the features that they are compiled with already. This driver compiles
    // slowly, so that what other tests or the browser show there too is left out: generation, formats, widths and kinds of
    // attention that the fixtures have, shards, and all fixtures by every kernel, each of which has its twin here and the
    // built-in model in the browser.
    let left_out = ["--skip", "every_variant_of_a_shader", "--skip", "shards_agree", "--skip", "every_kernel_agrees"];
    let mut tests = cargo(&["test", "--workspace", "--test", "end_to_end", "--", "fixtures::", "kernels::"]);
    tests.args(left_out);
    run(tests.env("VK_DRIVER_FILES", SWIFTSHADER))
}
