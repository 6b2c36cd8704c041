//! `cargo xtask fuzz`: builds `tests/fuzz` with libFuzzer, which takes a C++ compiler, and runs its targets one by one.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// What is kept under target/fuzz: inputs that reached something new, and those that found something.
const CORPUS: &str = "corpus";
const FINDINGS: &str = "findings";
/// Says which target the program is.
const TARGET_VARIABLE: &str = "BLOCKPRUNER_FUZZ_TARGET";
/// Coverage as libFuzzer wants it, which stable Rust has no option for, and checks of all arithmetic.
const RUSTFLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
     -Cllvm-args=-sanitizer-coverage-pc-table -Cdebug-assertions -Coverflow-checks";
/// Longest input; a run of more seconds, even on a busy machine, or memory is a finding.
const LIMITS: [&str; 4] = ["-max_len=4096", "-timeout=60", "-rss_limit_mb=2048", "-malloc_limit_mb=512"];

#[derive(clap::Args)]
pub struct FuzzArgs {
    /// Fuzz this target only
    target: Option<String>,
    /// How long each target is fuzzed
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// End a target after so many runs
    #[arg(long)]
    runs: Option<u64>,
}

pub fn fuzz(args: &FuzzArgs) -> anyhow::Result<()> {
    let program = build()?;
    let all = targets(&program)?;
    let chosen = match &args.target {
        None => all,
        Some(target) if all.contains(target) => vec![target.clone()],
        Some(target) => bail!("there is no target `{target}`; there are {}", all.join(", ")),
    };
    let outcomes: Vec<Outcome> =
        chosen.into_iter().map(|target| fuzz_target(&program, target, args)).collect::<Result<_, _>>()?;
    println!("{:12} {:>12} {:>8} {:>9}", "target", "runs", "seconds", "findings");
    for Outcome { target, runs, seconds, findings, .. } in &outcomes {
        println!("{target:12} {runs:>12} {seconds:>8} {:>9}", findings.len());
    }
    let findings: Vec<String> =
        outcomes.iter().flat_map(|outcome| &outcome.findings).map(|path| path.display().to_string()).collect();
    if !findings.is_empty() {
        bail!("findings; copy what is mended into tests/fuzz/{CORPUS}:\n{}", findings.join("\n"));
    }
    Ok(())
}

/// Of one target.
struct Outcome {
    target: String,
    runs: u64,
    seconds: u64,
    /// Inputs that found something.
    findings: Vec<PathBuf>,
}

fn folder() -> PathBuf {
    crate::root().join("target/fuzz")
}

/// Builds the program and says where it lies.
fn build() -> anyhow::Result<PathBuf> {
    let host = host()?;
    let mut command = crate::cargo(&["build", "-p", "blockpruner-fuzz", "--features", "libfuzzer"]);
    // Named, the host is a target of its own, and build scripts are built without RUSTFLAGS.
    command.args(["--profile", "fuzz", "--target", &host, "--target-dir"]).arg(folder()).env("RUSTFLAGS", RUSTFLAGS);
    crate::run(&mut command)?;
    Ok(folder().join(host).join("fuzz").join(format!("fuzz{}", std::env::consts::EXE_SUFFIX)))
}

/// The triple of this machine.
fn host() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot start rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_string())
}

/// The names of all targets, which the program prints if it is not told one.
fn targets(program: &Path) -> anyhow::Result<Vec<String>> {
    let output = Command::new(program).env_remove(TARGET_VARIABLE).output();
    let output = output.with_context(|| format!("cannot start {}", program.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_string).collect())
}

fn fuzz_target(program: &Path, target: String, args: &FuzzArgs) -> anyhow::Result<Outcome> {
    let (corpus, found) = (folder().join(CORPUS).join(&target), folder().join(FINDINGS).join(&target));
    for folder in [&corpus, &found] {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let before = files(&found)?;
    let mut command = Command::new(program);
    command
        .env(TARGET_VARIABLE, &target)
        .args(LIMITS)
        .arg(format!("-max_total_time={}", args.seconds))
        .args(args.runs.map(|runs| format!("-runs={runs}")))
        .arg(format!("-artifact_prefix={}/", found.display()))
        .arg("-print_final_stats=1")
        .args([corpus, crate::root().join("tests/fuzz").join(CORPUS).join(&target)])
        .stdout(Stdio::inherit())
        .stderr(Stdio::piped());
    eprintln!("xtask: fuzzing {target} for {} s", args.seconds);
    let begun = std::time::Instant::now();
    let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
    let mut log = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines() {
            log.push(line.context("cannot read what libFuzzer says")?);
        }
    }
    let status = child.wait()?;
    let statistic = |line: &String| line.strip_prefix("stat::number_of_executed_units:")?.trim().parse().ok();
    let runs = log.iter().find_map(statistic).unwrap_or(0);
    let mut findings = files(&found)?;
    findings.retain(|file| !before.contains(file));
    if !status.success() {
        // What led to it comes last.
        log.iter().skip(log.len().saturating_sub(60)).for_each(|line| eprintln!("{line}"));
        if findings.is_empty() {
            bail!("{target}: libFuzzer ended with {status} and kept no input");
        }
    }
    Ok(Outcome { target, runs, seconds: begun.elapsed().as_secs(), findings })
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}
