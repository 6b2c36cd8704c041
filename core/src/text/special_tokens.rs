//! Tokens that stand beside `tokenizer.json`: in `tokenizer_config.json`, `special_tokens_map.json` and
//! `added_tokens.json`.
//!
//! They are looked for in the text before anything else is done to it, so one that is not known changes every token around
//! it. The rules are those of transformers 5 (`tokenization_utils_base.py`, `tokenization_utils_tokenizers.py`):
//! `added_tokens_decoder` counts alone if it is there, else the two older files do. What is put around a text,
//! `tokenizer.json` alone says: beside one, `add_bos_token` and `add_eos_token` do not count.

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::TextError;
use crate::json;

pub(super) const CONFIG: &str = "tokenizer_config.json";
pub(super) const SPECIAL_TOKENS_MAP: &str = "special_tokens_map.json";
pub(super) const ADDED_TOKENS: &str = "added_tokens.json";

/// The tokens with a name, in the order in which transformers adds them.
const NAMED: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// Lists of further ones, by their new and their old name.
const EXTRA: [&str; 2] = ["extra_special_tokens", "additional_special_tokens"];

/// What those files say.
#[derive(Debug, Default)]
pub(super) struct SpecialTokens {
    /// Tokens with the ids that they must get.
    with_ids: Vec<(u32, AddedToken, &'static str)>,
    /// Special tokens, which are added if they are not there yet.
    others: Vec<AddedToken>,
    /// Whether special tokens in a text are split like any other text.
    split: bool,
}

impl SpecialTokens {
    /// Reads the files; `read` gives the content of those that are there.
    pub fn read<'a>(read: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Self, TextError> {
        let config = settings(&read)?;
        let has_decoder = config.get("added_tokens_decoder").is_some_and(|value| !value.is_null());
        let mut found = Self { split: flag(&config, "split_special_tokens")?.unwrap_or(false), ..Self::default() };
        let mut special: Vec<AddedToken> = Vec::new();
        for key in NAMED {
            special.extend(token(key, config.get(key))?);
        }
        let extra = EXTRA.iter().find_map(|key| Some((*key, config.get(*key)?)));
        match extra {
            Some((key, Value::Array(tokens))) => {
                for value in tokens {
                    special.extend(token(key, Some(value))?);
                }
            }
            Some((key, Value::Object(tokens))) => {
                for value in tokens.values() {
                    special.extend(token(key, Some(value))?);
                }
            }
            _ => {}
        }
        match has_decoder {
            true => found.read_decoder(&config["added_tokens_decoder"])?,
            false => found.read_added_tokens(&object(&read, ADDED_TOKENS)?, &special)?,
        }
        // A token that is described with its id is taken from there.
        special.retain(|token| found.with_ids.iter().all(|(_, other, _)| other.content != token.content));
        found.others = special;
        Ok(found)
    }

    fn read_decoder(&mut self, decoder: &Value) -> Result<(), TextError> {
        const KEY: &str = "added_tokens_decoder";
        let tokens = decoder.as_object().ok_or_else(|| wrong(CONFIG, KEY, decoder, "an object of tokens by id"))?;
        for (id, value) in tokens {
            let id = id.parse().map_err(|_| wrong(CONFIG, KEY, &Value::String(id.clone()), "token ids as keys"))?;
            let token =
                described(value, false).ok_or_else(|| wrong(CONFIG, KEY, value, "a token with its `content`"))?;
            self.with_ids.push((id, token, CONFIG));
        }
        self.with_ids.sort_by_key(|(id, ..)| *id);
        Ok(())
    }

    fn read_added_tokens(&mut self, tokens: &Map<String, Value>, special: &[AddedToken]) -> Result<(), TextError> {
        for (content, id) in tokens {
            let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
            let number = number.ok_or_else(|| wrong(ADDED_TOKENS, content, id, "a token id"))?;
            let is_special = special.iter().any(|token| token.content == *content);
            self.with_ids.push((number, AddedToken::from(content.clone(), is_special), ADDED_TOKENS));
        }
        self.with_ids.sort_by_key(|(id, ..)| *id);
        Ok(())
    }

