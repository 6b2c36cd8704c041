//! `blockpruner prune`: the main job, from the output folder's check to the check of the written model.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Context;
use blockpruner::bench::SearchCount;
use blockpruner::export::{Fingerprint, Plan, Pruning, write_order};
use blockpruner::gpu::{Gpu, GpuError};
use blockpruner::model::{Checkpoint, DeviceModel, ModelSpec};
use blockpruner::score::Scorer;
use blockpruner::search::{
    BlockTypes, CandidateState, Event, MemoryError, MemoryPlan, SearchError, SearchOptions, SearchState, Strategy,
    search,
};
use blockpruner::text::{CalibrationText, Windows};
use clap::Args;
use indicatif::ProgressBar;

use crate::args::{DeviceArgs, Dtype, Format, TextArgs};
use crate::exit::{Stopped, gpu_error};
use crate::resume::OutFolder;
use crate::screen::say;
use crate::{export, open, screen};

/// Arguments of `prune`.
#[derive(Args)]
pub struct PruneArgs {
    /// Hugging Face folder, .gguf file or builtin:tiny
    #[arg(long)]
    pub model: String,
    /// Text that the loss is measured on: text, JSON or JSONL file, or builtin:sample
    #[arg(long, value_name = "TEXT")]
    pub calibration: String,
    /// Blocks to remove; about a third of all is the usual maximum
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub remove: u32,
    /// Which blocks may go: mix, mha (attention) or mlp (feed-forward)
    #[arg(long, value_name = "TYPES", default_value_t)]
    pub block_types: BlockTypes,
    /// Run the published loop literally: slower, same result
    #[arg(long)]
    pub exhaustive: bool,
    /// Drop candidates that fall behind on the first windows: faster, approximate
    #[arg(long, conflicts_with = "exhaustive")]
    pub racing: bool,
    /// How the smaller model is written
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Convert the written weights [default: keep their type; quantised ones become f32]
    #[arg(long, value_enum)]
    pub dtype: Option<Dtype>,
    /// Folder for plan.json, order.json and the model; must be new or empty
    #[arg(long)]
    pub out: PathBuf,
    /// Go on with the interrupted search in --out
    #[arg(long)]
    pub resume: bool,
    #[command(flatten)]
    pub text: TextArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Print the plan as one JSON object on stdout
    #[arg(long)]
    pub json: bool,
}

/// Set by Ctrl-C, read at every event of the search.
static STOP: AtomicBool = AtomicBool::new(false);
/// Whether something looks at [`STOP`]; if not, the search is over and Ctrl-C ends the program.
static SEARCHING: AtomicBool = AtomicBool::new(false);

/// Everything that the search is about.
struct Job<'a> {
    args: &'a PruneArgs,
    checkpoint: &'a Checkpoint,
    text: &'a CalibrationText,
    windows: &'a Windows,
    options: SearchOptions,
    gpu: Rc<Gpu>,
}

/// Prunes and prints the outcome.
pub async fn run(args: &PruneArgs) -> anyhow::Result<()> {
    let (plan, count) = prune(args).await?;
    if args.json {
        return screen::print_json(&plan);
    }
    let mut text = screen::steps_table(plan.dense.perplexity, plan.model.parameters, &plan.steps);
    text += &screen::work_lines(plan.settings.strategy, &count);
    text += &format!("wrote {}: plan.json, order.json, model/\n", args.out.display());
    screen::print_text(&text)
}

async fn prune(args: &PruneArgs) -> anyhow::Result<(Plan, SearchCount)> {
    let out = OutFolder::prepare(&args.out, args.resume)?;
    let checkpoint = open::checkpoint(&args.model).await?;
    let strategy = match (args.exhaustive, args.racing) {
        (true, _) => Strategy::Exhaustive,
        (_, true) => Strategy::Racing,
        _ => Strategy::Exact,
    };
    let options = SearchOptions { remove: args.remove as usize, block_types: args.block_types, strategy };
    options.check(&checkpoint.spec)?;
    let (text, windows) = open::windows(&checkpoint, &args.calibration, &args.text)?;
    let gpu = open::device(&args.device, &checkpoint).await?;
    let job = Job { args, checkpoint: &checkpoint, text: &text, windows: &windows, options, gpu };
    let described = job.described();
    let fingerprint = described.fingerprint().await?;
    let saved = out.load(&fingerprint, &checkpoint.spec, &options)?;
    match &saved {
        Some(state) => {
            let (steps, candidates) = (state.steps.len(), state.candidates.len());
            say!("resuming: {steps} steps are done, and {candidates} candidates of the next one");
        }
        None if args.resume => say!("nothing is saved in {} yet, starting", args.out.display()),
        None => {}
    }
    let state = job.search(&out, &fingerprint, saved.unwrap_or_default()).await?;
    let plan = described.plan(fingerprint, state);
    plan.check().map_err(|(place, problem)| anyhow::anyhow!("the plan contradicts itself at {place}: {problem}"))?;
    // Whatever goes wrong here, the search is saved.
    let stopped = |error: anyhow::Error| Stopped(format!("{error:#}"));
    let perplexity = job.write(&out, &plan).await.map_err(stopped)?;
    job.compare(perplexity, &out, &plan)?;
    plan.write(&out.join("plan.json")).map_err(|error| stopped(error.into()))?;
    out.remove_state()?;
    let count = SearchCount::new(&checkpoint.spec, &windows, &plan.steps);
    Ok((plan, count))
}

