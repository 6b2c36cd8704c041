//! `blockpruner export`.

use std::path::PathBuf;

use anyhow::Context;
use blockpruner::Error;
use blockpruner::export::{Canceller, DiskFolder, ExportError, ModelOptions};
use blockpruner::model::BlockSet;
use blockpruner::session::write_model;
use clap::Args;

use crate::args::{Dtype, Format, Quantize, Removed, RemovedArgs};
use crate::event::Event;
use crate::exit::{as_input, bad_input};
use crate::progress::WritingBars;
use crate::screen::tell;
use crate::size::tell_sizes;
use crate::{command_line, open, screen};

/// Arguments of `export`.
#[derive(Args)]
pub struct ExportArgs {
    /// The model that the plan was made for: Hugging Face folder, .gguf file, builtin:tiny or a name on the Hugging Face hub,
    /// ORG/NAME[@REVISION]
    #[arg(long)]
    model: String,
    #[command(flatten)]
    removed: RemovedArgs,
    /// How the removed blocks are written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Convert the written weights [default: keep their type; quantised ones become bf16, but not in a GGUF file]
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    /// Quantise the written weights, for --format gguf
    #[arg(long, value_enum, conflicts_with = "dtype")]
    quantize: Option<Quantize>,
    /// Folder to write; must be new or empty
    #[arg(long)]
    out: PathBuf,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
}

/// Writes the model of one step.
pub async fn run(args: &ExportArgs) -> anyhow::Result<()> {
    if args.removed.is_empty() {
        return Err(bad_input(
            "which blocks? Give a --plan (and its --step or --ratio), --without, or --step 0 for the unpruned model",
        ));
    }
    let folder = DiskFolder::create(&args.out).map_err(as_input)?;
    leave_nothing_when_stopped(folder.canceller())?;
    let checkpoint = open::checkpoint(&args.model).await?;
    let Removed { blocks: removed, step, provenance, .. } = args.removed.found(&checkpoint.spec)?;
    let options = ModelOptions::new(removed.clone(), args.format.library()).dtype(args.dtype.map(Dtype::library));
    let options =
        options.quantize(args.quantize.map(Quantize::library)).provenance(provenance.command(command_line::shown()));
    tell_sizes(&checkpoint, &options, None).await?;
    let mut bars = WritingBars::new();
    let written = write_model(&checkpoint, &options, folder, &mut |writing| bars.tell(writing)).await;
    drop(bars);
    if let Err(Error::Export(ExportError::Cancelled { .. })) = written {
        // What was asked to stop says so and ends the program.
        loop {
            std::thread::park();
        }
    }
    let (summary, _) = written?;
    screen::notes(&summary);
    let bytes_read = checkpoint.weights.stored_bytes();
    let (kv_cache_read, kv_cache_written) = (checkpoint.spec.kv_cache(&BlockSet::new()), summary.kv_cache);
    let bytes_written = summary.bytes;
    tell(&Event::Written { out: &args.out, bytes_read, bytes_written, kv_cache_read, kv_cache_written });
    if args.json {
        return screen::print_json(&serde_json::json!({
            "out": args.out,
            "format": summary.format.to_string(),
            "step": step,
            "removed": removed,
            "files": summary.files,
            "tensors": summary.tensors,
            "bytes": summary.bytes,
            "bytes_read": bytes_read,
            "kv_cache_read": kv_cache_read,
            "kv_cache": kv_cache_written,
        }));
    }
    let (out, size) = (args.out.display(), screen::bytes(summary.bytes));
    let text = format!("wrote {out}: {} tensors, {size}, without {} blocks\n", summary.tensors, removed.len());
    let sizes = screen::size_line(bytes_read, summary.bytes) + &screen::cache_line(&kv_cache_read, &kv_cache_written);
    screen::print_text(&(text + &sizes))
}

/// On Ctrl-C removes what is not the whole model yet.
fn leave_nothing_when_stopped(canceller: Canceller) -> anyhow::Result<()> {
    ctrlc::set_handler(move || {
        let text = match canceller.cancel() {
            true => "stopped; nothing was written",
            false => "stopped; the model is written, but was not compared with what it should be",
        };
        screen::end_line();
        tell(&Event::Stopped { text: text.into() });
        std::process::exit(1);
    })
    .context("cannot watch for Ctrl-C")
}
