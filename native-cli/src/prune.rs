//! `blockpruner prune`: the main job, from the output folder's check to the check of the written model.

use std::path::PathBuf;

use blockpruner::bench::SearchCount;
use blockpruner::export::ExportError;
use blockpruner::search::{self, BlockTypes, SearchOptions, Strategy};
use blockpruner::session::{Event, OutFolder, Preparation, Search, WriteOptions, Written};
use blockpruner::{Error, ErrorKind};
use clap::Args;

use crate::args::{DeviceArgs, Dtype, Format, TextArgs};
use crate::exit::{Stopped, as_input, bad_input};
use crate::progress::{Preparing, Searching, WritingBars};
use crate::screen::{self, say};
use crate::{ctrl_c, open};

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

/// Prunes and prints the outcome.
pub async fn run(args: &PruneArgs) -> anyhow::Result<()> {
    let out = if args.resume { OutFolder::resume(&args.out) } else { OutFolder::new(&args.out) }.map_err(as_input)?;
    let checkpoint = open::checkpoint(&args.model).await?;
    let strategy = match (args.exhaustive, args.racing) {
        (true, _) => Strategy::Exhaustive,
        (_, true) => Strategy::Racing,
        _ => Strategy::Exact,
    };
    let options = SearchOptions { remove: args.remove as usize, block_types: args.block_types, strategy };
    options.check(&checkpoint.spec)?;
    let windows = open::windows(&checkpoint, &args.calibration, &args.text)?;
    let session = open::session(&args.device, &checkpoint).await?;
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
        say!("resuming: {steps} steps are done, and {candidates} candidates of the next one");
    } else if args.resume {
        say!("nothing is saved in {} yet, starting", args.out.display());
    }
    run_search(&mut search, &out).await?;
    let how = WriteOptions { format: args.format.library(), dtype: args.dtype.map(Dtype::library) };
    let mut bars = WritingBars::new();
    let written = search.write(&out, how, &mut |writing| bars.tell(writing)).await;
    drop(bars);
    let Written { plan, summary, planned, perplexity } = written.map_err(|error| match error {
        Error::Export(ExportError::OtherPerplexity { .. } | ExportError::Plan { .. }) => error.into(),
        // Whatever else goes wrong here, the search is saved.
        error => anyhow::Error::from(Stopped(error.to_string())),
    })?;
    screen::notes(&summary);
    let (found, converted) =
        (screen::short(perplexity), if how.dtype.is_some() { " (its weights were converted)" } else { "" });
    say!("check: the written model has perplexity {found}, the search found {}{converted}", screen::short(planned));
    if args.json {
        return screen::print_json(&plan);
    }
    let mut text = screen::steps_table(plan.dense.perplexity, plan.model.parameters, &plan.steps);
    text += &screen::work_lines(strategy, &SearchCount::new(&checkpoint.spec, &windows, &plan.steps));
    text += &format!("wrote {}: plan.json, order.json, model/\n", args.out.display());
    screen::print_text(&text)
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
            Event::Found(found) => found,
            Event::Prepare(preparation) => {
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
                if saved { Stopped(error).into() } else { anyhow::Error::msg(error) }
            })?;
            saved = true;
        }
        if let Some(searching) = &mut searching {
            searching.tell(&found);
        }
        if ctrl_c::wants_stop() {
            return Err(Stopped("stopped".into()).into());
        }
    }
    ctrl_c::while_searching(false);
    Ok(())
}

/// An error of the device, after which a search that has been saved can go on.
fn interrupted(error: Error, saved: bool) -> anyhow::Error {
    match error.kind() {
        ErrorKind::DeviceLost | ErrorKind::OutOfMemory if saved => Stopped(error.to_string()).into(),
        _ => error.into(),
    }
}