impl Job<'_> {
    fn described(&self) -> Pruning<'_> {
        Pruning {
            model_name: &self.args.model,
            checkpoint: self.checkpoint,
            text: self.text,
            windows: self.windows,
            options: &self.options,
            gpu: &self.gpu,
        }
    }

    /// Loads the model and searches from `state` on, saving after every wave of candidates.
    async fn search(
        &self,
        out: &OutFolder,
        fingerprint: &Fingerprint,
        state: SearchState,
    ) -> anyhow::Result<SearchState> {
        if state.steps.len() == self.options.remove {
            watch_ctrl_c()?;
            return Ok(state);
        }
        let memory = open::memory(&self.gpu, self.checkpoint, self.windows, Some(&self.options), &self.args.device)?;
        let mut saved = state.dense.is_some();
        let model = self.load(&memory).await.map_err(|error| interrupted(error, saved))?;
        let scorer = Scorer::batched(&model, self.windows, memory.batching)?;
        SEARCHING.store(true, Ordering::SeqCst);
        watch_ctrl_c()?;
        let mut reporter = Reporter::new(&self.checkpoint.spec, &self.options, self.windows, &state);
        let mut failure = None;
        let mut observe = |event: Event<'_>, state: &SearchState| {
            if !matches!(event, Event::Progress { .. }) {
                if let Err(error) = out.save(fingerprint, state) {
                    failure = Some(error);
                    return ControlFlow::Break(());
                }
                saved = true;
            }
            reporter.tell(&event);
            if STOP.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let result = search(&scorer, &self.options, &memory, state, &mut observe).await;
        SEARCHING.store(false, Ordering::SeqCst);
        reporter.bar.finish_and_clear();
        if let Some(error) = failure {
            let error = error.context("the search stopped because its state could not be saved");
            return Err(if saved { Stopped(format!("{error:#}")).into() } else { error });
        }
        match result {
            Ok(state) => Ok(state),
            Err(SearchError::Stopped) => Err(Stopped("stopped".into()).into()),
            Err(error) => Err(interrupted(error.into(), saved)),
        }
    }

    /// Brings the model to the device, ready to run.
    async fn load(&self, memory: &MemoryPlan) -> anyhow::Result<DeviceModel> {
        let model = open::load(&self.gpu, self.checkpoint, memory).await?;
        open::warm_up(&model).await?;
        Ok(model)
    }

    /// No more than the search had, or the least that works where the written weights need more than those that were read:
    /// a search must not end at a check that does not fit.
    fn memory_of_check(&self, written: &Checkpoint) -> anyhow::Result<MemoryPlan> {
        let budget = self.args.device.memory_budget;
        let options = Some(&self.options);
        let searched = MemoryPlan::new(&self.gpu, self.checkpoint, self.windows, options, budget)?.total();
        let plan = |budget| MemoryPlan::new(&self.gpu, written, self.windows, None, Some(budget));
        Ok(match plan(searched) {
            Err(MemoryError::TooSmall { needed, .. }) => {
                let (more, less) = (screen::bytes(needed), screen::bytes(searched));
                say!("checking the written model takes {more} of device memory, more than the search's {less}");
                plan(needed)?
            }
            plan => plan?,
        })
    }

    /// Writes order.json and the model, reads the model back and scores the same windows: its perplexity.
    async fn write(&self, out: &OutFolder, plan: &Plan) -> anyhow::Result<f64> {
        out.remove_unfinished_model()?;
        write_order(&out.join("order.json"), &plan.order())?;
        let path = out.join("model");
        let folder = export::model_folder(&path)?;
        let removed = plan.removed_after(plan.steps.len())?;
        export::write(&path, folder, self.checkpoint, &removed, self.args.format, self.args.dtype).await?;
        let written = Checkpoint::open(&path.to_string_lossy()).await.context("the written model does not open")?;
        let memory = self.memory_of_check(&written)?;
        let model = open::load(&self.gpu, &written, &memory).await?;
        Ok(Scorer::batched(&model, self.windows, memory.batching)?.perplexity(&Default::default()).await?.perplexity)
    }

    /// Whether the written model loses what the search found.
    fn compare(&self, perplexity: f64, out: &OutFolder, plan: &Plan) -> anyhow::Result<()> {
        let planned = plan.steps.last().map_or(plan.dense.perplexity, |step| step.perplexity);
        let difference = (perplexity - planned).abs() / planned;
        // Another type rounds the weights, so that only damage shows.
        let (allowed, why) = match self.args.dtype {
            None | Some(Dtype::F32) => (1e-6, ""),
            Some(_) => (0.02, " (its weights were converted)"),
        };
        say!(
            "check: the written model has perplexity {}, the search found {}{why}",
            screen::short(perplexity),
            screen::short(planned)
        );
        anyhow::ensure!(
            difference <= allowed,
            "the written model in {} has perplexity {perplexity}, but the search found {planned}; it is kept for inspection, \
             do not use it",
            out.join("model").display()
        );
        Ok(())
    }
}

