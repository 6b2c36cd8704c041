//! Tokens that stand beside `tokenizer.json`: in `tokenizer_config.json`, `special_tokens_map.json` and
//! `added_tokens.json`.
//!
//! They are looked for in the text before anything else is done to it, so one that is not known changes every token around
//! it. The rules are those of transformers 5 (`tokenization_utils_base.py`, `tokenization_utils_tokenizers.py`):
//! `added_tokens_decoder` counts alone if it is there, else the two older files do. What is put around a text,
//! `tokenizer.json` alone says: beside one, `add_bos_token` and `add_eos_token` do not count.

use std::collections::HashSet;

use serde_json::{Map, Value, json};
use tokenizers::{AddedToken, NormalizedString, Normalizer};

use super::TextError;
use crate::json;

pub(super) const CONFIG: &str = "tokenizer_config.json";
pub(super) const SPECIAL_TOKENS_MAP: &str = "special_tokens_map.json";
pub(super) const ADDED_TOKENS: &str = "added_tokens.json";

/// Tokens by their ids, each with how it is looked for.
const DECODER: &str = "added_tokens_decoder";
/// The tokens with a name of every class, in the order in which transformers adds them.
const NAMED: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// Further ones, a list or an object of them by their names, and the older name of the same.
const EXTRA: &str = "extra_special_tokens";
const ADDITIONAL: &str = "additional_special_tokens";

/// Classes of transformers that put a space before a text if `add_prefix_space` says so, whatever `tokenizer.json` does.
const PREFIX_CLASSES: [&str; 5] =
    ["GPT2Tokenizer", "GPTNeoXTokenizer", "CodeGenTokenizer", "Qwen2Tokenizer", "CohereTokenizer"];

/// What those files say.
#[derive(Debug, Default)]
pub(super) struct SpecialTokens {
    /// Tokens with the ids that they must get.
    with_ids: Vec<(u32, AddedToken, &'static str)>,
    /// Special tokens, which are added if they are not there yet.
    others: Vec<AddedToken>,
    /// Whether special tokens in a text are split like any other text.
    split: bool,
    /// Whether byte-level BPE puts a space before a text, where the class says so and not `tokenizer.json`.
    pub add_prefix_space: Option<bool>,
}

impl SpecialTokens {
    /// Reads the files; `read` gives the content of those that are there.
    pub fn read<'a>(read: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Self, TextError> {
        let config = object(&read, CONFIG)?;
        let decoder = config.get(DECODER).filter(|value| !value.is_null());
        let map = if decoder.is_some() { Map::new() } else { object(&read, SPECIAL_TOKENS_MAP)? };
        let mut found = Self { split: flag(&config, "split_special_tokens")?.unwrap_or(false), ..Self::default() };
        let class = config.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
        if PREFIX_CLASSES.contains(&class.trim_end_matches("Fast")) {
            found.add_prefix_space = Some(flag(&config, "add_prefix_space")?.unwrap_or(false));
        }
        let (by_name, extra) = further(&config, &map);
        let mut special: Vec<AddedToken> = Vec::new();
        for key in NAMED {
            special.extend(token(key, map.get(key).or(config.get(key)))?);
        }
        let of_class = special.len();
        for (key, value) in by_name {
            special.extend(token(key, Some(value))?);
        }
        let by_name = of_class..special.len();
        for value in extra {
            special.extend(token(EXTRA, Some(value))?);
        }
        match decoder {
            Some(decoder) => found.read_decoder(decoder)?,
            None => {
                let named = special.iter().enumerate().filter(|(at, _)| !by_name.contains(at)).map(|(_, token)| token);
                found.read_added_tokens(&object(&read, ADDED_TOKENS)?, &named.collect::<Vec<_>>())?;
            }
        }
        // A token that is described with its id is taken from there.
        special.retain(|token| found.with_ids.iter().all(|(_, other, _)| other.content != token.content));
        found.others = special;
        Ok(found)
    }

    fn read_decoder(&mut self, decoder: &Value) -> Result<(), TextError> {
        let tokens = decoder.as_object().ok_or_else(|| wrong(CONFIG, DECODER, decoder, "an object of tokens by id"))?;
        for (id, value) in tokens {
            let id = id.parse().map_err(|_| wrong(CONFIG, DECODER, &Value::String(id.clone()), "token ids as keys"))?;
            let token =
                described(value, false).ok_or_else(|| wrong(CONFIG, DECODER, value, "a token with its `content`"))?;
            // transformers passes over an empty one.
            if !token.content.is_empty() {
                self.with_ids.push((id, token, CONFIG));
            }
        }
        self.with_ids.sort_by_key(|(id, ..)| *id);
        Ok(())
    }

