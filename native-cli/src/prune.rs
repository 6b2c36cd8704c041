//! `blockpruner prune`: the main job, from the output folder's check to the check of the written model.

use std::path::{Path, PathBuf};

use anyhow::Context;
use blockpruner::Error;
use blockpruner::bench::SearchCount;
use blockpruner::export::{ExportError, HfSource, ModelOptions, ResumeError, folder_format, with_sizes};
use blockpruner::model::{BlockSet, PlainChange};
use blockpruner::search::{SearchOptions, Target, Units};
use blockpruner::session::{NearlyPlain, OutFolder, Search, WriteOptions, Written};
use clap::Args;

use crate::args::{DeviceArgs, Dtype, Format, Quantize, SearchArgs, TextArgs};
use crate::event::Event;
use crate::exit::{Stopped, as_input, bad_input};
use crate::held_out::{self, EvalArgs};
use crate::progress::{Preparing, WritingBars};
use crate::screen::{self, message, tell};
use crate::size::{smallest_blocks, tell_sizes};
use crate::target::TargetArgs;
use crate::{command_line, open, search};

/// Arguments of `prune`.
#[derive(Args)]
pub struct PruneArgs {
    /// Hugging Face folder, .gguf file, builtin:tiny or a name on the Hugging Face hub, ORG/NAME[@REVISION]
    #[arg(long)]
    pub model: String,
    /// Text that the loss is measured on, like those that the model is for: text, JSON or JSONL file, or builtin:sample
    /// [default for builtin:tiny: builtin:sample]
    #[arg(long, value_name = "TEXT")]
    pub calibration: Option<String>,
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub search: SearchArgs,
    /// How the smaller model is written
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Convert the written weights [default: keep their type; quantised ones become bf16, but not in a GGUF file]
    #[arg(long, value_enum)]
    pub dtype: Option<Dtype>,
    /// Quantise the written weights, for --format gguf
    #[arg(long, value_enum, conflicts_with = "dtype")]
    pub quantize: Option<Quantize>,
    /// Folder for plan.json, report.html, order.json and the model; must be new or empty
    #[arg(long)]
    pub out: PathBuf,
    /// Go on with the search in --out, interrupted or finished, to the same target or another
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

/// Prunes and prints the outcome.
pub async fn run(args: &PruneArgs) -> anyhow::Result<()> {
    let calibration = open::calibration(&args.model, args.calibration.as_deref())?;
    let mut options = args.search.options(args.target.library())?;
    let out = match args.resume {
        true => OutFolder::resume(&args.out, options.target),
        false => OutFolder::new(&args.out),
    };
    let out = out.map_err(as_input)?;
    for input in [Some(&args.model), args.calibration.as_ref(), args.eval.eval_text.as_ref()].into_iter().flatten() {
        out.check_apart(Path::new(input)).map_err(as_input)?;
    }
    let checkpoint = open::checkpoint(&args.model).await?;
    let how = WriteOptions::new(args.format.library())
        .dtype(args.dtype.map(Dtype::library))
        .quantize(args.quantize.map(Quantize::library));
    let model = ModelOptions::new(BlockSet::new(), how.format).dtype(how.dtype).quantize(how.quantize);
    let units = options.units_of(&checkpoint.spec);
    options = with_sizes(options, &checkpoint, &model).await?;
    options.check(&checkpoint.spec)?;
    let windows = open::windows(&checkpoint, "calibration", calibration, &args.text)?;
    if let Some(warning) = windows.too_few() {
        screen::warn(warning);
    }
    let held_out = args.eval.open(&args.text, &checkpoint, &windows)?;
    tell(&Event::Plan {
        target: options.target,
        remove: options.target.steps(),
        units,
        candidates: options.candidates(&checkpoint.spec, &BlockSet::new()).len(),
        strategy: options.strategy.name(),
        objective: options.measured(),
        approximate: options.strategy.is_approximate(),
        tokens: windows.ids.len(),
    });
    let source = HfSource::from(&checkpoint);
    if args.format == Format::Plain {
        check_plain(&source, &options)?;
    }
    // Of the same size as a plain one.
    let size = match args.format {
        Format::Auto | Format::Plain => Some(folder_format(&checkpoint).into()),
        _ => how.format,
    };
    let largest =
        ModelOptions::new(smallest_blocks(&checkpoint, &options), size).dtype(how.dtype).quantize(how.quantize);
    let most = if let Target::Bytes(most) = options.target { most } else { u64::MAX };
    tell_sizes(&checkpoint, &largest, Some(most)).await?;
    let session = open::session(&args.device, &checkpoint).await?;
    if let Some(text) = &held_out {
        // That it fits shows before the search.
        session.memory(text, None)?;
    }
    let saved = out.saved().map_err(as_input)?;
    let search = session.search(windows.clone(), options, saved.as_deref()).await;
    let search = search.map_err(|error| match error {
        Error::Resume(error) => {
            let advice = match error {
                ResumeError::Damaged { .. } if out.plan().exists() && out.state().exists() => {
                    "delete state/ there to go on from plan.json, or"
                }
                _ => "to start again,",
            };
            bad_input(format!("{}: {error}; {advice} choose another --out", out.path().display()))
        }
        error => error.into(),
    });
    let mut search = search?.command(command_line::shown());
    if saved.is_some() {
        let state = search.state();
        let (steps, candidates) = (state.steps.len(), state.candidates.len());
        message(format!("resuming: {steps} steps are done, and {candidates} candidates of the next one"));
    } else if args.resume {
        message(format!("nothing is saved in {} yet, starting", args.out.display()));
    }
    search::run(&mut search, &out).await?;
    search.check_result().with_context(|| format!("no model is written; {} has the scores", out.plan().display()))?;
    let failed = |error: Error| anyhow::Error::from(Stopped::Failed(error.to_string()));
    // While the weights are on the device.
    if let Some(text) = &held_out {
        held_out::evaluate(&mut search, text).await.map_err(failed)?;
    }
    if args.format == Format::Auto && source.check_plain(&BlockSet::new()).is_ok() {
        tell_nearly_plain(&search).await.map_err(failed)?;
    }
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
    if search.is_cut() {
        message("what the search had found beyond is kept in state/: --resume with a target further on takes it up");
    }
    let bytes_read = checkpoint.weights.stored_bytes();
    let (kv_cache_read, kv_cache_written) = (checkpoint.spec.kv_cache(&BlockSet::new()), summary.kv_cache);
    let bytes_written = summary.bytes;
    tell(&Event::Written { out: &args.out, bytes_read, bytes_written, kv_cache_read, kv_cache_written });
    if args.json {
        return screen::print_json(&plan);
    }
    let mut text = screen::steps_table(plan.dense.perplexity, plan.model.parameters, &plan.steps);
    text += &plan.held_out.as_ref().map(held_out::line).unwrap_or_default();
    let count = SearchCount::new(&checkpoint.spec, &windows, &plan.steps);
    if screen::is_verbose() {
        text += &screen::work_lines(&count);
    }
    text += &screen::approximate_line(plan.settings.approximate.then_some(&plan.settings.strategy), &count);
    text += &screen::size_line(bytes_read, summary.bytes);
    text += &screen::cache_line(&kv_cache_read, &kv_cache_written);
    text += &format!("wrote {}: plan.json, report.html, order.json, model/ ({})\n", args.out.display(), summary.format);
    screen::print_text(&text)
}

/// Whether a search for plain models will find one.
fn check_plain(source: &HfSource<'_>, options: &SearchOptions) -> anyhow::Result<()> {
    if options.units_of(source.spec) == Units::Blocks {
        return Err(bad_input(
            "--format plain needs --units pairs or layers: single blocks seldom leave an ordinary model; with --format auto it is \
             plain where it can be",
        ));
    }
    Ok(source.check_plain(&BlockSet::new())?)
}

/// Tells of ordinary models that are near to what was found.
async fn tell_nearly_plain(search: &Search) -> Result<(), Error> {
    let mut preparing = Preparing::new(search.session());
    let found = search.nearly_plain(&mut |preparation| preparing.tell(preparation)).await?;
    drop(preparing);
    for near in &found {
        let NearlyPlain { change, removed, layers, perplexity, .. } = near;
        let PlainChange { remove, restore } = change;
        tell(&Event::NearlyPlain { remove, restore, removed, layers: *layers, perplexity: *perplexity });
    }
    Ok(())
}
