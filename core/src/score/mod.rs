//! Perplexity: the NLL of every target, its mean over each window, and exp of the mean of those.
//!
//! [`Scorer`] holds a text on the device and runs a model over it without some of its blocks. [`PrefixWalk`] does so for
//! many single blocks without repeating the part of the pass that they share.

use blockpruner_shaders::stride;

use crate::gpu::{GpuError, Recording};
use crate::model::forward::{Batch, Scratch};
use crate::model::{BlockId, BlockSet, DeviceModel, ForwardError, ModelError};
use crate::search::Work;
use crate::text::{TextError, Windows};

/// Tokens that run together, unless one window alone has more: enough to fill a GPU, little enough to keep scratch small.
const BATCH_TOKENS: usize = 2048;
/// Rows are a dimension of dispatch grids.
const MOST_ROWS: usize = 65_535;

/// What went wrong while scoring.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// The device or the model.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// The text does not fit the model.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The window does not fit a dispatch.
    #[error("a window of {window} tokens is longer than the {most} that are possible; use a smaller --window")]
    WindowTooLong {
        /// Asked for.
        window: usize,
        /// Possible.
        most: usize,
    },
    /// A loss is NaN or infinite.
    #[error("the loss of token {position} in window {window} is {value} without {removed}: the model overflows there")]
    NotFinite {
        /// 0-based.
        window: usize,
        /// 0-based position of the target.
        position: usize,
        /// The loss.
        value: f32,
        /// The blocks left out, or `no block`.
        removed: String,
    },
}

impl From<GpuError> for ScoreError {
    fn from(error: GpuError) -> Self {
        Self::Forward(error.into())
    }
}

impl From<ModelError> for ScoreError {
    fn from(error: ModelError) -> Self {
        Self::Forward(error.into())
    }
}

/// The perplexity of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// exp of `mean_nll`.
    pub perplexity: f64,
    /// Mean over the windows of their mean NLL, in nats a token.
    pub mean_nll: f64,
    /// Mean NLL of each window.
    pub windows: Vec<f64>,
}

impl Score {
    /// From the NLL of each target, `[windows, kept]`, summed in f64.
    fn from_nll(nll: &[f32], kept: usize, removed: &BlockSet) -> Result<Self, ScoreError> {
        if let Some(at) = nll.iter().position(|value| !value.is_finite()) {
            return Err(ScoreError::NotFinite {
                window: at / kept,
                position: at % kept + 1,
                value: nll[at],
                removed: if removed.is_empty() { "no block".into() } else { removed.to_string() },
            });
        }
        let sum = |values: &[f32]| values.iter().map(|value| *value as f64).sum::<f64>();
        let windows: Vec<f64> = nll.chunks(kept).map(|window| sum(window) / kept as f64).collect();
        let mean_nll = windows.iter().sum::<f64>() / windows.len() as f64;
        Ok(Self { perplexity: mean_nll.exp(), mean_nll, windows })
    }
}

/// A model and a text on the device, ready to be scored.
pub struct Scorer<'m> {
    model: &'m DeviceModel,
    window: usize,
    count: usize,
    batches: Vec<Batch>,
    scratch: Scratch,
    /// The hidden states under way, `[rows of a batch, hidden_size]`.
    states: wgpu::Buffer,
}

impl<'m> Scorer<'m> {
    /// Uploads the windows and allocates the scratch memory.
    pub fn new(model: &'m DeviceModel, windows: &Windows) -> Result<Self, ScoreError> {
        windows.check_vocabulary(model.spec().vocab_size)?;
        let window = windows.window;
        if window > MOST_ROWS {
            return Err(ScoreError::WindowTooLong { window, most: MOST_ROWS });
        }
        let together = (BATCH_TOKENS / window).clamp(1, windows.count.max(1));
        let scratch = Scratch::new(model, window as u32, together as u32)?;
        let batches = windows.ids.chunks(together * window).map(|ids| Batch::new(model.gpu(), ids, window));
        let batches = batches.collect::<Result<_, GpuError>>()?;
        let states = states(model, together * window)?;
        Ok(Self { model, window, count: windows.count, batches, scratch, states })
    }

    /// The model that is scored.
    pub fn model(&self) -> &DeviceModel {
        self.model
    }

    /// Tokens of the text: windows times their length.
    pub fn tokens(&self) -> usize {
        self.count * self.window
    }

    /// NLL of every target without the blocks `removed`, `[windows, window - 1]`, in nats.
    pub async fn nll(&self, removed: &BlockSet) -> Result<Vec<f32>, ScoreError> {
        self.model.spec().check_blocks(removed)?;
        let mut nll = Vec::new();
        for batch in &self.batches {
            let mut recording = Recording::new();
            self.model.record_embedding(&mut recording, &self.scratch, batch, &self.states);
            self.record_suffix(&mut recording, batch, 0, removed);
            self.finish(recording, batch, &mut nll).await?;
        }
        Ok(nll)
    }

