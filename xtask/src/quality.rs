//! `cargo xtask quality`: the published comparison on a model at hand. Each strategy prunes it to the largest share that is asked
//! for; every share is then measured on a held-out text and on tasks. What is measured is kept, so that a run that was stopped goes
//! on where it was.

use std::fmt::Write as _;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::Value;

use crate::{SMOLLM2, built, cargo, driver, root, run};

#[derive(Args)]
pub struct QualityArgs {
    /// Model to prune
    #[arg(long, default_value = SMOLLM2)]
    model: String,
    /// Text that the strategies choose by
    #[arg(long)]
    calibration: PathBuf,
    /// Another text, on which perplexity is measured
    #[arg(long)]
    eval_text: PathBuf,
    /// Tasks, as `blockpruner evaluate` takes them
    #[arg(long, value_name = "NAME=FILE")]
    tasks: Vec<String>,
    /// Shares of the parameters that are removed
    #[arg(long, value_delimiter = ',', default_values_t = [0.1, 0.2, 0.3])]
    ratios: Vec<f64>,
    /// Tokens a window
    #[arg(long, default_value_t = 256)]
    window: u32,
    /// Windows of the text that the strategies choose by
    #[arg(long, default_value_t = 8)]
    max_windows: u32,
    /// Windows of the other text
    #[arg(long, default_value_t = 32)]
    eval_windows: u32,
    /// First items of each task
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// Draws of the strategy `random`, whose mean is shown
    #[arg(long, default_value_t = 5)]
    draws: u64,
}

impl QualityArgs {
    /// Where results are kept: those of other shares and draws are of use, those of other models and texts are not.
    fn kept_as(&self) -> String {
        let Self { model, calibration, eval_text, tasks, window, max_windows, eval_windows, limit, .. } = self;
        let mut hasher = DefaultHasher::new();
        (model, calibration, eval_text, tasks, window, max_windows, eval_windows, limit).hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }
}

/// A row of the table, and the options that choose blocks so; one pruning for each draw where it is random.
struct Method {
    name: &'static str,
    options: &'static [&'static str],
    random: bool,
}

/// In the order of the published table, which has no pairs.
const METHODS: [Method; 8] = [
    Method { name: "one-shot", options: &["--strategy", "one-shot"], random: false },
    Method { name: "short-gpt", options: &["--strategy", "short-gpt"], random: false },
    Method { name: "cosine", options: &["--strategy", "cosine"], random: false },
    Method { name: "relative-magnitude", options: &["--strategy", "relative-magnitude"], random: false },
    Method { name: "random", options: &["--strategy", "random"], random: true },
    Method { name: "pairs", options: &["--units", "pairs", "--racing"], random: false },
    Method { name: "layers", options: &["--units", "layers", "--racing"], random: false },
    Method { name: "blockpruner", options: &["--racing"], random: false },
];

pub fn quality(args: &QualityArgs) -> anyhow::Result<()> {
    driver::ensure_vulkan()?;
    run(&mut cargo(&["build", "--release", "-p", "blockpruner-cli"]))?;
    let work = root().join("target/quality").join(args.kept_as());
    fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
    let table = Table { args, work: &work };
    let dense = table.measured("dense", &[])?;
    let mut rows = vec![table.row("dense", &[0.0], &[dense])];
    for method in &METHODS {
        let draws = if method.random { 1..=args.draws } else { 0..=0 };
        let plans = draws.map(|draw| table.pruned(method, draw)).collect::<Result<Vec<_>, _>>()?;
        for ratio in &args.ratios {
            let of = |plan: &Pruned| table.at(plan, *ratio);
            let found = plans.iter().map(of).collect::<Result<Vec<_>, _>>()?;
            let (shares, measured): (Vec<_>, Vec<_>) = found.into_iter().flatten().unzip();
            if !measured.is_empty() {
                rows.push(table.row(method.name, &shares, &measured));
            }
        }
    }
    println!("{}{}", table.header(), rows.concat());
    Ok(())
}

/// A plan, and what its runs are called.
struct Pruned {
    name: String,
    plan: PathBuf,
}

/// What was measured of a model.
struct Measured {
    perplexity: f64,
    /// What `evaluate --json` printed; null without tasks.
    tasks: Value,
}

struct Table<'a> {
    args: &'a QualityArgs,
    work: &'a Path,
}

