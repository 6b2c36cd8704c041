//! Perplexity: the NLL of every target, its mean over each window, and exp of the mean of those.
//!
//! [`Scorer`] holds a text on the device and runs a model over it without some of its blocks. `change` measures on the way what
//! blocks make of the hidden states. [`continuations`] says how likely texts are to follow others.

mod change;
pub mod continuations;
mod layout;

use blockpruner_shaders::stride;

pub use change::StateChange;
pub(crate) use change::change_bytes;

use crate::gpu::{Gpu, GpuError, Recording};
use crate::model::forward::{Batch, Branch, Rows, Scratch, every_block};
use crate::model::{BlockId, BlockSet, DeviceModel, ForwardError, ModelError, ModelSpec};
use crate::text::{TextError, Windows};

/// Tokens that run together, unless one window alone has more: enough to fill a GPU, little enough to keep scratch small.
const BATCH_TOKENS: usize = 2048;
/// Rows are a dimension of dispatch grids.
const MOST_ROWS: usize = 65_535;

/// What went wrong while scoring.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScoreError {
    /// The device or the model.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// The text does not fit the model.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The window does not fit a dispatch.
    #[error("a window of {window} tokens is longer than the {most} that are possible; use shorter windows")]
    WindowTooLong {
        /// Asked for.
        window: usize,
        /// Possible.
        most: usize,
    },
    /// A loss is NaN or infinite.
    #[error("the loss of token {position} in window {window} is {value} in {model}, which overflows there")]
    NotFinite {
        /// 0-based.
        window: usize,
        /// 0-based position of the target.
        position: usize,
        /// The loss.
        value: f32,
        /// As [`BlockSet::rest`].
        model: String,
    },
    /// A prompt without a context, or with a continuation that has no tokens.
    #[error("prompt {prompt} has no token in {what}; at least one is needed")]
    EmptyPrompt {
        /// 0-based.
        prompt: usize,
        /// The context, or which continuation.
        what: String,
    },
    /// A prompt is longer than was foreseen.
    #[error(
        "prompt {prompt} has {tokens} tokens with its longest continuation, but there is room for {most}; shorten it"
    )]
    PromptTooLong {
        /// 0-based.
        prompt: usize,
        /// Of the context and the longest continuation.
        tokens: usize,
        /// Possible.
        most: usize,
    },
    /// A token id that the model has no embedding for.
    #[error(
        "prompt {prompt} has the token id {id}, but the model's vocabulary has {vocab_size} entries; the tokenizer does not \
         belong to this model"
    )]
    PromptVocabulary {
        /// 0-based.
        prompt: usize,
        /// The id.
        id: u32,
        /// Entries of the model's vocabulary.
        vocab_size: usize,
    },
    /// A loss of a continuation is NaN or infinite.
    #[error("the loss of continuation {continuation} of prompt {prompt} is {value} in {model}, which overflows there")]
    PromptNotFinite {
        /// 0-based.
        prompt: usize,
        /// 0-based.
        continuation: usize,
        /// The loss of one of its tokens.
        value: f32,
        /// As [`BlockSet::rest`].
        model: String,
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
#[non_exhaustive]
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
    pub(crate) fn from_nll(nll: &[f32], kept: usize, removed: &BlockSet) -> Result<Self, ScoreError> {
        if let Some(at) = nll.iter().position(|value| !value.is_finite()) {
            return Err(ScoreError::NotFinite {
                window: at / kept,
                position: at % kept + 1,
                value: nll[at],
                model: removed.rest(),
            });
        }
        let sum = |values: &[f32]| values.iter().map(|value| *value as f64).sum::<f64>();
        let windows: Vec<f64> = nll.chunks(kept).map(|window| sum(window) / kept as f64).collect();
        let mean_nll = windows.iter().sum::<f64>() / windows.len() as f64;
        Ok(Self { perplexity: mean_nll.exp(), mean_nll, windows })
    }
}

/// How a text's windows are batched. What a token comes to does not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Tokens of a window.
    pub(crate) window: usize,
    /// Windows of the text.
    pub(crate) count: usize,
    /// Windows that one dispatch takes at most.
    pub(crate) most: usize,
    /// Parts that the text comes in at least, if it has so many windows.
    parts: usize,
}

impl Batching {
    /// Batches of the usual size, the text in at least `parts` parts, if it has so many windows, of which each can be scored
    /// by itself.
    pub fn new(windows: &Windows, parts: usize) -> Self {
        Self { window: windows.window, count: windows.count, most: 0, parts: parts.max(1) }.of(BATCH_TOKENS)
    }

    /// This and ever smaller batches, which take less memory and more time.
    pub(crate) fn smaller(self) -> impl Iterator<Item = Self> {
        let sizes = (0..4).map(move |half| self.of(BATCH_TOKENS >> half));
        sizes.filter(move |batching| batching.most <= self.most)
    }

    fn of(self, tokens: usize) -> Self {
        Self { most: (tokens / self.window.max(1)).max(1), ..self }
    }

    /// Windows of a batch; the last batch may have fewer.
    pub(crate) fn together(&self) -> usize {
        self.most.min(self.count.div_ceil(self.parts).max(1))
    }

    /// Batches of the text.
    pub(crate) fn batches(&self) -> usize {
        self.count.div_ceil(self.together())
    }

    /// Candidates of which one dispatch takes a batch each.
    pub(crate) fn candidates(&self) -> usize {
        self.most / self.together()
    }

    /// Rows that the states of one dispatch have at most.
    pub(crate) fn most_rows(&self) -> usize {
        self.most * self.window
    }

