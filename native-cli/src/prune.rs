//! `blockpruner prune`: the main job, from the output folder's check to the check of the written model.

use std::path::PathBuf;

use blockpruner::bench::SearchCount;
use blockpruner::export::ExportError;
use blockpruner::search;
use blockpruner::session::{Event, OutFolder, Preparation, Search, WriteOptions, Written};
use blockpruner::{Error, ErrorKind};
use clap::Args;

use crate::args::{DeviceArgs, Dtype, Format, SearchArgs, TextArgs};
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
    #[command(flatten)]
    pub search: SearchArgs,
    /// How the smaller model is written
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Convert the written weights [default: keep their type; quantised ones become f32]
    #[arg(long, value_enum)]
    pub dtype: Option<Dtype>,
    /// Folder for plan.json, order.json and the model; must be new or empty
    #[arg(long)]
    pub out: PathBuf,
    /// Go on with the search in --out, interrupted or finished, to the same --remove or another
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
    let options = args.search.options(args.remove);
    let out = match args.resume {
        true => OutFolder::resume(&args.out, options.target),
        false => OutFolder::new(&args.out),
    };
    let out = out.map_err(as_input)?;
    let checkpoint = open::checkpoint(&args.model).await?;
    options.check(&checkpoint.spec)?;
    let windows = open::windows(&checkpoint, &args.calibration, &args.text)?;
    let session = open::session(&args.device, &checkpoint).await?;
    let saved = out.saved().map_err(as_input)?;
    let search = session.search(windows.clone(), options, saved.as_deref()).await;
    let mut search = search.map_err(|error| match error {
        Error::Resume(error) => {
            bad_input(format!("{}: {error}; to start again, choose another --out", out.path().display()))
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
    text += &screen::work_lines(plan.settings.approximate, &SearchCount::new(&checkpoint.spec, &windows, &plan.steps));
    text += &format!("wrote {}: plan.json, order.json, model/\n", args.out.display());
    screen::print_text(&text)
}

/// Searches to the end, saving after every wave of candidates.
async fn run_search(search: &mut Search, out: &OutFolder) -> anyhow::Result<()> {
    if search.is_finished() {
        return ctrl_c::watch();
    }
    let mut preparing = Preparing::new(search.session());
    let mut searching = None;
    loop {
        let event = match search.next().await {
            Ok(Some(event)) => event,
            Ok(None) => break,
            Err(error) => {
                if out.has_saved() {
                    // Its plan says that it has stopped. Should that fail, too, what was saved before stays.
                    let _ = out.save(search);
                }
                return Err(interrupted(error, out));
            }
        };
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
            out.save(search).map_err(|error| {
                let error = format!("the search stopped because its state could not be saved: {error}");
                if out.has_saved() { Stopped(error).into() } else { anyhow::Error::msg(error) }
            })?;
        }
        if let Some(searching) = &mut searching {
            searching.tell(search, &found);
        }
        if ctrl_c::wants_stop() {
            search.stop();
            out.save(search).map_err(|error| Stopped(error.to_string()))?;
            return Err(Stopped("stopped".into()).into());
        }
    }
    ctrl_c::while_searching(false);
    Ok(())
}

/// An error of the device, after which a search that has been saved can go on.
fn interrupted(error: Error, out: &OutFolder) -> anyhow::Error {
    match error.kind() {
        ErrorKind::DeviceLost | ErrorKind::OutOfMemory if out.has_saved() => Stopped(error.to_string()).into(),
        _ => error.into(),
    }
}