/// An error of the device, after which a search that has been saved can go on.
fn interrupted(error: anyhow::Error, saved: bool) -> anyhow::Error {
    match gpu_error(&error) {
        Some(GpuError::Lost { .. } | GpuError::OutOfMemory { .. }) if saved => Stopped(error.to_string()).into(),
        _ => error,
    }
}

/// From here on Ctrl-C stops the search at the next block; a second one, or one after the search, ends the program at once.
fn watch_ctrl_c() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        if !SEARCHING.load(Ordering::SeqCst) {
            say!("\n{}", Stopped("stopped".into()));
            std::process::exit(4);
        }
        if STOP.swap(true, Ordering::SeqCst) {
            std::process::exit(4);
        }
        say!("\nstopping; once more to stop at once");
    })
    .context("cannot watch for Ctrl-C")
}

/// Tells people how the search goes.
struct Reporter {
    bar: ProgressBar,
    start: Instant,
    /// Candidates of the first step.
    blocks: u64,
    /// Blocks to remove.
    remove: u64,
    tokens: u64,
    approximate: bool,
    /// Time of all passes over that of as many whole ones, at most.
    share: f64,
}

impl Reporter {
    fn new(spec: &ModelSpec, options: &SearchOptions, windows: &Windows, state: &SearchState) -> Self {
        let head = (spec.vocab_size * spec.hidden_size) as f64;
        let body: u64 = spec.blocks().map(|block| spec.block_parameters(block)).sum();
        let share = match options.strategy {
            Strategy::Exhaustive => 1.0,
            // The parts of the pass that candidates share are run once: half of the blocks' arithmetic on average.
            Strategy::Exact | Strategy::Racing => (body as f64 / 2.0 + head) / (body as f64 + head),
        };
        let (blocks, remove) = (options.candidates(spec).count() as u64, options.remove as u64);
        let mut reporter = Self {
            bar: ProgressBar::hidden(),
            start: Instant::now(),
            blocks,
            remove,
            tokens: windows.ids.len() as u64,
            approximate: options.strategy == Strategy::Racing,
            share,
        };
        let done = reporter.candidates(state.steps.len() as u64) + state.candidates.len() as u64;
        reporter.bar = screen::search_bar(reporter.candidates(remove), done);
        reporter
    }

    /// Candidates of the first `steps` steps.
    fn candidates(&self, steps: u64) -> u64 {
        (0..steps).map(|step| self.blocks - step).sum()
    }

    fn tell(&mut self, event: &Event<'_>) {
        match event {
            Event::Dense(dense) => {
                let passes = self.candidates(self.remove);
                let seconds = self.start.elapsed().as_secs_f64() * self.share * passes as f64;
                let (perplexity, tokens) = (screen::short(dense.perplexity), screen::grouped(self.tokens));
                let (passes, time) = (screen::grouped(passes), screen::duration(seconds));
                self.bar.suspend(|| {
                    say!("dense perplexity: {perplexity}");
                    say!("cost: {passes} candidate passes over {tokens} tokens, roughly {time} at most");
                });
                self.bar.reset_eta();
            }
            Event::Wave { candidates, .. } => {
                for candidate in *candidates {
                    if let (CandidateState::Rejected, Some(reason)) = (candidate.state, &candidate.reason) {
                        self.bar.suspend(|| say!("rejected {}: {reason}", candidate.block));
                    }
                }
            }
            Event::Progress { step: 0, .. } => {}
            Event::Progress { step, done } => {
                let before = self.candidates(*step as u64 - 1);
                let here = (self.blocks + 1 - *step as u64) as f64 * done;
                self.bar.set_position(before * screen::CANDIDATE + (here * screen::CANDIDATE as f64) as u64);
            }
            Event::Step(step) => {
                self.bar.set_position(self.candidates(step.step as u64) * screen::CANDIDATE);
                let (perplexity, took) = (screen::short(step.perplexity), screen::duration(step.seconds));
                let approximate = if self.approximate { ", approximate" } else { "" };
                let complete = step.candidates.iter().filter(|c| c.state == CandidateState::Complete).count();
                let (step, removed, all) = (step.step, step.removed, step.candidates.len());
                let scored =
                    if complete < all { format!(", {complete} of {all} scored to the end") } else { String::new() };
                self.bar.suspend(|| {
                    say!("step {step}: {removed} goes, perplexity {perplexity} ({took}{scored}{approximate})")
                });
            }
        }
    }
}
