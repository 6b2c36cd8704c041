//! Greedy continuation of a prompt: [`Generator`] runs a model without some of its blocks, one token at a time, through a
//! KV cache that only the attention blocks that are left have a part of.
//!
//! Token ids go in and come out; [`prompt_ids`] makes them from a text, [`crate::text::DecodeStream`] turns them into
//! text as they come. No sampling, no chat templates.

use std::rc::Rc;

use blockpruner_shaders::cached;

use crate::gpu::GpuError;
use crate::model::forward::decode::DecodeState;
use crate::model::{BlockSet, Checkpoint, DeviceModel, ForwardError, ModelError, ModelSpec, RopeScaling};
use crate::text::TextError;

/// Rows are a dimension of dispatch grids.
const MOST_PROMPT: usize = 65_535;
/// New tokens that the cache has room for from the start; it grows when they are more.
const FIRST_ROOM: usize = 256;

/// What went wrong while continuing a prompt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// The device or the model.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// The tokenizer.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Nothing to continue.
    #[error("the prompt is empty and the model has no token that begins a text (bos_token_id); give a prompt")]
    EmptyPrompt,
    /// A token id that the model has no embedding for.
    #[error(
        "token {position} of the prompt has id {id}, but the model's vocabulary has {vocab_size} entries; the tokenizer \
         does not belong to this model"
    )]
    Vocabulary {
        /// Position in the prompt, from 0.
        position: usize,
        /// The token id.
        id: u32,
        /// Entries of the model's vocabulary.
        vocab_size: usize,
    },
    /// More tokens than the model has positions, or than fit a dispatch.
    #[error("the prompt has {tokens} tokens, more than the {most} that are possible; give a shorter one")]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Possible.
        most: usize,
    },
    /// A logit is NaN or infinite.
    #[error("a logit at position {position} is not finite in {model}, which overflows there")]
    NotFinite {
        /// Position whose next token was looked for, from 0.
        position: usize,
        /// As [`BlockSet::rest`].
        model: String,
    },
}

impl From<GpuError> for GenerateError {
    fn from(error: GpuError) -> Self {
        Self::Forward(error.into())
    }
}

impl From<ModelError> for GenerateError {
    fn from(error: ModelError) -> Self {
        Self::Forward(error.into())
    }
}

/// Why a continuation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FinishReason {
    /// The last token ends a text.
    EndOfSequence,
    /// As many tokens as were asked for.
    MaxTokens,
    /// The model has no more positions.
    Positions,
}

impl FinishReason {
    /// `end_of_sequence`, `max_tokens` or `positions`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EndOfSequence => "end_of_sequence",
            Self::MaxTokens => "max_tokens",
            Self::Positions => "positions",
        }
    }
}

/// When a continuation ends.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GenerateOptions {
    /// New tokens at most.
    pub max_tokens: usize,
    /// Tokens that end a text, as [`Checkpoint::eos_token_ids`] gives them. Default: none does.
    pub eos_token_ids: Vec<u32>,
}

impl GenerateOptions {
    /// Ends after so many tokens.
    pub fn max_tokens(max_tokens: usize) -> Self {
        Self { max_tokens, eos_token_ids: Vec::new() }
    }

    /// Ends at one of these tokens, too.
    pub fn eos_token_ids(mut self, ids: Vec<u32>) -> Self {
        self.eos_token_ids = ids;
        self
    }
}

/// Token ids of a prompt, with what the tokenizer itself adds around a text. Those of an empty prompt are the token that
/// begins a text.
///
/// # Errors
/// No tokenizer, a text that it refuses, or an empty prompt where nothing is known to begin a text.
pub fn prompt_ids(checkpoint: &Checkpoint, prompt: &str) -> Result<Vec<u32>, GenerateError> {
    let mut ids = checkpoint.tokenizer()?.encode(prompt)?;
    if ids.is_empty() {
        ids.extend(checkpoint.spec.bos_token_id);
    }
    if ids.is_empty() { Err(GenerateError::EmptyPrompt) } else { Ok(ids) }
}

