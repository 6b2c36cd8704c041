//! `blockpruner inspect`.

use std::collections::BTreeMap;

use blockpruner::gpu::{Gpu, GpuError};
use blockpruner::model::{BlockId, Checkpoint, DeviceModel, device_needs};
use blockpruner::search::MemoryPlan;
use blockpruner::text::Windows;
use clap::Args;
use serde::Serialize;

use crate::args::default_window;
use crate::exit::gpu_error;
use crate::screen::{self, grouped};

/// Arguments of `inspect`.
#[derive(Args)]
pub struct InspectArgs {
    /// Hugging Face folder, .gguf file or builtin:tiny
    #[arg(long)]
    model: String,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    model: String,
    family: String,
    layers: usize,
    hidden_size: usize,
    intermediate_size: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    vocab_size: usize,
    max_positions: usize,
    tied_embeddings: bool,
    parameters: u64,
    dtypes: BTreeMap<String, usize>,
    tokenizer_problem: Option<String>,
    absent: Vec<BlockId>,
    blocks: Vec<Block>,
    /// None without a device.
    memory: Option<Memory>,
}

#[derive(Serialize)]
struct Block {
    block: BlockId,
    parameters: u64,
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
    let checkpoint = crate::open::checkpoint(&args.model).await?;
    let memory = match memory(&checkpoint).await {
        Ok(memory) => Some(memory),
        Err(error) if matches!(gpu_error(&error), Some(GpuError::NoAdapter { .. })) => {
            eprintln!("no memory plan: {error:#}");
            None
        }
        Err(error) => return Err(error),
    };
    let report = report(&args.model, &checkpoint, memory);
    if args.json { screen::print_json(&report) } else { screen::print_text(&text(&report)) }
}

fn report(model: &str, checkpoint: &Checkpoint, memory: Option<Memory>) -> Report {
    let spec = &checkpoint.spec;
    let mut dtypes = BTreeMap::new();
    for tensor in checkpoint.weights.iter() {
        *dtypes.entry(tensor.dtype.to_string()).or_default() += 1;
    }
    let block = |block| Block { block, parameters: spec.block_parameters(block) };
    Report {
        model: model.into(),
        family: spec.family.to_string(),
        layers: spec.layers,
        hidden_size: spec.hidden_size,
        intermediate_size: spec.intermediate_size,
        heads: spec.heads,
        kv_heads: spec.kv_heads,
        head_dim: spec.head_dim,
        vocab_size: spec.vocab_size,
        max_positions: spec.max_positions,
        tied_embeddings: spec.tied_embeddings,
        parameters: spec.parameters(),
        dtypes,
        tokenizer_problem: checkpoint.tokenizer_problem.clone(),
        absent: spec.absent.iter().collect(),
        blocks: spec.blocks().map(block).collect(),
        memory,
    }
}

async fn memory(checkpoint: &Checkpoint) -> anyhow::Result<Memory> {
    let spec = &checkpoint.spec;
    let gpu = Gpu::open(&device_needs(spec)).await?;
    let window = default_window(spec);
    let weights = DeviceModel::weight_bytes(&gpu, checkpoint)?;
    let windows = Windows::from_ids(vec![0; window], window, None)?;
    let plan = MemoryPlan::new(&gpu, checkpoint, &windows, (spec.blocks().count(), 1), None)?;
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
    let Report { family, layers, hidden_size, intermediate_size, heads, kv_heads, head_dim, .. } = report;
    let types = report.dtypes.iter().map(|(dtype, count)| format!("{count} x {dtype}")).collect::<Vec<_>>().join(", ");
    let tied = if report.tied_embeddings { ", tied to the head" } else { "" };
    let mut text = format!(
        "{}\n  architecture   {family}, {layers} layers, hidden size {hidden_size}, feed-forward {intermediate_size}\n  \
         attention      {heads} heads, {kv_heads} key-value heads, head size {head_dim}\n  \
         vocabulary     {} entries{tied}\n  context        {} positions\n  parameters     {}\n  tensors        {types}\n",
        report.model,
        grouped(report.vocab_size as u64),
        grouped(report.max_positions as u64),
        grouped(report.parameters),
    );
    if let Some(problem) = &report.tokenizer_problem {
        text += &format!("  tokenizer      none: {problem}\n");
    }
    if !report.absent.is_empty() {
        let names: Vec<_> = report.absent.iter().map(BlockId::to_string).collect();
        text += &format!("  already gone   {}\n", names.join(", "));
    }
    text += &format!("blocks ({})\n", report.blocks.len());
    for run in report.blocks.chunk_by(|a, b| a.block.kind == b.block.kind && a.parameters == b.parameters) {
        let names: Vec<_> = run.iter().map(|block| block.block.layer.to_string()).collect();
        if let Some(Block { block, parameters }) = run.first() {
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
