//! What can be wrong with a model: its configuration, its tensors, the files of its folder.

use serde_json::Value;

use crate::weights::WeightsError;

/// What went wrong while opening a model. Every message names the file and, where there is one, the key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A key that the architecture needs is not there.
    #[error("{file}: key `{key}` is missing, expected {expected}")]
    MissingKey {
        /// The file that should hold the key.
        file: String,
        /// Its name there.
        key: String,
        /// What its value should be.
        expected: String,
    },
    /// A key has a value of the wrong type, out of range, or in contradiction to another key.
    #[error("{file}: key `{key}` is {found}, expected {expected}")]
    Key {
        /// The file that holds the key.
        file: String,
        /// Its name there.
        key: String,
        /// Its value, shortened.
        found: String,
        /// What its value should be.
        expected: String,
    },
    /// The model is sound but does something that is not built here.
    #[error("{file}: `{key}` is {found}, which is not supported: {supported}")]
    Unsupported {
        /// The file that says so.
        file: String,
        /// The key that says so.
        key: String,
        /// Its value, shortened.
        found: String,
        /// What is supported, and what to do.
        supported: String,
    },
    /// Tensors that the configuration calls for are missing or have another shape.
    #[error(
        "the weights do not fit the configuration, {count} tensors are missing or wrong; get both from one place:{listed}"
    )]
    Tensors {
        /// How many in all.
        count: usize,
        /// The first few, one a line.
        listed: String,
    },
    /// A JSON file that is none.
    #[error("{file}: {reason}")]
    Json {
        /// The file.
        file: String,
        /// What it is instead, and what to do.
        reason: String,
    },
    /// A file of the model is missing, unreadable or not what its name says.
    #[error("{file}: {problem}; {advice}")]
    File {
        /// The file or folder.
        file: String,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        advice: String,
    },
    /// A block that this model does not have.
    #[error("block {block} is not in this model: it has layers 0 to {last}{absent}")]
    NoSuchBlock {
        /// The block asked for.
        block: super::BlockId,
        /// The last layer's index.
        last: usize,
        /// `, without` and the blocks that an earlier pruning took out, if there are any.
        absent: String,
    },
    /// The window is longer or shorter than the rotary embedding allows.
    #[error("window of {window} positions: expected 1 to {most}, the most that f32 positions count exactly")]
    Window {
        /// The window asked for.
        window: usize,
        /// The longest possible.
        most: usize,
    },
    /// The window is longer than the model's table of positions.
    #[error(
        "a window of {window} tokens is longer than the {most} positions that the model has; choose a shorter window"
    )]
    Positions {
        /// Tokens of the window.
        window: usize,
        /// Positions of the model.
        most: usize,
    },
    /// What a GGUF file cannot hold, as llama.cpp reads it.
    #[error(
        "a GGUF file cannot hold this model, as llama.cpp reads it: {what}; export a Hugging Face folder (hf, hf-zeroed)"
    )]
    NotInGguf {
        /// What of the model, and why.
        what: String,
    },
    /// Text was to be tokenised and the model has no usable tokenizer.
    #[error("{model}: there is no tokenizer to turn text into tokens: {problem}")]
    NoTokenizer {
        /// The model.
        model: String,
        /// Why, and what to do.
        problem: String,
    },
    /// The tensor files could not be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// A JSON value as an error message shows it: one line, a long one cut.
pub(crate) fn shown(value: &Value) -> String {
    const MOST: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
