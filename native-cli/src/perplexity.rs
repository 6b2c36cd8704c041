//! `blockpruner perplexity`.

use clap::Args;

use crate::args::{DeviceArgs, RemovedArgs, TextArgs};
use crate::progress::Preparing;
use crate::{open, screen};

/// Arguments of `perplexity`.
#[derive(Args)]
pub struct PerplexityArgs {
    /// Hugging Face folder, .gguf file, builtin:tiny or a name on the Hugging Face hub, ORG/NAME[@REVISION]
    #[arg(long)]
    model: String,
    /// Text, JSON or JSONL file, or builtin:sample
    #[arg(long)]
    text: String,
    #[command(flatten)]
    removed: RemovedArgs,
    #[command(flatten)]
    windows: TextArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
}

/// Measures and prints.
pub async fn run(args: &PerplexityArgs) -> anyhow::Result<()> {
    let checkpoint = open::checkpoint(&args.model).await?;
    let removed = args.removed.blocks(&checkpoint.spec)?;
    let windows = open::windows(&checkpoint, "text", &args.text, &args.windows)?;
    let session = open::session(&args.device, &checkpoint).await?;
    let mut preparing = Preparing::new(&session);
    let score = session.perplexity(&windows, &removed, &mut |preparation| preparing.tell(preparation)).await?;
    if args.json {
        return screen::print_json(&serde_json::json!({
            "perplexity": score.perplexity,
            "mean_nll": score.mean_nll,
            "tokens": windows.ids.len(),
            "windows": windows.count,
            "window": windows.window,
            "device": session.gpu().name(),
            "removed": removed,
        }));
    }
    let without = if removed.is_empty() { String::new() } else { format!(" without {removed}") };
    let (perplexity, nll) = (screen::short(score.perplexity), score.mean_nll);
    screen::print_text(&format!(
        "perplexity {perplexity}{without} (mean NLL {nll:.6} over {} windows of {} tokens)\n",
        windows.count, windows.window
    ))
}
