//! `blockpruner export`.

use std::path::PathBuf;

use anyhow::Context;
use blockpruner::export::{DiskFolder, HfOptions};
use blockpruner::model::BlockSet;
use blockpruner::session::write_model;
use clap::Args;

use crate::args::{Dtype, Format, removed_by_plan};
use crate::exit::{as_input, bad_input};
use crate::progress::WritingBars;
use crate::screen::say;
use crate::{open, screen};

/// Arguments of `export`.
#[derive(Args)]
pub struct ExportArgs {
    /// The model that the plan was made for: Hugging Face folder, .gguf file or builtin:tiny
    #[arg(long)]
    model: String,
    /// plan.json of a pruning, or an order.json; --step 0 needs none
    #[arg(long)]
    plan: Option<String>,
    /// Write the model after this step; 0 is the unpruned model
    #[arg(long, value_name = "K")]
    step: usize,
    /// How the removed blocks are written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Convert the weights [default: keep their type; quantised ones become f32]
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    /// Folder to write; must be new or empty
    #[arg(long)]
    out: PathBuf,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
}

/// Writes the model of one step.
pub async fn run(args: &ExportArgs) -> anyhow::Result<()> {
    let folder = DiskFolder::create(&args.out).map_err(as_input)?;
    let checkpoint = open::checkpoint(&args.model).await?;
    let removed = match (&args.plan, args.step) {
        (Some(plan), step) => removed_by_plan(plan, Some(step), &checkpoint.spec)?,
        (None, 0) => BlockSet::new(),
        (None, step) => {
            return Err(bad_input(format!("--step {step} of which pruning? Give its plan.json with --plan")));
        }
    };
    checkpoint.spec.check_blocks(&removed)?;
    let partial = folder.partial().to_path_buf();
    ctrlc::set_handler(move || {
        // It is gone once the model is in its place.
        match std::fs::remove_dir_all(&partial) {
            Ok(()) => say!("\nstopped; nothing was written"),
            Err(_) => say!("\nstopped; the model may be written, but was not compared with what it should be"),
        }
        std::process::exit(1);
    })
    .context("cannot watch for Ctrl-C")?;
    let mut options = HfOptions::new(removed.clone(), args.format.library());
    options.dtype = args.dtype.map(Dtype::library);
    let mut bars = WritingBars::new();
    let written = write_model(&checkpoint, &options, folder, &mut |writing| bars.tell(writing)).await;
    drop(bars);
    let (summary, _) = written?;
    screen::notes(&summary);
    if args.json {
        return screen::print_json(&serde_json::json!({
            "out": args.out,
            "format": args.format.as_str(),
            "step": args.step,
            "removed": removed,
            "files": summary.files,
            "tensors": summary.tensors,
            "bytes": summary.bytes,
        }));
    }
    let (out, size) = (args.out.display(), screen::bytes(summary.bytes));
    screen::print_text(&format!("wrote {out}: {} tensors, {size}, without {} blocks\n", summary.tensors, removed.len()))
}
