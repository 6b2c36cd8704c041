//! `cargo xtask bench`: the program's own bench on the models that are here, beside PyTorch if asked for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use clap::Args;
use serde_json::Value;

use crate::{SMOLLM2, built, cargo, driver, python, root, run};

#[derive(Args)]
pub struct BenchArgs {
    /// Measure this model only [default: builtin:tiny, and SmolLM2 if the tests have downloaded it]
    #[arg(long)]
    model: Option<String>,
    /// Also run the published loop in PyTorch, f32, on the same windows
    #[arg(long)]
    against_pytorch: bool,
    /// Let PyTorch run only so many candidates of the first step, and extrapolate
    #[arg(long, value_name = "N", requires = "against_pytorch")]
    pytorch_candidates: Option<u32>,
    /// Then run the approximate search, too
    #[arg(long)]
    racing: bool,
    /// Write docs/growth.md: how the cost of a search grows
    #[arg(long, conflicts_with_all = ["model", "against_pytorch", "racing"])]
    growth: bool,
    #[command(flatten)]
    passed: PassedArgs,
}

/// As `blockpruner bench` takes them.
#[derive(Args)]
struct PassedArgs {
    /// Text, JSON or JSONL file, or builtin:sample
    #[arg(long)]
    calibration: Option<String>,
    /// Rows of the text
    #[arg(long)]
    samples: Option<u32>,
    /// Tokens a window [default: 128]
    #[arg(long)]
    window: Option<u32>,
    /// Windows [default: 2]
    #[arg(long)]
    max_windows: Option<u32>,
    /// Blocks to remove [default: 1]
    #[arg(long)]
    remove: Option<u32>,
    /// Device memory to keep to
    #[arg(long)]
    memory_budget: Option<String>,
    /// Device to run on
    #[arg(long)]
    device: Option<String>,
}

impl PassedArgs {
    fn options(&self) -> Vec<String> {
        let number = |value: Option<u32>| value.map(|value| value.to_string());
        let mut options = Vec::new();
        for (name, value) in [
            ("--calibration", self.calibration.clone()),
            ("--samples", number(self.samples)),
            ("--window", Some(self.window.unwrap_or(128).to_string())),
            ("--max-windows", Some(self.max_windows.unwrap_or(2).to_string())),
            ("--remove", Some(self.remove.unwrap_or(1).to_string())),
            ("--memory-budget", self.memory_budget.clone()),
            ("--device", self.device.clone()),
        ] {
            options.extend(value.into_iter().flat_map(|value| [name.to_string(), value]));
        }
        options
    }
}

/// Builds the program and measures.
pub fn bench(args: &BenchArgs) -> anyhow::Result<()> {
    driver::ensure_vulkan()?;
    run(&mut cargo(&["build", "--release", "-p", "blockpruner-cli"]))?;
    if args.growth {
        return growth();
    }
    let models = match &args.model {
        Some(model) => vec![model.clone()],
        None if root().join(SMOLLM2).is_file() => vec!["builtin:tiny".into(), SMOLLM2.into()],
        None => {
            eprintln!("xtask: without SmolLM2, which `cargo xtask test` downloads");
            vec!["builtin:tiny".into()]
        }
    };
    for model in models {
        let options = args.passed.options();
        let mut searches = vec![("exact", program(&model))];
        if args.racing {
            let mut racing = program(&model);
            racing.arg("--racing");
            searches.push(("racing", racing));
        }
        if !args.against_pytorch {
            searches.iter_mut().try_for_each(|(_, search)| run(search.args(&options)))?;
            continue;
        }
        let python = python::python()?;
        let mut reference = Command::new(python);
        reference.arg("tests/reference/bench_search.py").arg("--ours").current_dir(root());
        for (name, search) in &mut searches {
            let report = root().join(format!("target/bench-{name}.json"));
            fs::write(&report, measured(search.args(&options))?)
                .with_context(|| format!("cannot write {}", report.display()))?;
            reference.arg(report);
        }
        if let Some(count) = args.pytorch_candidates {
            reference.args(["--pytorch-candidates", &count.to_string()]);
        }
        run(&mut reference)?;
    }
    Ok(())
}

fn program(model: &str) -> Command {
    let mut command = built("release");
    command.args(["bench", "--model", model]);
    command
}