/// A continuation under way. Dropping it between two tokens cancels it.
pub struct Generator {
    model: Rc<DeviceModel>,
    removed: BlockSet,
    options: GenerateOptions,
    /// The prompt and the tokens that followed.
    text: Vec<u32>,
    /// None until the first token is asked for.
    state: Option<DecodeState>,
    new_tokens: usize,
    finish: Option<FinishReason>,
}

impl Generator {
    /// Prepares to continue the token ids `prompt` by the model without the blocks `removed`. Nothing runs before
    /// [`Generator::next`].
    ///
    /// # Errors
    /// A prompt that is empty, too long or not of this model's vocabulary; blocks that the model does not have.
    pub fn new(
        model: Rc<DeviceModel>,
        removed: BlockSet,
        prompt: Vec<u32>,
        options: GenerateOptions,
    ) -> Result<Self, GenerateError> {
        let spec = model.spec();
        spec.check_blocks(&removed)?;
        if prompt.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        let most = positions(spec).min(MOST_PROMPT);
        if prompt.len() > most {
            return Err(GenerateError::PromptTooLong { tokens: prompt.len(), most });
        }
        let vocab_size = spec.vocab_size;
        if let Some((position, id)) = prompt.iter().enumerate().find(|(_, id)| **id as usize >= vocab_size) {
            return Err(GenerateError::Vocabulary { position, id: *id, vocab_size });
        }
        let finish = (options.max_tokens == 0).then_some(FinishReason::MaxTokens);
        Ok(Self { model, removed, options, text: prompt, state: None, new_tokens: 0, finish })
    }

    /// The next token: the one with the largest logit, the lowest id on a tie. The token that ends a text is given, too,
    /// as the last one. None at the end; [`Generator::finish_reason`] says why. The first call runs the prompt.
    ///
    /// # Errors
    /// The device, or a logit that is not finite.
    pub async fn next(&mut self) -> Result<Option<u32>, GenerateError> {
        if self.finish.is_some() {
            return Ok(None);
        }
        let most = positions(self.model.spec());
        // Nothing is changed here before the device is done, so a call that was dropped half-way can be made again.
        let held = self.text.len();
        let restarts = self.model.spec().restarts_after.is_some_and(|positions| held == positions + 1);
        let token = match (&mut self.state, self.text.last()) {
            (Some(state), Some(last)) if self.new_tokens > 0 => {
                state.grow(&self.model, most as u32).await?;
                match restarts {
                    true => self.model.prefill(state, &self.text).await?,
                    false => self.model.decode(state, *last).await?,
                }
            }
            _ => {
                let room = held + self.options.max_tokens.min(FIRST_ROOM);
                let state = DecodeState::new(&self.model, &self.removed, room.min(most) as u32)?;
                self.model.prefill(self.state.insert(state), &self.text).await?
            }
        };
        let Some(token) = token else {
            return Err(GenerateError::NotFinite { position: held - 1, model: self.removed.rest() });
        };
        self.text.push(token);
        self.new_tokens += 1;
        self.finish = match () {
            _ if self.options.eos_token_ids.contains(&token) => Some(FinishReason::EndOfSequence),
            _ if self.new_tokens >= self.options.max_tokens => Some(FinishReason::MaxTokens),
            _ if held >= most => Some(FinishReason::Positions),
            _ => None,
        };
        Ok(Some(token))
    }

    /// Why the continuation ended; None as long as it goes on.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish
    }
}

/// Positions that a text can have: those that the model was made for, but `dynamic` frequencies are there to go beyond.
fn positions(spec: &ModelSpec) -> usize {
    let most = cached::MOST_POSITIONS as usize;
    match spec.ropes.iter().any(|rope| matches!(rope.scaling, RopeScaling::Dynamic { .. })) {
        true => most,
        false => spec.max_positions.min(most),
    }
}
