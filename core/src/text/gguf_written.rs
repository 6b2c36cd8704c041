//! A tokenizer as the metadata of a GGUF file, as far as such a file can hold it.
//!
//! llama.cpp knows by a name how a byte-level vocabulary splits words. Which one is found by trying: the rules that split texts
//! as the tokenizer does, plain ones all and of awkward ones the most. What comes of it is read back and has to give the
//! tokenizer's own ids; where it does not for awkward texts, that is said, and where it does not for plain ones, the tokenizer is
//! not written.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::gguf_tokenizer::{
    ADD_BOS, ADD_EOS, ADD_SPACE_PREFIX, BOS, CHAT_TEMPLATE, EOS, MERGES, MODEL, PADDING, PRE, SCORES, TOKEN_TYPES,
    TOKENS, UNKNOWN,
};
use super::special_tokens::{self, named};
use super::vocabulary::TokenType;
use super::word_rules::{WORD_RULES, WordRules, Words, words};
use super::{TextError, Tokenizer};
use crate::json;
use crate::model::ModelSpec;
use crate::weights::gguf::{GgufMetadata, StoredValue};

type Entries = Vec<(String, StoredValue)>;

/// What a tokenizer that is none is called.
const NONE: &str = "none";

/// Texts that a file's tokenizer has to turn into the same tokens: contractions in either case, runs of digits and spaces,
/// capitals within words, code, all in ASCII.
pub(super) const PLAIN: [&str; 4] = [
    "The king didn't say 1234567 words; SHE'LL count 12, 345 and 6 of them, won't she? I'M sure we've",
    " leading,  two   three    four spaces \n\n\n and\tlines\r\n  with \t tabs \n end ",
    "HTTPServer camelCase snake_case XMLHttpRequest2 iPhone15 a1b22c333d4444 v1.2.3-rc4",
    "fn main() {\n    let x = vec![1, 2];\n\tprintln!(\"{}\", x.len() * 10_000);\n}\n\n\n",
];

/// Texts that tell the rest apart: scripts with and without cases or spaces, combining marks, symbols, and what lies between them.
/// All in form C, which some tokenizers bring texts to and llama.cpp does not. Some published tokenizers and llama.cpp do not
/// agree on all of them.
pub(super) const AWKWARD: [&str; 10] = [
    "Gr\u{fc}\u{df}e aus K\u{f6}ln \u{2014} \u{ab}d\u{e9}j\u{e0} vu\u{bb} na\u{ef}ve \u{130}stanbul \u{15a}wi\u{119}to \u{41f}\u{440}\u{438}\u{432}\u{435}\u{442}, \u{43c}\u{438}\u{440}! \u{393}\u{3b5}\u{3b9}\u{3ac} 99",
    "\u{4e16}\u{754c}\u{3001}\u{4f60}\u{597d}123\u{3002}\u{3053}\u{3093}\u{306b}\u{3061}\u{306f}\u{30c6}\u{30b9}\u{30c8} \u{c548}\u{b155} \u{d55c}\u{ad6d}\u{c5b4} \u{e2a}\u{e27}\u{e31}\u{e2a}\u{e14}\u{e35}",
    "\u{645}\u{631}\u{62d}\u{628}\u{627} \u{661}\u{662}\u{663} \u{5e9}\u{5dc}\u{5d5}\u{5dd} \u{928}\u{92e}\u{938}\u{94d}\u{924}\u{947} \u{967}\u{968}\u{969} a\u{30b}b x\u{b2}\u{bd} \u{2167}",
    "\u{1f642}\u{1f469}\u{200d}\u{1f4bb} $5+3<=9 ~`^|\\ {[(<>)]} \"quoted\" 'single' #!/bin/sh @user %20 &amp; a/b//c ... !!! ?!",
    "\u{3000}wide\u{a0}space\u{2003}em 's 'S 'lL's ''s don\u{2019}t 3's it'd",
    "\r+123\u{200d}_a_e1234\u{e9}\u{301}\u{bd}\n\n\n\u{4e2d}   123,\u{30a2}\u{c9}\u{20ac}\u{1f642}123\t",
    "def f(x: int) -> str:\n    return f'{x!r}'  # <b>html</b>\n\tif (a && b || !c) { x += 1; }\n\n    }\n",
    "d\n \u{0}\u{2026}9\u{3000}\u{2019}d\u{1f642}\u{e01}-?a\u{6587}\u{663}\u{3042}+\u{a0}\u{20ac}\u{1c5}..a",
    "\r\r\n \r \n\n \t\n\u{b}\u{c} x",
    "\u{2b0}\u{60c}\u{20ac}aS\u{1c5}\n\u{a0}D Sds\u{1f642}\\!\u{c9}\u{2b0}\u{200d}-!  r'LL",
];

