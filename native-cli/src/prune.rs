//! `blockpruner prune`: the main job, from the output folder's check to the check of the written model.

use std::path::PathBuf;
use std::rc::Rc;

use blockpruner::bench::SearchCount;
use blockpruner::export::{ExportError, HfOptions, Plan};
use blockpruner::model::{BlockSet, Checkpoint};
use blockpruner::search::{self, BlockTypes, SearchOptions, Strategy};
use blockpruner::session::{self, OutFolder, Preparation, Search, WriteOptions, Written};
use blockpruner::text::Windows;
use blockpruner::{Error, ErrorKind};
use clap::Args;
use serde::Serialize;

use crate::args::{DeviceArgs, Dtype, Format, TextArgs, block_count, whole_number};
use crate::event::{Evaluation, Event};
use crate::exit::{Stopped, as_input, bad_input};
use crate::progress::{Preparing, Searching, WritingBars};
use crate::screen::{self, message, tell};
use crate::size::{smallest_blocks, tell_sizes};
use crate::{ctrl_c, open};

/// Arguments of `prune`.
#[derive(Args)]
pub struct PruneArgs {
    /// Hugging Face folder, .gguf file or builtin:tiny
    #[arg(long)]
    pub model: String,
    /// Text that the loss is measured on, like those that the model is for: text, JSON or JSONL file, or builtin:sample
    /// [default for builtin:tiny: builtin:sample]
    #[arg(long, value_name = "TEXT")]
    pub calibration: Option<String>,
    /// Blocks to remove; about a third of all is the usual maximum
    #[arg(long, value_name = "K", value_parser = block_count)]
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
    /// Convert the written weights [default: keep their type; quantised ones become bf16]
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
    pub eval: EvalArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Print the plan as one JSON object on stdout
    #[arg(long)]
    pub json: bool,
}

/// A text to show what the search did to texts that it has not seen.
#[derive(Args, Default)]
#[command(next_help_heading = "Text")]
pub struct EvalArgs {
    /// Also measure the perplexity of this text, before and after; read as --calibration, with the same --field and --window
    #[arg(long, value_name = "TEXT")]
    pub eval_text: Option<String>,
    /// Score its first N windows only
    #[arg(long, value_name = "N", requires = "eval_text", value_parser = whole_number::<usize>)]
    pub eval_max_windows: Option<usize>,
}

/// Prunes and prints the outcome.
pub async fn run(args: &PruneArgs) -> anyhow::Result<()> {
    let calibration = calibration(args)?;
    let out = if args.resume { OutFolder::resume(&args.out) } else { OutFolder::new(&args.out) }.map_err(as_input)?;
    let checkpoint = open::checkpoint(&args.model).await?;
    let strategy = match (args.exhaustive, args.racing) {
        (true, _) => Strategy::Exhaustive,
        (_, true) => Strategy::Racing,
        _ => Strategy::Exact,
    };
    let options = SearchOptions { remove: args.remove as usize, block_types: args.block_types, strategy };
    options.check(&checkpoint.spec)?;
    let windows = open::windows(&checkpoint, "calibration", calibration, &args.text)?;
    if let Some(warning) = windows.too_few() {
        screen::warn(warning);
    }
    let held_out = held_out(args, &checkpoint, &windows)?;
    tell(&Event::Plan {
        remove: options.remove,
        candidates: options.candidates(&checkpoint.spec).count(),
        strategy,
        tokens: windows.ids.len(),
    });
    let how = WriteOptions { format: args.format.library(), dtype: args.dtype.map(Dtype::library) };
    let largest = HfOptions::new(smallest_blocks(&checkpoint, &options), how.format);
    tell_sizes(&checkpoint, &HfOptions { dtype: how.dtype, ..largest }, true)?;
    let session = open::session(&args.device, &checkpoint).await?;
    if let Some(text) = &held_out {
        // That it fits shows before the search.
        session.memory(text, None)?;
    }
    let saved = out.saved().map_err(as_input)?;
    let search = session.search(windows.clone(), options, saved.as_deref()).await;
    let mut search = search.map_err(|error| match error {
        Error::Resume(error) => {
            bad_input(format!("{}: {error}; to start again, choose another --out", out.state().display()))
        }
        error => error.into(),
    })?;
    if saved.is_some() {
        let state = search.state();
        let (steps, candidates) = (state.steps.len(), state.candidates.len());
        message(format!("resuming: {steps} steps are done, and {candidates} candidates of the next one"));
    } else if args.resume {
        message(format!("nothing is saved in {} yet, starting", args.out.display()));
    }
    run_search(&mut search, &out).await?;
    let failed = |error: Error| anyhow::Error::from(Stopped::Failed(error.to_string()));
    // While the weights are on the device.
    let evaluation = match &held_out {
        Some(text) => Some(evaluate(&search, text).await.map_err(failed)?),
        None => None,
    };
    let mut bars = WritingBars::new();
    let written = search.write(&out, how, &mut |writing| bars.tell(writing)).await;
    drop(bars);
    let Written { plan, summary, planned, perplexity } = written.map_err(|error| match error {
        Error::Export(ExportError::OtherPerplexity { .. } | ExportError::Plan { .. }) => error.into(),
        // Whatever else goes wrong here, the search is saved.
        error => failed(error),
    })?;
    screen::notes(&summary);
    tell(&Event::Check { perplexity, planned, rounded: summary.rounded });
    let bytes_read = checkpoint.weights.stored_bytes();
    tell(&Event::Written { out: &args.out, bytes_read, bytes_written: summary.bytes });
    if args.json {
        return screen::print_json(&Report { plan: &plan, evaluation: evaluation.as_ref() });
    }
    let mut text = screen::steps_table(plan.dense.perplexity, plan.model.parameters, &plan.steps);
    if let Some(evaluation) = &evaluation {
        text += &format!("{}\n", evaluation.words());
    }
    let count = SearchCount::new(&checkpoint.spec, &windows, &plan.steps);
    if screen::is_verbose() {
        text += &screen::work_lines(&count);
    }
    text += &screen::approximate_line(strategy, &count);
    text += &screen::size_line(bytes_read, summary.bytes);
    text += &format!("wrote {}: plan.json, order.json, model/\n", args.out.display());
    screen::print_text(&text)
}

