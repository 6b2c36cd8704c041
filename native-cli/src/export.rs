//! `blockpruner export`, and the writing of a model folder that `prune` does too.

use std::path::{Path, PathBuf};

use anyhow::Context;
use blockpruner::export::{DiskFolder, ExportError, HfOptions, HfSummary, check_hf, export_hf};
use blockpruner::model::{BlockSet, Checkpoint};
use clap::Args;

use crate::args::{Dtype, Format, removed_by_plan};
use crate::exit::bad_input;
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
    let summary = write(&args.out, folder, &checkpoint, &removed, args.format, args.dtype).await?;
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

/// Writes a model folder, whole or not at all, and reads it back.
pub async fn write(
    out: &Path,
    mut folder: DiskFolder,
    checkpoint: &Checkpoint,
    removed: &BlockSet,
    format: Format,
    dtype: Option<Dtype>,
) -> anyhow::Result<HfSummary> {
    let mut options = HfOptions::new(removed.clone(), format.library());
    options.dtype = dtype.map(Dtype::library);
    let bar = screen::transfer_bar("writing the model");
    let written = export_hf(checkpoint, &options, &mut folder, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })
    .await;
    bar.finish_and_clear();
    let summary = written?;
    folder.finish()?;
    check(out, checkpoint, &options).await?;
    for tensor in &summary.left_out {
        say!("note: {tensor} is not part of the architecture and was left out");
    }
    for key in &summary.foreign_code {
        say!("note: {key} names a program that comes with the input, and was left out");
    }
    Ok(summary)
}

/// Compares what was written with what should have been.
async fn check(out: &Path, checkpoint: &Checkpoint, options: &HfOptions) -> anyhow::Result<()> {
    let written = Checkpoint::open(&out.to_string_lossy()).await.context("the written model does not open")?;
    let bar = screen::transfer_bar("checking the model");
    let checked = check_hf(checkpoint, options, &written, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })
    .await;
    bar.finish_and_clear();
    Ok(checked?)
}

/// Before any work, an output folder that cannot be written is wrong usage, not a failure.
pub fn as_input(error: ExportError) -> anyhow::Error {
    bad_input(error.to_string())
}

/// Opens the folder for `prune`'s model.
pub fn model_folder(path: &Path) -> anyhow::Result<DiskFolder> {
    DiskFolder::create(path).with_context(|| format!("cannot write the model to {}", path.display()))
}