/// How the rules that have names split both kinds of texts. Compiling their expressions takes most of the time of writing a
/// tokenizer.
static NAMED: LazyLock<Vec<(&WordRules, Splits)>> = LazyLock::new(|| {
    let splits = |rules: &'static WordRules| Some((rules, splits(&rules.pre_tokenizer())?));
    WORD_RULES.iter().filter_map(splits).collect()
});

/// The words of the plain texts, and of the awkward ones.
type Splits = [Vec<Words>; 2];

fn splits(pre_tokenizer: &Value) -> Option<Splits> {
    let mut plain = words(pre_tokenizer, &[&PLAIN[..], &AWKWARD].concat())?;
    let awkward = plain.split_off(PLAIN.len());
    Some([plain, awkward])
}

/// The rules that split plain texts as a tokenizer.json's `pre_tokenizer` does, and how many of the awkward ones.
fn splitting_as(pre_tokenizer: &Value) -> Vec<(usize, &'static WordRules)> {
    let Some([plain, awkward]) = splits(pre_tokenizer) else { return Vec::new() };
    if plain.contains(&None) {
        return Vec::new();
    }
    let same = NAMED.iter().filter(|(_, [other, _])| *other == plain);
    let alike = |other: &[Words]| other.iter().zip(&awkward).filter(|(a, b)| a == b).count();
    same.map(|(rules, [_, other])| (alike(other), *rules)).collect()
}

/// The entries of a tokenizer for a model, and what is to be said where they are not all that it is. `read` has the files beside
/// it.
pub(crate) fn gguf_entries<'a>(
    tokenizer: Option<&Tokenizer>,
    read: impl Fn(&str) -> Option<&'a [u8]>,
    spec: &ModelSpec,
) -> (Entries, Option<String>) {
    let written = match tokenizer {
        None => Err("there is none".to_string()),
        Some(tokenizer) => match special_tokens::settings(&read) {
            Ok(config) => Source { tokenizer, config, spec }.entries(),
            Err(error) => Err(error.to_string()),
        },
    };
    let (mut entries, note) = match written {
        Ok((entries, true)) => (entries, None),
        Ok((entries, false)) => {
            let note = "llama.cpp makes other tokens of some texts than the model's own tokenizer does, of scripts or signs beyond \
                        ASCII";
            (entries, Some(note.to_string()))
        }
        Err(reason) => {
            let note = format!("the tokenizer is not in the file, which is one of token ids alone: {reason}");
            let mut entries = vec![text(MODEL, NONE)];
            let ids = [(BOS, spec.bos_token_id), (EOS, spec.eos_token_ids.first().copied())];
            entries.extend(ids.into_iter().filter_map(|(key, id)| Some((key.to_string(), StoredValue::U32(id?)))));
            (entries, Some(note))
        }
    };
    if entries.first() != Some(&text(MODEL, NONE))
        && let Some(template) = chat_template(&read)
    {
        entries.push(text(CHAT_TEMPLATE, &template));
    }
    (entries, note)
}

fn text(key: &str, value: &str) -> (String, StoredValue) {
    (key.to_string(), StoredValue::String(value.to_string()))
}

/// The template of conversations: in a file of its own, or in tokenizer_config.json, where it may be one of several.
fn chat_template<'a>(read: impl Fn(&str) -> Option<&'a [u8]>) -> Option<String> {
    if let Some(bytes) = read("chat_template.jinja") {
        return std::str::from_utf8(bytes).ok().map(str::to_string);
    }
    let config = json::object(read(special_tokens::CONFIG)?).ok()?;
    match config.get("chat_template")? {
        Value::String(template) => Some(template.clone()),
        Value::Array(templates) => {
            let default = templates.iter().find(|template| template["name"] == "default")?;
            default["template"].as_str().map(str::to_string)
        }
        _ => None,
    }
}

