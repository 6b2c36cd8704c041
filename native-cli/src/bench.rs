//! `blockpruner bench`: this device against its own limits, and a search against the published loop.

use std::rc::Rc;

use blockpruner::bench::{DensePass, DeviceRates, KernelTime, Rate, SearchCount, WeightRate, kernels};
use blockpruner::gpu::DeviceInfo;
use blockpruner::score::Scorer;
use blockpruner::search::{BlockTypes, MemoryPlan, SearchOptions, Step, Target, Units};
use blockpruner::session::Session;
use blockpruner::text::Windows;
use clap::Args;
use serde::Serialize;

use crate::args::{DeviceArgs, SearchArgs, TextArgs, block_count};
use crate::progress::Preparing;
use crate::screen::{Stage, message};
use crate::{open, screen};

/// Tokens that are measured on unless --max-windows says otherwise: as many as run together.
const TOKENS: usize = 2048;

/// Arguments of `bench`.
#[derive(Args)]
pub struct BenchArgs {
    /// Hugging Face folder, .gguf file, builtin:tiny or a name on the Hugging Face hub, ORG/NAME[@REVISION]
    #[arg(long, default_value = "builtin:tiny")]
    model: String,
    /// Text, JSON or JSONL file, or builtin:sample
    #[arg(long, value_name = "TEXT", default_value = "builtin:sample")]
    calibration: String,
    /// Also measure the search for this many blocks
    #[arg(long, value_name = "K", group = "target", value_parser = block_count)]
    remove: Option<u32>,
    #[command(flatten)]
    search: SearchArgs,
    #[command(flatten)]
    text: TextArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    model: String,
    device: DeviceInfo,
    text: Text,
    rates: DeviceRates,
    /// None for a model without blocks.
    weights: Option<WeightRate>,
    pass: DensePass,
    kernels: Vec<KernelTime>,
    memory: Memory,
    /// None without --remove.
    search: Option<SearchReport>,
}

#[derive(Serialize)]
struct Text {
    source: String,
    window: usize,
    windows: usize,
    /// So that others can measure the same.
    ids: Vec<u32>,
}

/// The plan is about device memory; a device on the CPU takes it from the process's.
#[derive(Serialize)]
struct Memory {
    planned_bytes: u64,
    weights_bytes: u64,
    streamed: bool,
    scratch_bytes: u64,
    states_bytes: u64,
    /// Of the process when the device was open and nothing loaded. None where the system does not tell.
    resident_before_bytes: Option<u64>,
    /// Of the process, loading, a dense pass and the search included, the measuring of kernels not.
    peak_resident_bytes: Option<u64>,
}

#[derive(Serialize)]
struct SearchReport {
    strategy: String,
    units: Units,
    block_types: BlockTypes,
    /// Whether the result may differ from that of the published loop.
    approximate: bool,
    count: SearchCount,
    steps: Vec<Step>,
}

/// Measures and prints.
pub async fn run(args: &BenchArgs) -> anyhow::Result<()> {
    let checkpoint = open::checkpoint(&args.model).await?;
    let search = args.remove.map(|remove| args.search.options(Target::Units(remove as usize))).transpose()?;
    search.iter().try_for_each(|options| options.check(&checkpoint.spec))?;
    let window = args.text.window.unwrap_or_else(|| checkpoint.spec.default_window());
    let together = (TOKENS / window.max(1)).max(1);
    let text = TextArgs { max_windows: args.text.max_windows.or(Some(together)), ..args.text.clone() };
    let windows = open::windows(&checkpoint, "calibration", &args.calibration, &text)?;
    let session = open::session(&args.device, &checkpoint).await?;
    let gpu = session.gpu();
    let plan = session.memory(&windows, search.as_ref())?;
    let before = process_memory("VmRSS");
    let mut preparing = Preparing::new(&session);
    let model = session.load(&plan, &mut |preparation| preparing.tell(preparation)).await?;
    let found = match search {
        None => None,
        Some(options) => Some(search_blocks(&session, &windows, options).await?),
    };
    let scorer = Scorer::batched(&model, &windows, plan.batching)?;
    // The search comes first, so that what measuring allocates does not count.
    let memory = Memory::new(&plan, before, process_memory("VmHWM"));
    message("measuring the device");
    let rates = DeviceRates::measure(gpu).await?;
    message("measuring how fast weights come");
    let weights = WeightRate::measure(&model).await?;
    message("measuring dense passes");
    let pass = DensePass::measure(&scorer).await?;
    message("measuring kernels");
    let kernels = kernels(&scorer, &rates).await?;
    let device = gpu.info();
    let Windows { source, count, window, ids, .. } = Rc::unwrap_or_clone(windows);
    let text = Text { source, window, windows: count, ids };
    let report =
        Report { model: args.model.clone(), device, text, rates, weights, pass, kernels, memory, search: found };
    if args.json { screen::print_json(&report) } else { screen::print_text(&tables(&report)) }
}

