//! `cargo xtask test`: all checks, in two lanes beside each other, because most of what they wait for is one compiler or one
//! driver on one core.

use std::fs::File;
use std::process::{Child, Command};

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};

use crate::{build_blockpruner, cargo, cargo_test, checks, driver, python, root, run, runtimes, wasm, web};

#[derive(Args)]
pub struct TestArgs {
    /// The inner loop: lints, and the tests that take seconds
    #[arg(long)]
    quick: bool,
    /// Some parts of the tests only
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with = "quick")]
    only: Vec<Part>,
    /// Also load exported models in Hugging Face transformers (downloads torch)
    #[arg(long)]
    with_transformers: bool,
    /// Also run written GGUF files in llama.cpp and folders in MLX, and measure pruned models (downloads both, and transformers)
    #[arg(long)]
    with_runtimes: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Part {
    /// Formatting and lints
    Lints,
    /// The library without what is built in; compiles its dependencies again, and runs only if it is asked for
    WithoutBuiltin,
    /// Tests on this machine's devices
    Native,
    /// Tests in a browser
    Web,
    /// Tests on SwiftShader, the second software driver
    Swiftshader,
    /// What a release needs: documentation, packages, licences
    Release,
    /// Lints of what only the browser compiles
    BrowserLints,
}

/// What runs by itself. The two take about as long as each other.
const LANES: [&[Part]; 2] =
    [&[Part::Native, Part::BrowserLints], &[Part::Web, Part::Swiftshader, Part::Release, Part::Lints]];

impl Part {
    fn test(self) -> anyhow::Result<()> {
        match self {
            Self::Lints => checks::lints(),
            Self::WithoutBuiltin => checks::without_builtin(),
            Self::Native => native(),
            Self::Web => web::test(),
            Self::Swiftshader => driver::test_on_swiftshader(),
            Self::Release => checks::release(),
            Self::BrowserLints => checks::browser_lints(),
        }
    }
}

/// Files of end-to-end tests that take seconds.
const QUICK: [&str; 7] = ["device::", "families::", "fixtures::", "generate::", "export::", "--skip", "gguf_export::"];

pub fn test(args: &TestArgs) -> anyhow::Result<()> {
    driver::ensure_vulkan()?;
    if args.quick {
        checks::lints()?;
        run(&mut cargo(&["test", "--workspace", "--lib", "--bins", "--test=corpus"]))?;
        return run(cargo(&["test", "--workspace", "--test=end_to_end", "--"]).args(QUICK));
    }
    match &args.only[..] {
        [] => everything()?,
        parts => all(parts)?,
    }
    if args.with_transformers || args.with_runtimes {
        build_blockpruner()?;
    }
    if args.with_transformers {
        python::check_exports()?;
    }
    if args.with_runtimes {
        runtimes::check()?;
    }
    Ok(())
}

/// All tests of this machine, also if some fail: on a machine of somebody else's, all that does should be seen at once.
fn native() -> anyhow::Result<()> {
    let tests = run(&mut cargo_test(&["--no-fail-fast"]));
    run(&mut cargo(&["test", "--workspace", "--doc"])).and(tests)
}

fn everything() -> anyhow::Result<()> {
    // Installed before the lanes part, for there is one package manager.
    driver::ensure_swiftshader()?;
    wasm::Toolchain::find();
    let [own, beside] = LANES;
    let lane = Lane::start(beside)?;
    // What the other lane says is shown whatever happens here.
    let result = all(own);
    lane.finish().and(result)
}

/// Tests every part, also if one before it fails, and says at the end what did.
fn all(parts: &[Part]) -> anyhow::Result<()> {
    let failed: Vec<_> = parts.iter().filter_map(|part| part.test().err()).map(|error| format!("{error:#}")).collect();
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

/// Parts of the tests in a process of their own, whose output waits in a file.
struct Lane {
    name: String,
    log: std::path::PathBuf,
    process: Child,
}

impl Lane {
    fn start(parts: &[Part]) -> anyhow::Result<Self> {
        let values = parts.iter().filter_map(Part::to_possible_value);
        let name = values.map(|value| value.get_name().to_string()).collect::<Vec<_>>().join(",");
        let log = root().join("target/test-beside.log");
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