    fn read_added_tokens(&mut self, tokens: &Map<String, Value>, special: &[&AddedToken]) -> Result<(), TextError> {
        for (content, id) in tokens {
            let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
            let number = number.ok_or_else(|| wrong(ADDED_TOKENS, content, id, "a token id"))?;
            let is_special = special.iter().any(|token| token.content == *content);
            self.with_ids.push((number, AddedToken::from(content.clone(), is_special), ADDED_TOKENS));
        }
        self.with_ids.sort_by_key(|(id, ..)| *id);
        Ok(())
    }

    /// Writes those with ids into a `tokenizer.json` that is made of `tokens`, to be looked for in a text as it is: a space that is
    /// put before each part of a text must not be put before what is looked for. Others than follow the vocabulary are left to
    /// [`SpecialTokens::add_to`], which names them.
    pub fn write_to(&self, json: &mut Value, tokens: &[String]) {
        let Some(added) = json["added_tokens"].as_array_mut() else { return };
        let mut next = tokens.len();
        let known: HashSet<String> =
            added.iter().filter_map(|token| token["content"].as_str()).map(str::to_owned).collect();
        for (id, token, _) in &self.with_ids {
            let is_next = *id as usize == next;
            if known.contains(&token.content) {
                continue;
            }
            if !is_next && tokens.get(*id as usize) != Some(&token.content) {
                break;
            }
            next += usize::from(is_next);
            added.push(json!({
                "id": id, "content": token.content, "single_word": token.single_word, "lstrip": token.lstrip,
                "rstrip": token.rstrip, "normalized": false, "special": token.special,
            }));
        }
    }

