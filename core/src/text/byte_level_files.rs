//! `vocab.json` and `merges.txt`: byte-level BPE as it was published before there was tokenizer.json.
//!
//! How a text is split into words is in neither: the class that `tokenizer_config.json` names says it. The classes and their
//! defaults are those of transformers 5 (`models/*/tokenization_*.py`).

use serde_json::{Map, Value};

use super::TextError;
use super::special_tokens::{CONFIG, flag, named};
use super::vocabulary::{Merging, TokenType, Vocabulary};
use super::word_rules::{GPT_NEOX_CLASS, GPT2_CLASS, QWEN2_CLASS, WordRules};
use crate::file_kind::FileKind;
use crate::json;

pub(super) const VOCAB: &str = "vocab.json";
pub(super) const MERGES: &str = "merges.txt";

const END_OF_TEXT: &str = "<|endoftext|>";

/// A class of tokenizers that is byte-level BPE.
struct Class {
    names: &'static [&'static str],
    rules: &'static WordRules,
    /// Special tokens that a class has if the settings do not name others: `<|endoftext|>` for each.
    defaults: &'static [&'static str],
}

const CLASSES: [Class; 3] = [
    // Published with GPT-2, OPT, Phi-2, Starcoder and others.
    Class {
        names: &["GPT2Tokenizer", "CodeGenTokenizer"],
        rules: &GPT2_CLASS,
        defaults: &["bos_token", "eos_token", "unk_token"],
    },
    Class { names: &["Qwen2Tokenizer"], rules: &QWEN2_CLASS, defaults: &["eos_token", "unk_token", "pad_token"] },
    Class { names: &["GPTNeoXTokenizer"], rules: &GPT_NEOX_CLASS, defaults: &["bos_token", "eos_token", "unk_token"] },
];

/// The vocabulary of the two files by the settings beside them.
///
/// # Errors
/// Files that are damaged or do not fit each other; a class whose rules are not known.
pub(super) fn read(vocab: &[u8], merges: &[u8], config: &Map<String, Value>) -> Result<Vocabulary, TextError> {
    let class = class(config)?;
    let tokens = tokens(vocab)?;
    if let Some(kind) = FileKind::of(merges) {
        return Err(refuse(MERGES, kind.problem()));
    }
    let merges = std::str::from_utf8(merges).map_err(|error| refuse(MERGES, format!("not UTF-8 text: {error}")))?;
    let merges = merges.lines().filter(|line| !line.is_empty() && !line.starts_with("#version"));
    let mut types = vec![TokenType::Normal; tokens.len()];
    let position = |name: &str| tokens.iter().position(|token| token == name);
    let by_default = |key: &str| class.defaults.contains(&key) && !config.contains_key(key);
    if class.defaults.iter().any(|key| by_default(key))
        && let Some(id) = position(END_OF_TEXT)
    {
        types[id] = TokenType::Control;
    }
    let special = |key: &str| named(config, key).or(by_default(key).then_some(END_OF_TEXT)).and_then(position);
    Ok(Vocabulary {
        bos: special("bos_token"),
        eos: special("eos_token"),
        unknown: None,
        strips_behind: Vec::new(),
        add_bos: flag(config, "add_bos_token")?.unwrap_or(false),
        add_eos: flag(config, "add_eos_token")?.unwrap_or(false),
        merging: Merging::ByteLevel { rules: class.rules, merges: merges.map(str::to_owned).collect() },
        types,
        tokens,
    })
}

fn class(config: &Map<String, Value>) -> Result<&'static Class, TextError> {
    const CONVERT: &str = "convert it: python -c \"from transformers import AutoTokenizer; \
        AutoTokenizer.from_pretrained('.').save_pretrained('.')\" in the model's folder writes tokenizer.json";
    let name = config.get("tokenizer_class").and_then(Value::as_str);
    let known = name.and_then(|name| CLASSES.iter().find(|class| class.names.contains(&name.trim_end_matches("Fast"))));
    let known = known.ok_or_else(|| {
        let found = name.map_or("missing".to_string(), |name| format!("{name:?}, which is not known"));
        let known: Vec<&str> = CLASSES.iter().flat_map(|class| class.names).copied().collect();
        let reason = format!(
            "the folder has {VOCAB} and no tokenizer.json, and `tokenizer_class` is {found} (known: {}); {CONVERT}",
            known.join(", ")
        );
        refuse(CONFIG, reason)
    })?;
    match flag(config, "add_prefix_space")? {
        Some(true) => {
            Err(refuse(CONFIG, format!("`add_prefix_space` is true, which is not supported beside {VOCAB}; {CONVERT}")))
        }
        _ => Ok(known),
    }
}

/// The tokens by their ids.
fn tokens(vocab: &[u8]) -> Result<Vec<String>, TextError> {
    let vocab = json::object(vocab).map_err(|reason| refuse(VOCAB, reason))?;
    // Ids may have gaps, but a vocabulary is not a thousandth part of them.
    let most = vocab.len().saturating_mul(1000);
    let mut tokens = Vec::new();
    for (token, id) in &vocab {
        let number = id.as_u64().and_then(|id| usize::try_from(id).ok()).filter(|&id| id < most);
        let number = number.ok_or_else(|| refuse(VOCAB, format!("{token:?} has {id}, expected a token id")))?;
        if tokens.len() <= number {
            tokens.resize(number + 1, String::new());
        }
        let before = std::mem::replace(&mut tokens[number], token.clone());
        if !before.is_empty() {
            return Err(refuse(VOCAB, format!("{before:?} and {token:?} have the same id, {number}")));
        }
    }
    Ok(tokens)
}

fn refuse(file: &'static str, reason: String) -> TextError {
    TextError::TokenizerFile { file, reason }
}
