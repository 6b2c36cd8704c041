//! `blockpruner inspect`.

use blockpruner::ErrorKind;
use blockpruner::gpu::Gpu;
use blockpruner::model::{BlockId, BlockSummary, Checkpoint, DeviceModel, ModelSummary, device_needs};
use blockpruner::search::{MemoryPlan, SearchOptions};
use blockpruner::text::Windows;
use clap::Args;
use serde::Serialize;

use crate::exit::kind;
use crate::screen::{self, grouped};

/// Arguments of `inspect`.
#[derive(Args)]
pub struct InspectArgs {
    /// Hugging Face folder, .gguf file, builtin:tiny or a name on the Hugging Face hub, ORG/NAME[@REVISION]
    #[arg(long)]
    model: String,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    model: String,
    /// Of all tensors as they are stored.
    bytes: u64,
    #[serde(flatten)]
    summary: ModelSummary,
    /// None without a device.
    memory: Option<Memory>,
}

/// Bytes on the default device, for pruning by one window of the default length.
#[derive(Serialize)]
struct Memory {
    device: String,
    window: usize,
    weights_bytes: u64,
    weights_bytes_streamed: u64,
    states_bytes_per_window: u64,
    scratch_bytes: u64,
    /// With everything that pruning by one window keeps on the device.
    total_bytes: u64,
}

/// Shows what is in a model.
pub async fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let checkpoint = crate::open::outline(&args.model).await?;
    let memory = match memory(&checkpoint).await {
        Ok(memory) => Some(memory),
        Err(error) if matches!(kind(&error), Some(ErrorKind::NoDevice | ErrorKind::UnusableDevice)) => {
            screen::warn(format!("no memory plan: {error:#}"));
            None
        }
        Err(error) => return Err(error),
    };
    let (summary, bytes) = (checkpoint.summary(), checkpoint.weights.stored_bytes());
    let report = Report { model: args.model.clone(), bytes, summary, memory };
    if args.json { screen::print_json(&report) } else { screen::print_text(&text(&report)) }
}

async fn memory(checkpoint: &Checkpoint) -> anyhow::Result<Memory> {
    let spec = &checkpoint.spec;
    // Nothing is computed, so nothing is tested.
    let mut needs = device_needs(checkpoint);
    needs.needs.formats.clear();
    let gpu = Gpu::open(&needs).await?;
    let window = spec.default_window();
    let weights = DeviceModel::weight_bytes(&gpu, checkpoint)?;
    let windows = Windows::from_ids(vec![0; window], window, None)?;
    let search = SearchOptions::remove(1);
    let plan = MemoryPlan::new(&gpu, checkpoint, &windows, Some(&search), None)?;
    Ok(Memory {
        device: gpu.name().into(),
        window,
        weights_bytes: weights.resident(),
        weights_bytes_streamed: weights.streamed(),
        states_bytes_per_window: (window * spec.hidden_size * 4) as u64,
        scratch_bytes: plan.scratch,
        total_bytes: plan.total(),
    })
}

fn text(report: &Report) -> String {
    let summary = &report.summary;
    let ModelSummary { family, layers, hidden_size, intermediate_size, heads, kv_heads, head_dim, .. } = summary;
    let types = summary.dtypes.iter().map(|(dtype, count)| format!("{count} x {dtype}")).collect::<Vec<_>>().join(", ");
    let tied = if summary.tied_embeddings { ", tied to the head" } else { "" };
    let mut text = format!(
        "{}\n  architecture   {family}, {layers} layers, hidden size {hidden_size}, feed-forward {intermediate_size}\n  \
         attention      {heads} heads, {kv_heads} key-value heads, head size {head_dim}\n  \
         vocabulary     {} entries{tied}\n  context        {} positions\n  KV cache       {} a token as f16, {} \
         for that many\n  parameters     {}\n  tensors        {types}, {}\n",
        report.model,
        grouped(summary.vocab_size as u64),
        grouped(summary.max_positions as u64),
        screen::bytes(summary.kv_cache.bytes_per_token),
        screen::bytes(summary.kv_cache.bytes),
        grouped(summary.parameters),
        screen::bytes(report.bytes),
    );
    if let Some(problem) = &summary.tokenizer_problem {
        text += &format!("  tokenizer      none: {problem}\n");
    }
    if !summary.absent.is_empty() {
        let names: Vec<_> = summary.absent.iter().map(BlockId::to_string).collect();
        text += &format!("  already gone   {}\n", names.join(", "));
    }
    text += &format!("blocks ({})\n", summary.blocks.len());
    for run in summary.blocks.chunk_by(|a, b| a.block.kind == b.block.kind && a.parameters == b.parameters) {
        let names: Vec<_> = run.iter().map(|block| block.block.layer.to_string()).collect();
        if let Some(BlockSummary { block, parameters }) = run.first() {
            let (kind, words) = (block.kind.as_str(), screen::kind_in_words(block.kind));
            text += &format!("  {kind} ({words}), {} parameters each: {}\n", grouped(*parameters), names.join(" "));
        }
    }
    let Some(memory) = &report.memory else { return text };
    text + &format!(
        "memory on {}, pruning by one window of {}\n  weights        {} ({} if streamed)\n  hidden states  {} a window and \
         candidate\n  scratch        {}\n  in all         {}\n",
        memory.device,
        memory.window,
        screen::bytes(memory.weights_bytes),
        screen::bytes(memory.weights_bytes_streamed),
        screen::bytes(memory.states_bytes_per_window),
        screen::bytes(memory.scratch_bytes),
        screen::bytes(memory.total_bytes),
    )
}