    /// Perplexity of the text without the blocks `removed`.
    pub async fn perplexity(&self, removed: &BlockSet) -> Result<Score, ScoreError> {
        Score::from_nll(&self.nll(removed).await?, self.window - 1, removed)
    }

    /// Arithmetic of a pass from `depth` on without `removed`.
    pub fn work(&self, depth: usize, removed: &BlockSet) -> Work {
        let blocks = self.suffix(depth, removed).count();
        Work { block_tokens: (blocks * self.tokens()) as u64, head_tokens: (self.count * (self.window - 1)) as u64 }
    }

    fn suffix<'a>(&'a self, depth: usize, removed: &'a BlockSet) -> impl Iterator<Item = BlockId> + 'a {
        let spec = self.model.spec();
        let blocks = (depth..2 * spec.layers).map(BlockId::at_depth);
        blocks.filter(move |block| spec.has(*block) && !removed.contains(*block))
    }

    fn record_suffix(&self, recording: &mut Recording, batch: &Batch, depth: usize, removed: &BlockSet) {
        for block in self.suffix(depth, removed) {
            self.model.record_block(recording, &self.scratch, batch.windows, block, &self.states);
        }
        self.model.record_head(recording, &self.scratch, batch, &self.states);
    }

    async fn finish(&self, recording: Recording, batch: &Batch, nll: &mut Vec<f32>) -> Result<(), ScoreError> {
        self.model.gpu().submit(&recording).await?;
        for part in &batch.head {
            nll.extend(self.model.gpu().read(&part.nll, part.rows as usize).await?);
        }
        Ok(())
    }

    fn rows(&self, batch: &Batch) -> usize {
        batch.windows as usize * self.window
    }
}

fn states_bytes(model: &DeviceModel, rows: usize) -> u64 {
    rows as u64 * stride(model.spec().hidden_size as u32) as u64 * 4
}

fn states(model: &DeviceModel, rows: usize) -> Result<wgpu::Buffer, GpuError> {
    model.gpu().storage("hidden states", states_bytes(model, rows))
}

/// Scores single blocks in the order of the forward pass. The states before the block, which all later candidates share,
/// are kept and advanced; a candidate is born from them by skipping its block and runs only what follows.
///
/// The result has the same bits as a whole pass, because a copy of the states is all that differs.
pub struct PrefixWalk<'s, 'm> {
    scorer: &'s Scorer<'m>,
    removed: BlockSet,
    /// Blocks of the forward pass that the kept states have behind them.
    depth: usize,
    /// States of every batch.
    prefix: Vec<wgpu::Buffer>,
}

impl<'s, 'm> PrefixWalk<'s, 'm> {
    /// Starts at the embeddings, with the blocks `removed` left out.
    pub async fn new(scorer: &'s Scorer<'m>, removed: BlockSet) -> Result<Self, ScoreError> {
        let mut prefix = Vec::new();
        for batch in &scorer.batches {
            let states = states(scorer.model, scorer.rows(batch))?;
            let mut recording = Recording::new();
            scorer.model.record_embedding(&mut recording, &scorer.scratch, batch, &states);
            scorer.model.gpu().submit(&recording).await?;
            prefix.push(states);
        }
        Ok(Self { scorer, removed, depth: 0, prefix })
    }

    /// Perplexity without `block`, and the arithmetic done for it. Blocks must come in ascending depth.
    pub async fn perplexity(&mut self, block: BlockId) -> (Result<Score, ScoreError>, Work) {
        let mut work = Work::default();
        let score = self.score(block, &mut work).await;
        (score, work)
    }

    async fn score(&mut self, block: BlockId, work: &mut Work) -> Result<Score, ScoreError> {
        self.advance(block.depth(), work).await?;
        let scorer = self.scorer;
        let without = self.removed.with(block);
        let mut nll = Vec::new();
        for (batch, prefix) in scorer.batches.iter().zip(&self.prefix) {
            let mut recording = Recording::new();
            recording.copy(prefix, &scorer.states, states_bytes(scorer.model, scorer.rows(batch)));
            scorer.record_suffix(&mut recording, batch, block.depth() + 1, &without);
            scorer.finish(recording, batch, &mut nll).await?;
        }
        *work += scorer.work(block.depth() + 1, &without);
        Score::from_nll(&nll, scorer.window - 1, &without)
    }

    /// Brings the kept states up to the block at `depth`.
    async fn advance(&mut self, depth: usize, work: &mut Work) -> Result<(), ScoreError> {
        let scorer = self.scorer;
        debug_assert!(self.depth <= depth, "candidates come in the order of the forward pass");
        let blocks: Vec<BlockId> =
            scorer.suffix(self.depth, &self.removed).take_while(|block| block.depth() < depth).collect();
        for (batch, prefix) in scorer.batches.iter().zip(&self.prefix) {
            let mut recording = Recording::new();
            for block in &blocks {
                scorer.model.record_block(&mut recording, &scorer.scratch, batch.windows, *block, prefix);
            }
            scorer.model.gpu().submit(&recording).await?;
        }
        work.block_tokens += (blocks.len() * scorer.tokens()) as u64;
        self.depth = depth;
        Ok(())
    }
}