/// What the program prints as JSON.
fn measured(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    command.arg("--json").stderr(std::process::Stdio::inherit());
    eprintln!("xtask: {command:?}");
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    anyhow::ensure!(output.status.success(), "{command:?} failed: {}", output.status);
    Ok(output.stdout)
}

/// Tokens of a window in the growth tables.
const WINDOW: &str = "128";

/// A search for `remove` blocks of a model over some windows.
fn searched(model: &str, remove: usize, windows: usize) -> anyhow::Result<Value> {
    let (remove, windows) = (remove.to_string(), windows.to_string());
    let mut command = program(model);
    let command = command.args(["--window", WINDOW, "--max-windows", &windows, "--remove", &remove]);
    serde_json::from_slice(&measured(command)?).context("the program's JSON")
}

/// Searches on the embedded model: blocks removed at one window, windows at one block; and on SmolLM2's first layers.
fn growth() -> anyhow::Result<()> {
    const SIZES: [usize; 4] = [1, 2, 4, 8];
    const LAYERS: [usize; 3] = [6, 12, 30];
    anyhow::ensure!(root().join(SMOLLM2).is_file(), "{SMOLLM2} is missing: `cargo xtask test` downloads it");
    // The search for eight blocks begins with those for fewer.
    let longest = searched("builtin:tiny", 8, 1)?;
    let device = |key: &str| longest["device"][key].as_str().unwrap_or_default().to_string();
    let mut text = format!(
        "# How the cost of a search grows\n\nMeasured by `cargo xtask bench --growth` with `builtin:tiny` and SmolLM2-135M ({}, {}; \
         kernel {}), windows of {WINDOW} tokens.\nWall times are those of one run on a machine that may have had other work.\n",
        device("name"),
        device("driver"),
        device("kernel"),
    );
    text += "\n## Blocks removed from the embedded model, one window\n\n";
    text += &header("blocks");
    for remove in SIZES {
        text += &row(remove, &longest, remove);
    }
    text += "\n## Windows, one block removed from the embedded model\n\n";
    text += &header("windows");
    for windows in SIZES {
        text += &row(windows, &searched("builtin:tiny", 1, windows)?, 1);
    }
    text += "\n## Layers, one block removed from the first layers of SmolLM2-135M, two windows\n\n";
    text += &header("layers");
    for layers in LAYERS {
        let model = first_layers(layers)?;
        text += &row(layers, &searched(&model.to_string_lossy(), 1, 2)?, 1);
    }
    let path: &Path = &root().join("docs/growth.md");
    fs::create_dir_all(path.parent().map_or_else(PathBuf::new, Path::to_path_buf)).context("cannot make docs")?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// A folder with the first layers of SmolLM2 in f32.
fn first_layers(layers: usize) -> anyhow::Result<PathBuf> {
    let folder = root().join("target/tmp/first-layers");
    if !folder.exists() {
        let mut export = built("release");
        run(export.args(["export", "--model", SMOLLM2, "--step", "0", "--out"]).arg(&folder))?;
    }
    let file = folder.join("config.json");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut config: Value = serde_json::from_str(&text).with_context(|| format!("cannot read {}", file.display()))?;
    config["num_hidden_layers"] = layers.into();
    fs::write(&file, config.to_string()).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(folder)
}

/// The head of a table whose rows differ in `what`.
fn header(what: &str) -> String {
    format!("| {what} | seconds | candidates | to the end | block work | head work |\n|---|---|---|---|---|---|\n")
}

/// The first `steps` steps of a report; work as a share of the published loop's.
fn row(label: usize, report: &Value, steps: usize) -> String {
    let counts = report["search"]["count"]["steps"].as_array().map_or(&[][..], Vec::as_slice);
    let sum = |pointer: &str| {
        let values = counts.iter().take(steps).filter_map(|step| step.pointer(pointer)?.as_f64());
        values.sum::<f64>()
    };
    let share = |key: &str| sum(&format!("/work/{key}")) / sum(&format!("/exhaustive/{key}"));
    format!(
        "| {label} | {:.2} | {} | {} | {:.2} | {:.2} |\n",
        sum("/seconds"),
        sum("/candidates"),
        sum("/complete"),
        share("block_tokens"),
        share("head_tokens"),
    )
}
