//! `cargo xtask test`: all checks, in two lanes beside each other, because most of what they wait for is one compiler or one
//! driver on one core.

use std::fs::File;
use std::process::{Child, Command};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

use crate::{cargo, checks, driver, python, root, run, runtimes, wasm, web};

#[derive(Args)]
pub struct TestArgs {
    /// The inner loop: lints, and the tests that take seconds
    #[arg(long)]
    quick: bool,
    /// One part of the tests only
    #[arg(long, value_enum, conflicts_with = "quick")]
    only: Option<Part>,
    /// Also load exported models in Hugging Face transformers (downloads torch)
    #[arg(long)]
    with_transformers: bool,
    /// Also run written GGUF files in llama.cpp, and measure it and transformers on pruned models (downloads both)
    #[arg(long)]
    with_runtimes: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Part {
    /// Lints, documentation, packages, licences
    Checks,
    /// Tests on this machine's devices
    Native,
    /// Tests on SwiftShader, the second software driver
    Swiftshader,
    /// Tests in a browser
    Web,
}

/// Suites that take seconds.
const QUICK: [&str; 8] = [
    "--lib",
    "--bins",
    "--test=device",
    "--test=families",
    "--test=fixtures",
    "--test=generate",
    "--test=export",
    "--test=corpus",
];

pub fn test(args: &TestArgs) -> anyhow::Result<()> {
    driver::ensure_vulkan()?;
    if args.quick {
        checks::lints()?;
        return run(&mut cargo(&[&["test", "--workspace"], &QUICK[..]].concat()));
    }
    match args.only {
        Some(Part::Checks) => {
            checks::lints()?;
            checks::without_builtin()?;
            checks::release()?;
            checks::browser_lints()?;
        }
        Some(Part::Native) => native()?,
        Some(Part::Swiftshader) => driver::test_on_swiftshader()?,
        Some(Part::Web) => web::test()?,
        None => everything()?,
    }
    if args.with_transformers {
        python::check_exports()?;
    }
    if args.with_runtimes {
        runtimes::check()?;
    }
    Ok(())
}

fn native() -> anyhow::Result<()> {
    // On a machine of somebody else's, all that fails should be seen at once.
    run(&mut cargo(&["test", "--workspace", "--no-fail-fast"]))
}

fn everything() -> anyhow::Result<()> {
    // Installed before the lanes part, for there is one package manager.
    driver::ensure_swiftshader()?;
    wasm::Toolchain::find();
    let browser = Lane::start(Part::Web)?;
    let own = || {
        checks::lints()?;
        native()?;
        driver::test_on_swiftshader()?;
        checks::release()?;
        checks::browser_lints()
    };
    // What the browser says is shown whatever happens here.
    let result = own();
    browser.finish().and(result)
}

/// A part of the tests in a process of its own, whose output waits in a file.
struct Lane {
    name: String,
    log: std::path::PathBuf,
    process: Child,
}

impl Lane {
    fn start(part: Part) -> anyhow::Result<Self> {
        let name = part.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string());
        let log = root().join("target").join(format!("test-{name}.log"));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let program = std::env::current_exe().context("this program does not know where it is")?;
        let mut command = Command::new(program);
        command.args(["test", "--only", &name]).stdout(file.try_clone()?).stderr(file);
        eprintln!("xtask: beside this, {name} tests; their output is in {}", log.display());
        let process = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { name, log, process })
    }

    /// Waits for it and shows what it said.
    fn finish(mut self) -> anyhow::Result<()> {
        let status = self.process.wait().context("cannot wait for a test process")?;
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        eprintln!("xtask: output of the {} tests:\n{said}", self.name);
        if !status.success() {
            bail!("the {} tests failed: {status}", self.name);
        }
        Ok(())
    }
}