struct Source<'a> {
    tokenizer: &'a Tokenizer,
    /// What tokenizer_config.json says.
    config: Map<String, Value>,
    spec: &'a ModelSpec,
}

/// So many names are tried of those that split alike.
const TRIED: usize = 4;

impl Source<'_> {
    /// The entries, and whether they give the same tokens of awkward texts, too.
    fn entries(&self) -> Result<(Entries, bool), String> {
        let file: Value = serde_json::from_str(&self.tokenizer.to_json()).map_err(|error| error.to_string())?;
        let model = &file["model"];
        let kind = model["type"].as_str().unwrap_or("BPE");
        if kind != "BPE" {
            return Err(format!("it is a {kind} model, and llama.cpp runs BPE in models of text"));
        }
        let merges = merges(model);
        let tokens = self.tokens()?;
        let common = self.common(&tokens)?;
        if is_byte_level(&file["pre_tokenizer"]) {
            return self.byte_level(&file, &tokens, merges, &common);
        }
        let types = self.types(&tokens, Some(model));
        let scores = StoredValue::F32s(scores(&tokens, &types, &merges));
        let mut candidates = Vec::new();
        for prefix in [true, false] {
            let mut entries = vec![text(MODEL, "llama"), text(PRE, "default")];
            entries.extend(vocabulary(&tokens, &types));
            entries.push((SCORES.to_string(), scores.clone()));
            entries.extend(common.iter().cloned());
            entries.push((ADD_SPACE_PREFIX.to_string(), StoredValue::Bool(prefix)));
            candidates.push(entries);
        }
        self.first_that_reads_back(candidates)
    }

    fn byte_level(
        &self,
        file: &Value,
        tokens: &[Option<String>],
        merges: Vec<(String, String)>,
        common: &Entries,
    ) -> Result<(Entries, bool), String> {
        let merges: Vec<String> = merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
        let whole_words = file["model"]["ignore_merges"].as_bool().unwrap_or(false);
        let mut rules = splitting_as(&file["pre_tokenizer"]);
        if rules.is_empty() {
            return Err("llama.cpp has no name for how it splits words".to_string());
        }
        rules.sort_by_key(|(alike, rules)| (std::cmp::Reverse(*alike), rules.whole_words != whole_words));
        let types = self.types(tokens, None);
        let candidates = rules.into_iter().take(TRIED).map(|(_, rules)| {
            let mut entries = vec![text(MODEL, "gpt2"), text(PRE, rules.names[0])];
            entries.extend(vocabulary(tokens, &types));
            entries.push((MERGES.to_string(), StoredValue::Strings(merges.clone())));
            entries.extend(common.iter().cloned());
            entries
        });
        self.first_that_reads_back(candidates)
    }

    /// The first that gives the same ids of all texts, or else of plain ones.
    fn first_that_reads_back(&self, candidates: impl IntoIterator<Item = Entries>) -> Result<(Entries, bool), String> {
        let mut plain = None;
        for entries in candidates {
            match self.reads_back(&entries) {
                (true, true) => return Ok((entries, true)),
                (true, false) if plain.is_none() => plain = Some((entries, false)),
                _ => {}
            }
        }
        plain.ok_or_else(|| "llama.cpp would make other tokens of plain texts".to_string())
    }

    /// The tokens by their ids, one for each row of the embedding; None where there is none.
    fn tokens(&self) -> Result<Vec<Option<String>>, String> {
        let rows = self.spec.vocab_size;
        let mut tokens = vec![None; rows];
        for (token, id) in self.tokenizer.vocabulary() {
            match tokens.get_mut(id as usize) {
                Some(place) => *place = Some(token),
                None => return Err(format!("token {token:?} has the id {id}, and the embedding {rows} rows")),
            }
        }
        Ok(tokens)
    }

    /// The type of every token; those of SentencePiece by its model.
    fn types(&self, tokens: &[Option<String>], sentence_piece: Option<&Value>) -> Vec<TokenType> {
        let added = self.tokenizer.added_tokens();
        let unknown = sentence_piece.and_then(|model| model["unk_token"].as_str());
        let bytes = sentence_piece.is_some_and(|model| model["byte_fallback"].as_bool().unwrap_or(false));
        let kind = |(id, token): (usize, &Option<String>)| match token.as_deref() {
            None => TokenType::Unused,
            token if token == unknown => TokenType::Unknown,
            Some(token) if bytes && is_byte(token) => TokenType::Byte,
            Some(_) => match added.get(&(id as u32)) {
                None => TokenType::Normal,
                Some(true) => TokenType::Control,
                Some(false) => TokenType::UserDefined,
            },
        };
        tokens.iter().enumerate().map(kind).collect()
    }

    /// The special tokens, and which of them are put around a text.
    fn common(&self, tokens: &[Option<String>]) -> Result<Entries, String> {
        let ids: HashMap<&str, u32> =
            (0..).zip(tokens).filter_map(|(id, token)| Some((token.as_deref()?, id))).collect();
        let id = |key: &str| named(&self.config, key).and_then(|token| ids.get(token).copied());
        let known = |id: &u32| (*id as usize) < tokens.len();
        let bos = id("bos_token").or(self.spec.bos_token_id.filter(known));
        let eos = id("eos_token").or(self.spec.eos_token_ids.first().copied().filter(known));
        let around = |place: &str, added: &[u32], id: Option<u32>| match added {
            [] => Ok((id, false)),
            [one] => Ok((Some(*one), true)),
            many => Err(format!("it puts {} tokens {place} a text", many.len())),
        };
        let (bos, add_bos) = around("before", self.tokenizer.prefix(), bos)?;
        let (eos, add_eos) = around("behind", self.tokenizer.suffix(), eos)?;
        let special = [(BOS, bos), (EOS, eos), (UNKNOWN, id("unk_token")), (PADDING, id("pad_token"))];
        let special = special.into_iter().filter_map(|(key, id)| Some((key.to_string(), StoredValue::U32(id?))));
        let flags = [(ADD_BOS, add_bos), (ADD_EOS, add_eos)];
        let flags = flags.map(|(key, flag)| (key.to_string(), StoredValue::Bool(flag)));
        Ok(special.chain(flags).collect())
    }

    /// Whether the tokenizer that these entries say gives the same ids of plain texts, and of awkward ones.
    fn reads_back(&self, entries: &Entries) -> (bool, bool) {
        let values = entries.iter().filter_map(|(key, value)| Some((key.clone(), value.value()?)));
        let read: Result<Tokenizer, TextError> = Tokenizer::from_gguf(&GgufMetadata::new("tokenizer", values));
        let Ok(read) = read else { return (false, false) };
        let agree = |text: &&str| match (read.encode(text), self.tokenizer.encode(text)) {
            (Ok(found), Ok(wanted)) => found == wanted,
            _ => false,
        };
        (PLAIN.iter().all(agree), AWKWARD.iter().all(agree))
    }
}