    /// Adds what `tokenizer` does not have yet.
    ///
    /// # Errors
    /// A token whose id the tokenizer does not give it.
    pub fn add_to(&self, tokenizer: &mut tokenizers::Tokenizer) -> Result<(), TextError> {
        let listed = tokenizer.get_added_tokens_decoder();
        for (id, token, file) in &self.with_ids {
            // tokenizer.json counts where both have it.
            let known = tokenizer.token_to_id(&token.content);
            let mut token = token.clone();
            let as_it_is = known.and_then(|id| listed.get(&id)).is_some_and(|listed| !listed.normalized);
            if as_it_is && gets_prefix(tokenizer, &token.content) {
                token.normalized = false;
            }
            add(tokenizer, file, &token)?;
            let got = tokenizer.token_to_id(&token.content);
            if known.is_none() && got != Some(*id) {
                let got = got.map_or("none".to_string(), |got| got.to_string());
                let reason = format!(
                    "token {:?} is to have the id {id}, but behind the vocabulary it gets {got}; take all files of the \
                     tokenizer from one place",
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

/// Whether the normaliser puts something before a token, under which it would not be found within a text.
fn gets_prefix(tokenizer: &tokenizers::Tokenizer, content: &str) -> bool {
    let mut text = NormalizedString::from(content);
    let normalizer = tokenizer.get_normalizer();
    let done = normalizer.is_some_and(|normalizer| normalizer.normalize(&mut text).is_ok());
    done && text.get() != content && text.get().ends_with(content)
}

fn add(tokenizer: &mut tokenizers::Tokenizer, file: &'static str, token: &AddedToken) -> Result<(), TextError> {
    let added = tokenizer.add_tokens([token.clone()]);
    added.map(|_| ()).map_err(|error| TextError::TokenizerFile { file, reason: error.to_string() })
}

/// Special tokens beyond [`NAMED`]: those with names of their own, by these, and those of the lists.
///
/// As transformers reads them: in a file, what [`EXTRA`] says hides [`ADDITIONAL`], unless it is empty. A list of the former in the
/// second file is joined to that of the first, one of the latter counts only if the first has none.
fn further<'a>(
    config: &'a Map<String, Value>,
    map: &'a Map<String, Value>,
) -> (Vec<(&'a str, &'a Value)>, Vec<&'a Value>) {
    let is_empty = |value: &Value| match value {
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        value => value.is_null(),
    };
    let (mut extra, mut additional) = (config.get(EXTRA), config.get(ADDITIONAL));
    if extra.is_none_or(is_empty) && additional.is_some() {
        extra = additional.take();
    }
    let mut list: Vec<&Value> = Vec::new();
    let mut objects: Vec<&Map<String, Value>> = Vec::new();
    for value in [extra, map.get(EXTRA)].into_iter().flatten() {
        match value {
            Value::Array(tokens) => list.extend(tokens),
            Value::Object(tokens) => objects.push(tokens),
            _ => {}
        }
    }
    // An object has become names, and no list.
    let has_list = map.get(EXTRA).or(extra).is_some_and(|value| !value.is_object());
    if let (false, Some(Value::Array(tokens))) = (has_list, map.get(ADDITIONAL).or(additional)) {
        list.extend(tokens);
    }
    let named = |file: &'a Map<String, Value>| {
        file.iter().filter(|(key, _)| key.ends_with("_token") && !NAMED.contains(&key.as_str()))
    };
    let described = named(config).filter(|(_, value)| value["__type"] == "AddedToken");
    let of_map = named(map).filter(|(_, value)| value.is_string() || value.is_object());
    let plain = named(config).filter(|(_, value)| value.is_string());
    let mut by_name: Vec<(&str, &Value)> = Vec::new();
    for (key, value) in described.chain(of_map).chain(plain).chain(objects.into_iter().flatten()) {
        match by_name.iter_mut().find(|(name, _)| name == key) {
            Some((_, before)) => *before = value,
            None => by_name.push((key, value)),
        }
    }
    (by_name, list)
}

/// What `tokenizer_config.json` says, and `special_tokens_map.json` where that one counts.
pub(super) fn settings<'a>(read: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Map<String, Value>, TextError> {
    let mut config = object(&read, CONFIG)?;
    if config.get(DECODER).is_none_or(Value::is_null) {
        config.extend(object(&read, SPECIAL_TOKENS_MAP)?);
    }
    Ok(config)
}

/// The JSON object of a file; empty if there is no such file.
fn object<'a>(read: impl Fn(&str) -> Option<&'a [u8]>, file: &'static str) -> Result<Map<String, Value>, TextError> {
    let Some(bytes) = read(file) else { return Ok(Map::new()) };
    let object = json::object(bytes).or_else(|reason| with_damaged_template(bytes).ok_or(reason));
    object.map_err(|reason| TextError::TokenizerFile { file, reason })
}

/// The object of a file in which the template of conversations has half a character, which is of no effect here. None where
/// something else is wrong.
fn with_damaged_template(bytes: &[u8]) -> Option<Map<String, Value>> {
    let object = json::object_with_halves(bytes)?;
    let whole = |(key, value): (&String, &Value)| {
        key == "chat_template" || !value.to_string().contains(char::REPLACEMENT_CHARACTER)
    };
    object.iter().all(whole).then_some(object)
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

    /// The ids are those of transformers 5.24 (`PreTrainedTokenizerFast.from_pretrained` on such folders).
    #[test]
    fn special_tokens_have_other_names_and_stand_in_two_files() {
        let encode = |config: Value, map: Value| {
            open(&[(CONFIG, config), (SPECIAL_TOKENS_MAP, map)]).unwrap().encode("a<i>b<y>").unwrap()
        };
        let none = || json!({});
        let [i, y, plain] = ["<i>", "<y>", "none"].map(|name| match name {
            "<i>" => vec![3, 12, 4, 9, 0, 11],
            "<y>" => vec![3, 9, 0, 11, 4, 12],
            _ => vec![3, 9, 0, 11, 4, 9, 0, 11],
        });
        let (i_then_y, y_then_i) = (vec![3, 12, 4, 13], vec![3, 13, 4, 12]);
        let described = json!({"__type": "AddedToken", "content": "<i>", "lstrip": false, "rstrip": false, "normalized": false,
            "single_word": false});
        for (config, map, expected) in [
            // An empty one hides nothing.
            (json!({EXTRA: {}, ADDITIONAL: ["<y>"]}), none(), &y),
            (json!({EXTRA: [], ADDITIONAL: ["<y>"]}), none(), &y),
            (json!({EXTRA: null, ADDITIONAL: ["<y>"]}), none(), &y),
            (json!({EXTRA: ["<i>"], ADDITIONAL: ["<y>"]}), none(), &i),
            // Names that only some classes have.
            (json!({"image_token": "<i>"}), none(), &i),
            (json!({"image_token": described}), none(), &i),
            (json!({"add_bos_token": true, "image_token": null}), none(), &plain),
            (json!({EXTRA: {"image_token": "<i>"}}), none(), &i),
            (json!({EXTRA: ["<y>"], "image_token": "<i>"}), none(), &i_then_y),
            (none(), json!({ADDITIONAL: ["<y>"], "image_token": "<i>"}), &i_then_y),
            // Lists in both files.
            (json!({ADDITIONAL: ["<y>"]}), json!({ADDITIONAL: ["<i>"]}), &y),
            (json!({EXTRA: ["<y>"]}), json!({ADDITIONAL: ["<i>"]}), &y),
            (json!({EXTRA: ["<y>"]}), json!({EXTRA: ["<i>"]}), &y_then_i),
            (json!({ADDITIONAL: ["<y>"]}), json!({EXTRA: ["<i>"]}), &y_then_i),
            (none(), json!({ADDITIONAL: ["<i>"]}), &i),
            (json!({"added_tokens_decoder": {"12": special("", false)}}), none(), &plain),
        ] {
            assert_eq!(encode(config.clone(), map.clone()), *expected, "{config}, {map}");
        }
    }

    /// The ids are those of transformers 5.24, of the classes named here.
    #[test]
    fn a_class_says_whether_a_space_is_put_before_a_text() {
        let mut file = tokenizer_json();
        let vocab = json!({"a": 0, "\u{120}": 1, "\u{120}a": 2});
        file["model"] = json!({"type": "BPE", "vocab": vocab, "merges": [["\u{120}", "a"]]});
        file["added_tokens"] = json!([]);
        for said in [true, false] {
            file["pre_tokenizer"] =
                json!({"type": "ByteLevel", "add_prefix_space": said, "trim_offsets": true, "use_regex": true});
            for (class, prefix, expected) in [
                ("GPT2Tokenizer", None, false),
                ("GPT2TokenizerFast", Some(true), true),
                ("GPTNeoXTokenizer", Some(false), false),
                ("CodeGenTokenizer", Some(true), true),
                ("Qwen2Tokenizer", None, false),
                ("CohereTokenizer", Some(true), true),
                ("PreTrainedTokenizerFast", Some(true), said),
                ("PreTrainedTokenizerFast", Some(false), said),
            ] {
                let config = json!({"tokenizer_class": class, "add_prefix_space": prefix}).to_string();
                let read = |wanted: &str| (wanted == CONFIG).then_some(config.as_bytes());
                let tokenizer = Tokenizer::from_files(file.to_string().as_bytes(), read).unwrap();
                let expected: &[u32] = if expected { &[2] } else { &[0] };
                assert_eq!(tokenizer.encode("a").unwrap(), expected, "{class}, {prefix:?}, {said}");
                // What is passed on says it, too.
                let again = Tokenizer::from_json(tokenizer.to_json().as_bytes()).unwrap();
                assert_eq!(again.encode("a").unwrap(), expected, "{class}, {prefix:?}, {said}");
            }
        }
        // Within a sequence it would be put before every part.
        file["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [file["pre_tokenizer"]]});
        let config = br#"{"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": true}"#;
        let read = |wanted: &str| (wanted == CONFIG).then_some(&config[..]);
        let error = Tokenizer::from_files(file.to_string().as_bytes(), read).err().unwrap().to_string();
        assert!(error.contains("`add_prefix_space` is false in its pre-tokenizer"), "{error}");
    }

    #[test]
    fn half_a_character_in_the_template_does_no_harm() {
        let encode = |config: &str| {
            let read = |wanted: &str| (wanted == CONFIG).then_some(config.as_bytes());
            Tokenizer::from_files(tokenizer_json().to_string().as_bytes(), read)
                .and_then(|tokenizer| tokenizer.encode("a<i>b"))
        };
        for template in [r"\ud83d x", r"x\\\udc00", r"\ud83d\ud83d\ude00"] {
            let config = format!(r#"{{"image_token": "<i>", "chat_template": "{template}"}}"#);
            assert_eq!(encode(&config).unwrap(), [3, 12, 4], "{template}");
        }
        let error = encode(r#"{"image_token": "\ud83d", "chat_template": "\ud83d x"}"#).unwrap_err().to_string();
        assert!(error.starts_with(CONFIG), "{error}");
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
