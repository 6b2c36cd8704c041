//! The tokenizer: text to ids and back, by the `tokenizers` crate, so that ids agree with Hugging Face.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{TextError, gguf_tokenizer};
use crate::weights::gguf::GgufMetadata;

/// A tokenizer and the files it is saved as.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    json: String,
    config: Map<String, Value>,
    vocab_size: usize,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// Truncation and padding that the file asks for are switched off: a calibration text is never shortened silently.
    ///
    /// # Errors
    /// [`TextError::TokenizerJson`] if the bytes are not UTF-8 or not a tokenizer.
    pub fn from_json(bytes: &[u8]) -> Result<Self, TextError> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| TextError::TokenizerJson { reason: format!("not UTF-8 text: {error}") })?;
        let mut config = Map::new();
        config.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
        Self::from_parts(text.to_owned(), config)
    }

    /// Rebuilds the tokenizer that a GGUF file carries in its `tokenizer.ggml.*` metadata.
    ///
    /// Byte-level BPE (`gpt2`) and SentencePiece BPE (`llama`) are known; see [`super`] for what belongs where.
    ///
    /// # Errors
    /// [`TextError::Gguf`] naming the key that is missing, of the wrong kind, or not supported.
    pub fn from_gguf(metadata: &GgufMetadata) -> Result<Self, TextError> {
        let vocabulary = gguf_tokenizer::Vocabulary::read(metadata)?;
        Self::from_parts(vocabulary.tokenizer_json()?.to_string(), vocabulary.tokenizer_config())
    }

    /// A tokenizer from the text of its `tokenizer.json` and the content of its `tokenizer_config.json`.
    pub(super) fn from_parts(json: String, config: Map<String, Value>) -> Result<Self, TextError> {
        check_merges(&json)?;
        let mut inner = tokenizers::Tokenizer::from_bytes(json.as_bytes())
            .map_err(|error| TextError::TokenizerJson { reason: error.to_string() })?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| TextError::TokenizerJson { reason: error.to_string() })?;
        let vocab_size = inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1);
        if vocab_size == 0 {
            return Err(TextError::TokenizerJson { reason: "the vocabulary is empty".into() });
        }
        Ok(Self { inner, json, config, vocab_size })
    }

    /// The `tokenizer.json`: as it was read, or as it was rebuilt from GGUF metadata.
    pub fn to_json(&self) -> String {
        self.json.clone()
    }

    /// What belongs in `tokenizer_config.json`. Rebuilt from GGUF metadata it names the special tokens, the chat template
    /// and the context length; a `tokenizer.json` says none of these, so only `tokenizer_class` is known then and the
    /// folder's own `tokenizer_config.json` is the better file to carry over.
    pub fn tokenizer_config(&self) -> Value {
        Value::Object(self.config.clone())
    }

    /// Token ids of `text`, with what the tokenizer itself adds around a text (a BOS token for some, nothing for others).
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] with the reason that the tokenizer gives.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let encoding =
            self.inner.encode_fast(text, true).map_err(|error| TextError::Tokenizer { reason: error.to_string() })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of `ids`; special tokens (BOS, chat markers) and ids outside the vocabulary are left out.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] with the reason that the tokenizer gives.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TextError> {
        self.inner.decode(ids, true).map_err(|error| TextError::Tokenizer { reason: error.to_string() })
    }

    /// One more than the largest token id. A model's embedding has at least that many rows, often a few more.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }
}

/// The part of `tokenizer.json` that [`check_merges`] looks at.
#[derive(Deserialize)]
struct ModelOnly {
    model: Value,
}

/// Refuses BPE merges whose pieces or whose result are not in the vocabulary. The `tokenizers` crate finds a missing
/// piece itself, but panics on a result that is longer than every token.
fn check_merges(json: &str) -> Result<(), TextError> {
    let refuse = |reason: String| TextError::TokenizerJson { reason };
    let ModelOnly { model } = serde_json::from_str(json).map_err(|error| refuse(error.to_string()))?;
    let (Some(vocab), Some(merges)) = (model["vocab"].as_object(), model["merges"].as_array()) else {
        return Ok(());
    };
    let prefix = model["continuing_subword_prefix"].as_str().unwrap_or("");
    for (index, merge) in merges.iter().enumerate() {
        let pair = match merge {
            Value::String(pair) => pair.split_once(' '),
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(left), Value::String(right)] => Some((left.as_str(), right.as_str())),
                _ => None,
            },
            _ => None,
        };
        let Some((left, right)) = pair else {
            return Err(refuse(format!("merge {index} is {merge}, expected two tokens")));
        };
        let merged = right.strip_prefix(prefix).map(|right| format!("{left}{right}"));
        if !merged.is_some_and(|merged| vocab.contains_key(&merged)) {
            return Err(refuse(format!(
                "merge {index} joins {left:?} and {right:?} to a token that is not in `vocab`"
            )));
        }
    }
    Ok(())
}