/// Tokens and types. A row of the embedding without a token gets a name that no text has.
fn vocabulary(tokens: &[Option<String>], types: &[TokenType]) -> [(String, StoredValue); 2] {
    let name = |(id, token): (usize, &Option<String>)| token.clone().unwrap_or_else(|| format!("[PAD{id}]"));
    let names = tokens.iter().enumerate().map(name).collect();
    let numbers = types.iter().map(|kind| kind.number()).collect();
    [(TOKENS.to_string(), StoredValue::Strings(names)), (TOKEN_TYPES.to_string(), StoredValue::I32s(numbers))]
}

/// The merges, in the spelling of older or of newer files.
fn merges(model: &Value) -> Vec<(String, String)> {
    let pair = |merge: &Value| match merge {
        Value::String(merge) => merge.split_once(' ').map(|(left, right)| (left.to_string(), right.to_string())),
        _ => Some((merge[0].as_str()?.to_string(), merge[1].as_str()?.to_string())),
    };
    model["merges"].as_array().into_iter().flatten().filter_map(pair).collect()
}

/// SentencePiece scores that lead to these merges: a piece that is made earlier is the better one. Pieces of one character, which
/// nothing makes, come last.
fn scores(tokens: &[Option<String>], types: &[TokenType], merges: &[(String, String)]) -> Vec<f32> {
    let mut ranks: HashMap<String, usize> = HashMap::new();
    for (rank, (left, right)) in merges.iter().enumerate() {
        ranks.entry(format!("{left}{right}")).or_insert(rank);
    }
    let score = |((id, token), kind): ((usize, &Option<String>), &TokenType)| match (token, kind) {
        (Some(token), TokenType::Normal) => {
            let rank = ranks.get(token).copied().unwrap_or(merges.len() + id);
            -(rank as f32) - 1.0
        }
        _ => 0.0,
    };
    tokens.iter().enumerate().zip(types).map(score).collect()
}