impl Table<'_> {
    /// The plan of a method, to the largest share.
    fn pruned(&self, method: &Method, draw: u64) -> anyhow::Result<Pruned> {
        let name = if method.random { format!("{}-{draw}", method.name) } else { method.name.to_string() };
        let out = self.work.join(&name);
        let plan = out.join("plan.json");
        let largest = self.args.ratios.iter().copied().fold(0.0, f64::max);
        let there = fs::read(&plan).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let share = |plan: &Value| plan["steps"].as_array()?.last()?["ratio_removed"].as_f64();
        if there.is_some_and(|plan| plan["status"] == "finished" && share(&plan) >= Some(largest)) {
            return Ok(Pruned { name, plan });
        }
        let mut prune = self.program("prune");
        prune.arg("--calibration").arg(&self.args.calibration).args(method.options);
        if method.random {
            prune.args(["--strategy-seed", &draw.to_string()]);
        }
        prune.args(["--max-windows", &self.args.max_windows.to_string(), "--ratio", &largest.to_string()]);
        prune.arg("--out").arg(&out);
        if plan.exists() {
            prune.arg("--resume");
        }
        run(&mut prune)?;
        let model = out.join("model");
        fs::remove_dir_all(&model).with_context(|| format!("cannot remove {}", model.display()))?;
        Ok(Pruned { name, plan })
    }

    /// The share that a plan's first step with at least `ratio` has removed, and what is measured there; None where it has none.
    fn at(&self, pruned: &Pruned, ratio: f64) -> anyhow::Result<Option<(f64, Measured)>> {
        let plan = read(&pruned.plan)?;
        let steps = plan["steps"].as_array().map_or(&[][..], Vec::as_slice);
        let share = |step: &Value| step["ratio_removed"].as_f64().unwrap_or_default();
        let Some(step) = steps.iter().position(|step| share(step) >= ratio) else { return Ok(None) };
        let plan = pruned.plan.to_string_lossy();
        let options = ["--plan", &plan, "--step", &(step + 1).to_string()];
        let measured = self.measured(&format!("{}-step-{}", pruned.name, step + 1), &options)?;
        Ok(Some((share(&steps[step]), measured)))
    }

    fn measured(&self, name: &str, blocks: &[&str]) -> anyhow::Result<Measured> {
        let mut perplexity = self.program("perplexity");
        perplexity.arg("--text").arg(&self.args.eval_text).args(blocks);
        perplexity.args(["--max-windows", &self.args.eval_windows.to_string()]);
        let score = self.kept(&format!("{name}-perplexity.json"), &mut perplexity)?;
        let mut evaluate = self.program("evaluate");
        evaluate.args(blocks).args(["--limit", &self.args.limit.to_string()]);
        evaluate.args(self.args.tasks.iter().flat_map(|task| ["--tasks", task]));
        let tasks = match self.args.tasks.is_empty() {
            true => Value::Null,
            false => self.kept(&format!("{name}-tasks.json"), &mut evaluate)?,
        };
        let perplexity = score["perplexity"].as_f64().context("no perplexity was printed")?;
        Ok(Measured { perplexity, tasks })
    }

    /// What a command prints as JSON, or has printed before.
    fn kept(&self, file: &str, command: &mut Command) -> anyhow::Result<Value> {
        let path = self.work.join(file);
        if !path.exists() {
            command.arg("--json").stderr(Stdio::inherit());
            eprintln!("xtask: {command:?}");
            let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
            ensure!(output.status.success(), "{command:?} failed: {}", output.status);
            fs::write(&path, output.stdout).with_context(|| format!("cannot write {}", path.display()))?;
        }
        read(&path)
    }

    fn program(&self, name: &str) -> Command {
        let mut command = built("release");
        command.args([name, "--quiet", "--model", &self.args.model]);
        if name != "evaluate" {
            command.args(["--window", &self.args.window.to_string()]);
        }
        command
    }

    /// The tasks' names.
    fn tasks(&self) -> impl Iterator<Item = &str> {
        self.args.tasks.iter().filter_map(|task| Some(task.split_once('=')?.0))
    }

    fn header(&self) -> String {
        let tasks: String = self.tasks().map(|name| format!(" {name} |")).collect();
        let mean = if self.args.tasks.is_empty() { "" } else { " mean |" };
        let columns = self.tasks().count() + 3 + usize::from(!mean.is_empty());
        format!("| strategy | parameters removed | perplexity |{tasks}{mean}\n{}|\n", "|---".repeat(columns))
    }

    /// A row: means over the draws, and standard errors of the tasks where there is one draw. The mean of perplexities is that of
    /// the mean loss, as of an arithmetic one the worst draw would be all that is seen.
    fn row(&self, name: &str, shares: &[f64], measured: &[Measured]) -> String {
        let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let perplexity = mean(measured.iter().map(|one| one.perplexity.ln()).collect()).exp();
        let mut row = format!("| {name} | {:.1} % | {perplexity:.2} |", 100.0 * mean(shares.to_vec()));
        for task in self.tasks() {
            let value = |key: &str| {
                let values: Vec<f64> =
                    measured.iter().filter_map(|one| one.tasks["tasks"][task][key].as_f64()).collect();
                (!values.is_empty()).then(|| 100.0 * mean(values))
            };
            // As the published mean does: normalised where that is defined.
            let key = if value("acc_norm").is_some() { "acc_norm" } else { "acc" };
            let _ = write!(row, " {:.1}", value(key).unwrap_or(f64::NAN));
            if let ([_], Some(error)) = (measured, value(&format!("{key}_stderr"))) {
                let _ = write!(row, " ± {error:.1}");
            }
            row += " |";
        }
        if !self.args.tasks.is_empty() {
            let means = measured.iter().filter_map(|one| one.tasks["mean"].as_f64());
            let _ = write!(row, " {:.1} |", 100.0 * mean(means.collect()));
        }
        row + "\n"
    }
}

fn read(path: &Path) -> anyhow::Result<Value> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("cannot read {}", path.display()))
}