    /// Adds what `tokenizer` does not have yet.
    ///
    /// # Errors
    /// A token whose id the tokenizer does not give it.
    pub fn add_to(&self, tokenizer: &mut tokenizers::Tokenizer) -> Result<(), TextError> {
        for (id, token, file) in &self.with_ids {
            // tokenizer.json counts where both have it.
            let known = tokenizer.token_to_id(&token.content);
            add(tokenizer, file, token)?;
            let got = tokenizer.token_to_id(&token.content);
            if known.is_none() && got != Some(*id) {
                let got = got.map_or("none".to_string(), |got| got.to_string());
                let reason = format!(
                    "token {:?} is to have the id {id}, but behind those of tokenizer.json it gets {got}; take both files \
                     from one place",
                    token.content
                );
                return Err(TextError::TokenizerFile { file, reason });
            }
        }
        for token in &self.others {
            if !tokenizer.get_added_tokens_decoder().values().any(|other| other.content == token.content) {
                add(tokenizer, CONFIG, token)?;
            }
        }
        tokenizer.set_encode_special_tokens(self.split);
        Ok(())
    }
}

fn add(tokenizer: &mut tokenizers::Tokenizer, file: &'static str, token: &AddedToken) -> Result<(), TextError> {
    let added = tokenizer.add_tokens([token.clone()]);
    added.map(|_| ()).map_err(|error| TextError::TokenizerFile { file, reason: error.to_string() })
}

/// What `tokenizer_config.json` says, and `special_tokens_map.json` where that one counts.
pub(super) fn settings<'a>(read: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Map<String, Value>, TextError> {
    let mut config = object(&read, CONFIG)?;
    if config.get("added_tokens_decoder").is_none_or(Value::is_null) {
        config.extend(object(&read, SPECIAL_TOKENS_MAP)?);
    }
    Ok(config)
}

/// The JSON object of a file; empty if there is no such file.
fn object<'a>(read: impl Fn(&str) -> Option<&'a [u8]>, file: &'static str) -> Result<Map<String, Value>, TextError> {
    match read(file) {
        Some(bytes) => json::object(bytes).map_err(|reason| TextError::TokenizerFile { file, reason }),
        None => Ok(Map::new()),
    }
}

/// The text of the special token that a setting names.
pub(super) fn named<'a>(config: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    let value = config.get(key)?;
    value.as_str().or_else(|| value["content"].as_str())
}

fn wrong(file: &'static str, key: &str, found: &Value, expected: &str) -> TextError {
    TextError::TokenizerFile { file, reason: format!("`{key}` has {found}, expected {expected}") }
}

/// A setting that is true or false; None if it is absent.
pub(super) fn flag(config: &Map<String, Value>, key: &str) -> Result<Option<bool>, TextError> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(other) => Err(wrong(CONFIG, key, other, "true or false")),
    }
}

/// A special token: its text, or an object that describes it. None if there is none.
fn token(key: &str, value: Option<&Value>) -> Result<Option<AddedToken>, TextError> {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => Ok(None),
        Some(Value::String(content)) => Ok(Some(AddedToken::from(content.clone(), true))),
        Some(value) => match described(value, true) {
            Some(token) => Ok(Some(token)),
            None => Err(wrong(CONFIG, key, value, "a token")),
        },
    }
}

