//! Text to token windows: the tokenizer, the calibration rows and the windows that are scored.
//!
//! [`Tokenizer`] comes from a `tokenizer.json`, from the older `tokenizer.model` or `vocab.json`, or is rebuilt from GGUF
//! metadata, [`CalibrationText`] reads rows from text, JSON and JSON Lines, and [`Windows`] joins, tokenises and cuts
//! them the way the published method does. Nothing here knows a model or a GPU.

mod byte_level_files;
mod calibration;
mod gguf_tokenizer;
mod gguf_written;
mod guard;
mod rows;
mod sentence_piece_file;
mod special_tokens;
mod stream;
mod tokenizer;
mod tokenizer_checks;
mod vocabulary;
mod windows;
mod word_rules;

pub use calibration::{CalibrationText, TextOptions};
pub(crate) use gguf_written::gguf_entries;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use rows::open_file;
pub(crate) use rows::{Format, Opened, field_names, kind, unreadable};
pub use tokenizer::{DecodeStream, Tokenizer};
pub use windows::Windows;

/// What went wrong between the text and its windows. Every message says what was found and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The operating system could not read the text.
    #[error("{source_name}: cannot read the text: {reason}")]
    Read {
        /// Path as it was given.
        source_name: String,
        /// The system's reason, and what to do.
        reason: String,
    },
    /// The text is there but cannot be used.
    #[error("{source_name}: {reason}")]
    Calibration {
        /// File name, or `builtin:sample`.
        source_name: String,
        /// What was found, what was expected, what to do.
        reason: String,
    },
    /// A row does not have the field that was asked for.
    #[error(
        "{source_name}: row {row} has no field `{field}` (its fields: {available}); name the field that holds the \
         text"
    )]
    MissingField {
        /// File name.
        source_name: String,
        /// Row number, from 1.
        row: usize,
        /// The field that was looked for.
        field: String,
        /// The fields that the row has, separated by commas.
        available: String,
    },
    /// A `tokenizer.json`, or one of the files that go with it, that cannot be used.
    #[error("{file}: {reason}")]
    TokenizerFile {
        /// Which file.
        file: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Tokenizer metadata of a GGUF file that cannot be used.
    #[error("{file}: metadata key `{key}` {reason}")]
    Gguf {
        /// The GGUF file.
        file: String,
        /// The metadata key.
        key: String,
        /// What was found and what was expected.
        reason: String,
    },
    /// A metadata value of a GGUF file that is missing or of the wrong type.
    #[error(transparent)]
    Metadata(#[from] crate::weights::WeightsError),
    /// The tokenizer refused a text or a list of ids.
    #[error("the tokenizer failed: {reason}")]
    Tokenizer {
        /// The tokenizer's own message.
        reason: String,
    },
    /// A window length or a count of windows that makes no sense.
    #[error("{reason}")]
    Window {
        /// What was found, what was expected, what to do.
        reason: String,
    },
    /// A token id that the model has no embedding for.
    #[error(
        "token {position} of the calibration windows has id {id}, but the model's vocabulary has {vocab_size} entries; \
         the tokenizer does not belong to this model"
    )]
    Vocabulary {
        /// Position in [`Windows::ids`], from 0.
        position: usize,
        /// The token id.
        id: u32,
        /// Entries of the model's vocabulary.
        vocab_size: usize,
    },
}