    /// Bytes of everything that a [`Scorer`] allocates.
    pub(crate) fn scorer_bytes(&self, gpu: &Gpu, spec: &ModelSpec) -> u64 {
        let text = Batch::bytes(self.count * self.window);
        Scratch::bytes(gpu, spec, self.window as u32, self.most as u32) + text + states_bytes(spec, self.most_rows())
    }
}

/// Bytes of hidden states.
pub(crate) fn states_bytes(spec: &ModelSpec, rows: usize) -> u64 {
    rows as u64 * stride(spec.hidden_size as u32) as u64 * 4
}

/// A model and a text on the device, ready to be scored.
pub struct Scorer<'m> {
    pub(crate) model: &'m DeviceModel,
    pub(crate) batching: Batching,
    pub(crate) batches: Vec<Batch>,
    /// The tokens of the first window.
    pub(crate) first_window: Vec<u32>,
    pub(crate) scratch: Scratch,
    /// The hidden states under way.
    pub(crate) states: wgpu::Buffer,
}

impl<'m> Scorer<'m> {
    /// Uploads the windows and allocates the scratch memory.
    ///
    /// # Errors
    /// A text that does not fit the model, [`ScoreError::WindowTooLong`], and a device that has no room for it.
    pub fn new(model: &'m DeviceModel, windows: &Windows) -> Result<Self, ScoreError> {
        Self::batched(model, windows, Batching::new(windows, 1))
    }

    /// The same with these windows in other batches.
    ///
    /// # Errors
    /// Those of [`Scorer::new`].
    pub fn batched(model: &'m DeviceModel, windows: &Windows, batching: Batching) -> Result<Self, ScoreError> {
        windows.check_vocabulary(model.spec().vocab_size)?;
        let window = windows.window;
        model.spec().check_window(window)?;
        if window > MOST_ROWS {
            return Err(ScoreError::WindowTooLong { window, most: MOST_ROWS });
        }
        let scratch = Scratch::new(model, window as u32, batching.most as u32)?;
        let batches = windows.ids.chunks(batching.together() * window);
        let batches = batches.map(|ids| Batch::new(model.gpu(), ids, window)).collect::<Result<_, GpuError>>()?;
        let first_window = windows.ids[..window].to_vec();
        let states = model.gpu().storage("hidden states", states_bytes(model.spec(), batching.most_rows()))?;
        Ok(Self { model, batching, batches, first_window, scratch, states })
    }

    /// The model that is scored.
    pub fn model(&self) -> &DeviceModel {
        self.model
    }

    /// Tokens of the text: windows times their length.
    pub fn tokens(&self) -> usize {
        self.batching.count * self.batching.window
    }

    /// Targets of a window.
    pub(crate) fn kept(&self) -> usize {
        self.batching.window - 1
    }

    /// Targets of the text.
    pub(crate) fn targets(&self) -> usize {
        self.batching.count * self.kept()
    }

    /// NLL of every target without the blocks `removed`, `[windows, window - 1]`, in nats.
    ///
    /// # Errors
    /// Blocks that the model does not have, everything that a device can do wrong, and reading weights that are streamed. A loss
    /// that is not finite is none.
    pub async fn nll(&self, removed: &BlockSet) -> Result<Vec<f32>, ScoreError> {
        self.model.spec().check_blocks(removed)?;
        let mut nll = Vec::new();
        for batch in &self.batches {
            let mut recording = Recording::new();
            self.walk(&mut recording, batch, removed, async |recording, _, branches, rows| {
                self.model.record_sublayer(recording, &self.scratch, branches, rows);
                Ok::<_, ScoreError>(())
            })
            .await?;
            nll.extend(self.finish(recording, batch, &self.states, 0).await?);
        }
        Ok(nll)
    }

    /// Embeds a batch and walks its sublayers, as [`DeviceModel::walk`]; `each` is also given where the batch's states are.
    async fn walk<E: From<ForwardError> + From<GpuError>>(
        &self,
        recording: &mut Recording,
        batch: &Batch,
        removed: &BlockSet,
        mut each: impl AsyncFnMut(&mut Recording, usize, &[Branch], &Rows<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.model.embed(&[(batch, &self.states)]).await?;
        let rows = Rows { states: &self.states, first: 0, windows: batch.windows, window: batch.window };
        let sublayers = 0..self.model.spec().sublayer_count();
        self.model
            .walk(recording, sublayers, removed, async |recording, index, branches| {
                each(recording, index, branches, &rows).await
            })
            .await
    }

    /// Perplexity of the text without the blocks `removed`.
    ///
    /// # Errors
    /// Those of [`Scorer::nll`], and [`ScoreError::NotFinite`].
    pub async fn perplexity(&self, removed: &BlockSet) -> Result<Score, ScoreError> {
        Score::from_nll(&self.nll(removed).await?, self.kept(), removed)
    }

    /// Blocks that a pass without `removed` runs.
    pub(crate) fn blocks(&self, removed: &BlockSet) -> usize {
        let spec = self.model.spec();
        every_block(spec).filter(|block: &BlockId| spec.has(*block) && !removed.contains(*block)).count()
    }

    /// Runs what is recorded and the whole head, and reads the NLL of a batch whose final states begin at `first_row`.
    pub(crate) async fn finish(
        &self,
        mut recording: Recording,
        batch: &Batch,
        states: &wgpu::Buffer,
        first_row: u32,
    ) -> Result<Vec<f32>, ScoreError> {
        self.model.record_losses(&mut recording, &self.scratch, batch, states, first_row);
        self.model.gpu().submit(&recording).await?;
        let mut nll = Vec::new();
        for part in &batch.head {
            nll.extend(self.model.gpu().read(&part.nll, part.rows as usize).await?);
        }
        Ok(nll)
    }
}