async fn search_blocks(
    session: &Rc<Session>,
    windows: &Rc<Windows>,
    options: SearchOptions,
) -> anyhow::Result<SearchReport> {
    let spec = &session.checkpoint().spec;
    let (strategy, units, block_types) =
        (options.strategy.name().to_string(), options.units_of(spec), options.block_types);
    let approximate = options.strategy.is_approximate();
    let mut stage = Stage::none();
    let mut search = session.search(windows.clone(), options, None).await?;
    while search.next().await?.is_some() {
        if let Some(cost) = search.cost() {
            stage.transfer("searching", (cost.done() * 1000.0) as u64, 1000);
        }
    }
    drop(stage);
    let steps = search.state().steps.clone();
    Ok(SearchReport {
        strategy,
        units,
        block_types,
        approximate,
        count: SearchCount::new(spec, windows, &steps),
        steps,
    })
}

impl Memory {
    fn new(plan: &MemoryPlan, resident_before_bytes: Option<u64>, peak_resident_bytes: Option<u64>) -> Self {
        Self {
            planned_bytes: plan.total(),
            weights_bytes: plan.weights,
            streamed: plan.streamed,
            scratch_bytes: plan.scratch,
            states_bytes: plan.states,
            resident_before_bytes,
            peak_resident_bytes,
        }
    }
}

/// A line of Linux's /proc/self/status, in bytes.
fn process_memory(line: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let value = status.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':'))?;
    Some(value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn tables(report: &Report) -> String {
    let Report { rates, pass, .. } = report;
    let (copied, size) = (screen::bytes(rates.copy_bytes), rates.gemm_size);
    let (copy, product) = (rates.copy_gb_per_second, rates.gemm_gflop_per_second);
    let mut text = format!("best copy     {copy:.1} GB/s (buffer to buffer, {copied} at a time, read and written)\n");
    text += &format!("best product  {product:.1} GFLOP/s (f32, {size} x {size} x {size})\n");
    if let Some(WeightRate { bytes, seconds: time, gb_per_second: rate }) = report.weights {
        let (bytes, time) = (screen::bytes(bytes), seconds(time));
        text += &format!(
            "weights       {rate:.2} GB/s (all blocks, {bytes} packed, from the files to the device in {time})\n"
        );
    }
    text += &format!(
        "dense pass over {} windows of {}: {}, {:.0} tokens/s (median {})\n",
        report.text.windows,
        report.text.window,
        seconds(pass.seconds.minimum),
        pass.tokens_per_second,
        seconds(pass.seconds.median),
    );
    text += &kernels_table(&report.kernels);
    if let Some(search) = &report.search {
        text += &search_table(search);
    }
    text + &memory_lines(&report.memory)
}

/// One row a kernel, with its share of the pass.
fn kernels_table(kernels: &[KernelTime]) -> String {
    let head = ["kernel", "times", "dispatches", "minimum", "median", "rate", "of best", "of pass"];
    let row = |[kernel, times, dispatches, minimum, median, rate, best, pass]: [&str; 8]| {
        format!("{kernel:<18}{times:>6}{dispatches:>12}{minimum:>11}{median:>11}{rate:>16}{best:>9}{pass:>9}\n")
    };
    let all: f64 = kernels.iter().map(|kernel| kernel.seconds.minimum * kernel.times as f64).sum();
    let mut table = row(head);
    for kernel in kernels {
        let rate = match kernel.rate {
            Rate::GflopPerSecond(rate) => format!("{rate:.1} GFLOP/s"),
            Rate::GbPerSecond(rate) => format!("{rate:.2} GB/s"),
        };
        table += &row([
            kernel.kernel,
            &kernel.times.to_string(),
            &kernel.dispatches.to_string(),
            &seconds(kernel.seconds.minimum),
            &seconds(kernel.seconds.median),
            &rate,
            &format!("{:.2}", kernel.of_best),
            &format!("{:.1} %", kernel.seconds.minimum * kernel.times as f64 / all * 100.0),
        ]);
    }
    table
}

/// One row a step, and what was saved in all.
fn search_table(search: &SearchReport) -> String {
    let count = &search.count;
    let mut text = format!("search ({}): {}\n", search.strategy, seconds(count.seconds));
    text += &format!(
        "{:>4}  {:<8}{:>12}{:>11}{:>12}{:>10}{:>9}{:>7}\n",
        "step", "removed", "perplexity", "time", "candidates", "complete", "bounded", "raced"
    );
    for (step, counted) in search.steps.iter().zip(&count.steps) {
        text += &format!(
            "{:>4}  {:<8}{:>12}{:>11}{:>12}{:>10}{:>9}{:>7}\n",
            step.step,
            step.removed.to_string(),
            screen::short(step.perplexity),
            seconds(counted.seconds),
            counted.candidates,
            counted.complete,
            counted.bounded,
            counted.raced
        );
    }
    text + &screen::work_lines(count) + &screen::approximate_line(search.approximate.then_some(&search.strategy), count)
}

fn memory_lines(memory: &Memory) -> String {
    let mut text = format!("memory planned on the device: {}\n", screen::bytes(memory.planned_bytes));
    if let (Some(before), Some(peak)) = (memory.resident_before_bytes, memory.peak_resident_bytes) {
        let (peak, before) = (screen::bytes(peak), screen::bytes(before));
        text += &format!("memory of the process: {peak} at most, {before} before loading\n");
    }
    text
}

/// A short time for people.
fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.1} us", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}