/// A token from an object with its `content` and how it is looked for.
fn described(value: &Value, special: bool) -> Option<AddedToken> {
    let flag = |key: &str, default: bool| value[key].as_bool().unwrap_or(default);
    let special = special || flag("special", false);
    let token = AddedToken::from(value["content"].as_str()?, special);
    Some(
        token
            .lstrip(flag("lstrip", false))
            .rstrip(flag("rstrip", false))
            .single_word(flag("single_word", false))
            .normalized(flag("normalized", !special)),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use serde_json::json;

    use super::*;
    use crate::text::Tokenizer;

    /// Files by name, and the ids that they give.
    type Case<'a> = (&'a [(&'a str, Value)], &'a [u32]);

    fn tokenizer_json() -> Value {
        let tokens = ["<unk>", "<s>", "</s>", "a", "b", "c", "ab", "<x>", " ", "<", "x", ">"];
        let vocab: Map<String, Value> = tokens.iter().enumerate().map(|(id, t)| (t.to_string(), json!(id))).collect();
        let unknown = json!({"id": 0, "content": "<unk>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true});
        json!({
            "version": "1.0", "added_tokens": [unknown],
            "model": {"type": "BPE", "unk_token": "<unk>", "vocab": vocab, "merges": [["a", "b"]]},
        })
    }

    fn open(files: &[(&str, Value)]) -> Result<Tokenizer, TextError> {
        let files: Vec<(&str, Vec<u8>)> =
            files.iter().map(|(file, json)| (*file, json.to_string().into_bytes())).collect();
        Tokenizer::from_files(tokenizer_json().to_string().as_bytes(), |wanted| {
            files.iter().find(|(file, _)| *file == wanted).map(|(_, bytes)| bytes.as_slice())
        })
    }

    fn special(content: &str, lstrip: bool) -> Value {
        json!({"content": content, "single_word": false, "lstrip": lstrip, "rstrip": false, "normalized": false,
            "special": true})
    }

    /// The ids are those of transformers 5.23 (`AutoTokenizer.from_pretrained` on such folders).
    #[test]
    fn tokens_beside_tokenizer_json_count_as_in_transformers() {
        let plain = [6, 9, 10, 11, 3, 8, 9, 0, 11, 5, 9, 0, 0, 11, 8, 9, 0, 11, 4];
        let y = [6, 9, 10, 11, 3, 8, 9, 0, 11, 5, 9, 0, 0, 11, 8, 12, 4];
        let x_and_y = [6, 7, 3, 8, 9, 0, 11, 5, 9, 0, 0, 11, 8, 12, 4];
        let y_with_space = [6, 9, 10, 11, 3, 8, 9, 0, 11, 5, 9, 0, 0, 11, 12, 4];
        let named = [6, 9, 10, 11, 3, 8, 1, 5, 2, 9, 0, 11, 4];
        let named_by_map = [6, 9, 10, 11, 3, 8, 1, 5, 2, 8, 9, 0, 11, 4];
        let bos = [6, 9, 10, 11, 3, 8, 1, 5, 9, 0, 0, 11, 8, 9, 0, 11, 4];
        let end = json!({"__type": "AddedToken", "content": "</s>", "lstrip": false, "rstrip": true, "normalized": false,
            "single_word": false});
        let decoder = |y: Value| json!({"added_tokens_decoder": {"12": y}});
        let map = json!({"bos_token": "<s>", "eos_token": special("</s>", false)});
        let cases: [Case<'_>; 10] = [
            (&[], &plain),
            (
                &[(CONFIG, json!({"added_tokens_decoder": {"12": special("<y>", false), "7": special("<x>", true)}}))],
                &x_and_y,
            ),
            (&[(CONFIG, decoder(special("<y>", true)))], &y_with_space),
            (&[(CONFIG, json!({"bos_token": "<s>", "eos_token": end, "pad_token": null}))], &named),
            (&[(CONFIG, json!({"additional_special_tokens": ["<x>", "<y>"]}))], &x_and_y),
            (&[(SPECIAL_TOKENS_MAP, map.clone())], &named_by_map),
            (&[(CONFIG, decoder(special("<y>", false))), (SPECIAL_TOKENS_MAP, map)], &y),
            (&[(ADDED_TOKENS, json!({"<y>": 12}))], &y),
            (&[(CONFIG, json!({"eos_token": "<y>"})), (ADDED_TOKENS, json!({"<y>": 12, "<x>": 7}))], &x_and_y),
            (&[(CONFIG, json!({"bos_token": "<s>", "add_bos_token": true}))], &bos),
        ];
        for (files, expected) in cases {
            assert_eq!(open(files).unwrap().encode("ab<x>a <s>c</s> <y>b").unwrap(), expected, "{files:?}");
        }
        let split = json!({"bos_token": "<s>", "split_special_tokens": true});
        assert_eq!(open(&[(CONFIG, split)]).unwrap().encode("ab<x>a <s>c</s> <y>b").unwrap(), plain);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let cases: [(&str, Value, &[&str]); 6] = [
            (CONFIG, json!({"added_tokens_decoder": {"40": special("<y>", false)}}), &["<y>", "40", "12"]),
            (
                CONFIG,
                json!({"added_tokens_decoder": {"x": special("<y>", false)}}),
                &["added_tokens_decoder", "token ids"],
            ),
            (CONFIG, json!({"added_tokens_decoder": {"12": 5}}), &["added_tokens_decoder", "`content`"]),
            (CONFIG, json!({"bos_token": 5}), &["`bos_token` has 5"]),
            (ADDED_TOKENS, json!({"<y>": "12"}), &["`<y>`", "a token id"]),
            (CONFIG, json!({"split_special_tokens": 1}), &["split_special_tokens", "true or false"]),
        ];
        for (file, content, parts) in cases {
            let error = open(&[(file, content)]).err().unwrap().to_string();
            assert!(error.starts_with(file) && parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}