/// Whether it is the name of a byte: `<0x0A>`.
fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

/// Whether a pre-tokenizer turns text into bytes, itself or in one of its steps.
fn is_byte_level(pre_tokenizer: &Value) -> bool {
    let steps = pre_tokenizer["pretokenizers"].as_array();
    pre_tokenizer["type"] == "ByteLevel" || steps.is_some_and(|steps| steps.iter().any(is_byte_level))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use serde_json::json;

    use super::*;
    use crate::weights::gguf::{MetadataArray, MetadataValue};

    /// What llama.cpp makes of texts by every name of rules; see `tests/reference/llama_cpp_ids.py`.
    fn reference() -> Value {
        serde_json::from_slice(&std::fs::read("../tests/reference/llama_cpp_ids.json").unwrap()).unwrap()
    }

    fn texts(reference: &Value) -> Vec<String> {
        serde_json::from_value(reference["texts"].clone()).unwrap()
    }

    fn spec(vocab_size: usize) -> ModelSpec {
        let config = json!({
            "model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 2, "vocab_size": vocab_size, "bos_token_id": 0, "eos_token_id": [1, 2],
        });
        ModelSpec::from_config(config.as_object().unwrap()).unwrap()
    }

    fn strings(values: &Value) -> MetadataValue {
        MetadataValue::Array(MetadataArray::String(serde_json::from_value(values.clone()).unwrap()))
    }

    fn integers(values: &Value) -> MetadataValue {
        MetadataValue::Array(MetadataArray::Signed(serde_json::from_value(values.clone()).unwrap()))
    }

    fn tokenizer(entries: Vec<(&str, MetadataValue)>) -> Tokenizer {
        let entries = entries.into_iter().map(|(key, value)| (key.to_string(), value));
        Tokenizer::from_gguf(&GgufMetadata::new("m.gguf", entries)).unwrap()
    }

    /// What is read of entries that were written.
    fn read(entries: &Entries) -> Tokenizer {
        let values = entries.iter().map(|(key, value)| (key.clone(), value.value().unwrap()));
        Tokenizer::from_gguf(&GgufMetadata::new("written.gguf", values)).unwrap()
    }

    fn value<'a>(entries: &'a Entries, key: &str) -> &'a StoredValue {
        &entries.iter().find(|(other, _)| other == key).unwrap().1
    }

    #[test]
    fn every_way_to_split_words_is_found_again() {
        let reference = reference();
        let (texts, byte_level) = (texts(&reference), &reference["byte_level"]);
        for group in reference["groups"].as_array().unwrap() {
            let name = group["names"][0].as_str().unwrap();
            let source = tokenizer(vec![
                (MODEL, MetadataValue::String("gpt2".into())),
                (PRE, MetadataValue::String(name.into())),
                (TOKENS, strings(&byte_level["tokens"])),
                (TOKEN_TYPES, integers(&byte_level["types"])),
                (MERGES, strings(&byte_level["merges"])),
                (BOS, MetadataValue::Unsigned(0)),
                (EOS, MetadataValue::Unsigned(1)),
            ]);
            let tokens = byte_level["tokens"].as_array().unwrap().len();
            let (entries, note) = gguf_entries(Some(&source), |_| None, &spec(tokens + 3));
            assert_eq!(note, None, "{name}");
            let again = read(&entries);
            for text in &texts {
                assert_eq!(again.encode(text).unwrap(), source.encode(text).unwrap(), "{name}: {text:?}");
            }
            let StoredValue::Strings(names) = value(&entries, TOKENS) else { panic!("{name}") };
            assert_eq!((names.len(), names[tokens].clone()), (tokens + 3, format!("[PAD{tokens}]")));
            // What no row is for has no place.
            let (entries, note) = gguf_entries(Some(&source), |_| None, &spec(tokens - 1));
            assert_eq!(value(&entries, MODEL), &StoredValue::String(NONE.into()));
            assert!(note.unwrap().contains(&format!("the embedding {} rows", tokens - 1)));
        }
    }

    #[test]
    fn published_pre_tokenizers_have_their_names() {
        let bytes = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
        let sequence = |steps: [Value; 2]| json!({"type": "Sequence", "pretokenizers": steps});
        let split = |regex: &str| {
            let pattern = json!({"Regex": regex});
            let split = json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false});
            sequence([split, bytes(false)])
        };
        // As the tokenizer.json files of Llama 3 and Qwen2 spell it.
        let words = |digits: &str| {
            format!(
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
            )
        };
        let digits = json!({"type": "Digits", "individual_digits": true});
        for (pre_tokenizer, name) in [
            (bytes(true), "gpt-2"),
            (sequence([digits, bytes(true)]), "smollm"),
            (split(&words(r"\p{N}{1,3}")), "llama-bpe"),
            (split(&words(r"\p{N}")), "qwen2"),
        ] {
            let rules = splitting_as(&pre_tokenizer);
            let most = rules.iter().map(|(alike, _)| *alike).max().unwrap();
            assert!(rules.iter().any(|(alike, rules)| rules.names[0] == name && *alike == most), "{name}: {rules:?}");
        }
        let none = split("[aeiou]");
        assert!(splitting_as(&none).is_empty() && is_byte_level(&none));
    }

    #[test]
    fn sentence_piece_keeps_its_ids_and_its_space() {
        let reference = reference();
        let (texts, model) = (texts(&reference), &reference["sentence_piece"]);
        let scores: Vec<f64> = serde_json::from_value(model["scores"].clone()).unwrap();
        for prefix in [true, false] {
            let source = tokenizer(vec![
                (MODEL, MetadataValue::String("llama".into())),
                (TOKENS, strings(&model["tokens"])),
                (TOKEN_TYPES, integers(&model["types"])),
                (SCORES, MetadataValue::Array(MetadataArray::Float(scores.clone()))),
                (ADD_SPACE_PREFIX, MetadataValue::Bool(prefix)),
            ]);
            let files = [("tokenizer_config.json", br#"{"eos_token": "</s>", "chat_template": "{{ x }}"}"#.as_slice())];
            let find = |name: &str| files.iter().find(|(file, _)| *file == name).map(|(_, bytes)| *bytes);
            let (entries, note) = gguf_entries(Some(&source), find, &spec(scores.len()));
            assert_eq!(note, None, "prefix {prefix}");
            assert_eq!(value(&entries, ADD_SPACE_PREFIX), &StoredValue::Bool(prefix));
            assert_eq!(value(&entries, ADD_BOS), &StoredValue::Bool(true));
            assert_eq!(value(&entries, CHAT_TEMPLATE), &StoredValue::String("{{ x }}".into()));
            assert_eq!(
                value(&entries, TOKEN_TYPES),
                &StoredValue::I32s(serde_json::from_value(model["types"].clone()).unwrap())
            );
            let again = read(&entries);
            for text in &texts {
                assert_eq!(again.encode(text).unwrap(), source.encode(text).unwrap(), "prefix {prefix}: {text:?}");
            }
        }
    }

    #[test]
    fn what_llama_cpp_does_not_run_is_left_out_with_a_reason() {
        let words = json!({
            "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
            "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"},
        });
        let source = Tokenizer::from_json(words.to_string().as_bytes()).unwrap();
        for (tokenizer, reason) in [(None, "there is none"), (Some(&source), "it is a WordLevel model")] {
            let (entries, note) = gguf_entries(tokenizer, |_| None, &spec(4));
            assert!(note.as_ref().unwrap().contains(reason), "{note:?}");
            let expected =
                [text(MODEL, NONE), (BOS.to_string(), StoredValue::U32(0)), (EOS.to_string(), StoredValue::U32(1))];
            assert_eq!(entries, expected);
        }
    }
}