/// What `--json` prints: the plan, and beside its keys what else was asked for.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    /// None without --eval-text.
    #[serde(skip_serializing_if = "Option::is_none")]
    evaluation: Option<&'a Evaluation>,
}

/// The text to search by. There is none that does for every model: the blocks that go are those which this text needs least.
fn calibration(args: &PruneArgs) -> anyhow::Result<&str> {
    match &args.calibration {
        Some(text) => Ok(text),
        None if args.model == "builtin:tiny" => Ok("builtin:sample"),
        None => Err(bad_input(
            "--calibration is missing: give a text like those that the model is for (a text, JSON or JSONL file), for what it \
             does not need is removed. A few hundred rows of a data set do, for example those of \
             `hf download tatsu-lab/alpaca --repo-type dataset --local-dir DIR` saved as JSON Lines",
        )),
    }
}

/// The text of --eval-text.
fn held_out(args: &PruneArgs, checkpoint: &Checkpoint, searched: &Windows) -> anyhow::Result<Option<Rc<Windows>>> {
    let Some(text) = &args.eval.eval_text else { return Ok(None) };
    let TextArgs { field, window, .. } = args.text.clone();
    let how = TextArgs { field, window, max_windows: args.eval.eval_max_windows, ..TextArgs::default() };
    let windows = open::windows(checkpoint, "evaluation", text, &how)?;
    if windows.source == searched.source {
        screen::warn(
            "the evaluation text is the calibration text, which the search has seen: give another --eval-text",
        );
    }
    Ok(Some(windows))
}

/// Scores the dense and the pruned model on a text that the search has not seen.
async fn evaluate(search: &Search, text: &Windows) -> Result<Evaluation, Error> {
    let session = search.session();
    let mut preparing = Preparing::new(session, None);
    let mut prepare = |preparation| preparing.tell(preparation);
    let dense = session.perplexity(text, &BlockSet::new(), &mut prepare).await?;
    let pruned = session.perplexity(text, &search.state().removed(), &mut prepare).await?;
    let evaluation = Evaluation {
        text: text.source.clone(),
        window: text.window,
        windows: text.count,
        tokens: text.ids.len(),
        dense_perplexity: dense.perplexity,
        perplexity: pruned.perplexity,
    };
    tell(&Event::Evaluation(&evaluation));
    Ok(evaluation)
}

/// Searches to the end, saving after every wave of candidates.
async fn run_search(search: &mut Search, out: &OutFolder) -> anyhow::Result<()> {
    if search.is_finished() {
        return ctrl_c::watch();
    }
    let mut saved = search.state().dense.is_some();
    let mut preparing = Preparing::new(search.session(), Some(*search.options()));
    let mut searching = None;
    while let Some(event) = search.next().await.map_err(|error| interrupted(error, saved))? {
        let found = match event {
            session::Event::Found(found) => found,
            session::Event::Prepare(preparation) => {
                preparing.tell(preparation);
                if preparation == Preparation::Ready {
                    ctrl_c::while_searching(true);
                    ctrl_c::watch()?;
                    searching = Some(Searching::new(search));
                }
                continue;
            }
            _ => continue,
        };
        if !matches!(found, search::Event::Progress { .. }) {
            out.save(&search.save()).map_err(|error| {
                let error = format!("the search stopped because its state could not be saved: {error}");
                if saved { Stopped::Failed(error).into() } else { anyhow::Error::msg(error) }
            })?;
            saved = true;
        }
        if let Some(searching) = &mut searching {
            searching.tell(&found);
        }
        if ctrl_c::wants_stop() {
            return Err(Stopped::Asked.into());
        }
    }
    ctrl_c::while_searching(false);
    Ok(())
}

/// An error of the device, after which a search that has been saved can go on.
fn interrupted(error: Error, saved: bool) -> anyhow::Error {
    match error.kind() {
        ErrorKind::DeviceLost | ErrorKind::OutOfMemory if saved => Stopped::Failed(error.to_string()).into(),
        _ => error.into(),
    }
}
