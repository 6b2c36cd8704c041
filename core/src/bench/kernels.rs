//! Every kernel of a dense forward pass at a model's own shapes, as the pass itself records it.

use serde::Serialize;
use web_time::Instant;

use super::{DeviceRates, Timing};
use crate::gpu::{Matrix, Recording};
use crate::model::forward::{Branch, Rows};
use crate::model::{BlockKind, BlockSet};
use crate::score::{Score, ScoreError, Scorer};

/// Dense passes that are timed.
const PASSES: usize = 3;

/// How fast a kernel is, by what it mostly does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rate {
    /// 1e9 multiplications and additions a second.
    GflopPerSecond(f64),
    /// 1e9 bytes of activations read and written a second.
    GbPerSecond(f64),
}

/// One kernel of the forward pass over one batch of windows.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct KernelTime {
    /// What it computes, as the model's parts are called.
    pub kernel: &'static str,
    /// Times that a dense pass runs it.
    pub times: usize,
    /// Dispatches of one time.
    pub dispatches: usize,
    /// Seconds of one time.
    pub seconds: Timing,
    /// At its fastest.
    pub rate: Rate,
    /// Its rate over the best of the device: that of a large product, or of a copy. Activations that stay in caches move
    /// faster than a copy.
    pub of_best: f64,
}

/// Dense passes over the whole text, the head and reading the losses included.
#[derive(Clone, Copy, Debug, Serialize)]
#[non_exhaustive]
pub struct DensePass {
    /// Tokens of the text.
    pub tokens: usize,
    /// Seconds of a pass.
    pub seconds: Timing,
    /// Tokens over the fastest pass's seconds.
    pub tokens_per_second: f64,
    /// Perplexity of the text.
    pub perplexity: f64,
}

impl DensePass {
    /// Runs once to warm up, then times passes.
    ///
    /// # Errors
    /// Those of [`Scorer::perplexity`].
    pub async fn measure(scorer: &Scorer<'_>) -> Result<Self, ScoreError> {
        let dense = BlockSet::new();
        let Score { perplexity, .. } = scorer.perplexity(&dense).await?;
        let mut seconds = Vec::new();
        for _ in 0..PASSES {
            let start = Instant::now();
            scorer.perplexity(&dense).await?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        let (tokens, seconds) = (scorer.tokens(), Timing::new(seconds));
        Ok(Self { tokens, seconds, tokens_per_second: tokens as f64 / seconds.minimum, perplexity })
    }
}

/// What a kernel does, to tell its rate.
enum Amount {
    Flops(u64),
    Bytes(u64),
}

/// A kernel's dispatches in one batch.
struct Stage {
    kernel: &'static str,
    times: usize,
    amount: Amount,
    recording: Recording,
}

/// Times every kernel of the pass over the text's first batch.
///
/// # Errors
/// Everything that a device can do wrong, and reading weights that are streamed.
pub async fn kernels(scorer: &Scorer<'_>, best: &DeviceRates) -> Result<Vec<KernelTime>, ScoreError> {
    let gpu = scorer.model.gpu();
    let mut kernels = Vec::new();
    for stage in stages(scorer).await? {
        let seconds = Timing::of(gpu, &stage.recording).await?;
        let per_second = |amount: u64| amount as f64 / seconds.minimum / 1e9;
        let (rate, of_best) = match stage.amount {
            Amount::Flops(flops) => {
                (Rate::GflopPerSecond(per_second(flops)), per_second(flops) / best.gemm_gflop_per_second)
            }
            Amount::Bytes(bytes) => (Rate::GbPerSecond(per_second(bytes)), per_second(bytes) / best.copy_gb_per_second),
        };
        let (kernel, times, dispatches) = (stage.kernel, stage.times, stage.recording.len());
        kernels.push(KernelTime { kernel, times, dispatches, seconds, rate, of_best });
    }
    Ok(kernels)
}

/// The pass over the first batch, taken apart. What the kernels then read is whatever the ones before them left.
async fn stages(scorer: &Scorer<'_>) -> Result<Vec<Stage>, ScoreError> {
    let (model, scratch, states) = (scorer.model, &scorer.scratch, &scorer.states);
    let spec = model.spec();
    let Some(batch) = scorer.batches.first() else { return Ok(Vec::new()) };
    let (rows, hidden) = (batch.rows() as u64, spec.hidden_size as u64);
    // Activations that are read or written once, f32.
    let moved = |elements: u64| Amount::Bytes(4 * elements);
    let mut stages = Vec::new();

    let mut recording = Recording::new();
    model.record_embedding(&mut recording, &[(batch, states)]).await?;
    stages.extend(split(&recording, 1, |_| moved(2 * rows * hidden)));

    for kind in BlockKind::ALL {
        let blocks: Vec<_> = spec.blocks().filter(|block| block.kind == kind).collect();
        let Some(block) = blocks.first().copied() else { continue };
        let branch = Branch { block, weights: model.block(block).await? };
        let mut recording = Recording::new();
        let window = Rows { states, first: 0, windows: batch.windows, window: batch.window };
        model.record_sublayer(&mut recording, scratch, std::slice::from_ref(&branch), &window);
        let layer = &spec.layers[block.layer];
        let (inner, attention) = (layer.dense().inner as u64, &layer.attention);
        // Scores and weighted values over the keys that each query sees.
        let seen = attention.sliding_window.map_or(batch.window, |seen| seen.min(batch.window)) as u64;
        let pairs = batch.windows as u64 * (seen * (seen + 1) / 2 + (batch.window as u64 - seen) * seen);
        let product = |matrix: &Matrix| Amount::Flops(2 * rows * matrix.columns() as u64 * matrix.inner() as u64);
        stages.extend(split(&recording, blocks.len(), |stage| match stage {
            "q, k, v product" | "gate, up product" => product(&branch.weights.input),
            "o product" | "down product" => product(&branch.weights.output),
            "attention" => Amount::Flops(4 * pairs * attention.query_width() as u64),
            "heads" => moved(2 * rows * (attention.query_width() + 2 * attention.key_width()) as u64),
            "activation" => moved(3 * rows * inner),
            "post-norm" => moved(3 * rows * hidden),
            _ => moved(2 * rows * hidden),
        }));
    }

    let targets: u64 = batch.head.iter().map(|part| part.rows as u64).sum();
    let mut recording = Recording::new();
    for part in &batch.head {
        let normed = model.record_final_norm(&mut recording, scratch, part, states, 0);
        let head = (model.head.as_slice(), &part.targets);
        model.record_head(&mut recording, scratch, part, &normed, head, 0..model.vocabulary_chunks());
    }
    let logits = targets * spec.vocab_size as u64;
    stages.extend(split(&recording, 1, |stage| match stage {
        "head product" => Amount::Flops(2 * logits * hidden),
        "log-sum-exp" => moved(logits),
        _ => moved(2 * targets * hidden),
    }));
    Ok(stages)
}

/// Takes a recording apart that a dense pass runs so many times.
fn split(recording: &Recording, times: usize, amount: impl Fn(&str) -> Amount) -> Vec<Stage> {
    let parts = recording.by_stage().into_iter();
    parts.map(|(kernel, recording)| Stage { kernel, times, amount: amount(kernel), recording }).collect()
}
