//! The tokenizer inside a GGUF file.
//!
//! GGUF keeps a vocabulary and a few flags under `tokenizer.ggml.*`, and a name (`tokenizer.ggml.pre`) instead of the
//! rules that split a text into words (`word_rules.rs`). Names, defaults and token types are llama.cpp's
//! (`src/llama-vocab.cpp`).

use serde_json::{Map, Value, json};

use super::TextError;
use super::vocabulary::{Merging, Origin, Part, Prefix, Spaces, TokenType, Vocabulary};
use super::word_rules::WordRules;
use crate::weights::gguf::GgufMetadata;

pub(super) const MODEL: &str = "tokenizer.ggml.model";
pub(super) const PRE: &str = "tokenizer.ggml.pre";
pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
pub(super) const TOKEN_TYPES: &str = "tokenizer.ggml.token_type";
pub(super) const SCORES: &str = "tokenizer.ggml.scores";
pub(super) const MERGES: &str = "tokenizer.ggml.merges";
pub(super) const BOS: &str = "tokenizer.ggml.bos_token_id";
pub(super) const EOS: &str = "tokenizer.ggml.eos_token_id";
pub(super) const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
pub(super) const PADDING: &str = "tokenizer.ggml.padding_token_id";
pub(super) const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
pub(super) const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
pub(super) const ADD_SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";
pub(super) const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

/// Tokens that end a text: control tokens to llama.cpp, whatever type a file gives them.
const END_TOKENS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
    "[e~[",
];

/// Tokens for filling in code, of which those of a line stand for the same: control tokens to llama.cpp, too, unless one of the keys
/// says which it is.
const FILL_TOKENS: &[(&[&str], &[&str])] = &[
    (
        &["tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id"],
        &[
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<\u{ff5c}fim\u{2581}begin\u{ff5c}>",
            "<PRE>",
            "\u{2581}<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ],
    ),
    (
        &["tokenizer.ggml.fim_suf_token_id", "tokenizer.ggml.suffix_token_id"],
        &[
            "<|fim_suffix|>",
            "<fim-suffix>",
            "<fim_suffix>",
            "<\u{ff5c}fim\u{2581}hole\u{ff5c}>",
            "<SUF>",
            "\u{2581}<SUF>",
            "<|code_suffix|>",
            "<|suffix|>",
        ],
    ),
    (
        &["tokenizer.ggml.fim_mid_token_id", "tokenizer.ggml.middle_token_id"],
        &[
            "<|fim_middle|>",
            "<fim-middle>",
            "<fim_middle>",
            "<\u{ff5c}fim\u{2581}end\u{ff5c}>",
            "<MID>",
            "\u{2581}<MID>",
            "<|code_middle|>",
            "<|middle|>",
        ],
    ),
    (&["tokenizer.ggml.fim_pad_token_id"], &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"]),
    (&["tokenizer.ggml.fim_rep_token_id"], &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"]),
    (&["tokenizer.ggml.fim_sep_token_id"], &["<|file_sep|>"]),
];

/// Marks of gpt-oss, which are user-defined to llama.cpp, whatever type a file gives them.
const MARKS: &[&str] = &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// What the names of models hold whose special tokens take the white space behind them, but for [`KEEP_SPACES`].
const PHI3: [&str; 2] = ["phi-3", "phi3"];
const KEEP_SPACES: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];

/// A GGUF file's tokenizer metadata, checked.
pub(super) struct GgufTokenizer {
    file: String,
    vocabulary: Vocabulary,
    padding: Option<usize>,
    chat_template: Option<String>,
    context_length: Option<u64>,
}

impl GgufTokenizer {
    /// Reads the metadata.
    ///
    /// # Errors
    /// [`TextError::Gguf`] naming the key that is missing, of the wrong kind, or not supported.
    pub(super) fn read(metadata: &GgufMetadata) -> Result<Self, TextError> {
        let tokens = tokens(metadata)?;
        let id = |key, default| token_id(metadata, key, default, tokens.len());
        let model = metadata.require_string(MODEL)?;
        let (merging, add_bos, defaults) = match model {
            "gpt2" => {
                let rules = word_rules(metadata)?;
                let merges = metadata.require_strings(MERGES)?.to_vec();
                (Merging::ByteLevel { rules, merges }, rules.add_bos, [None; 3])
            }
            "llama" => {
                let scores = scores(metadata, tokens.len())?;
                let prefix = match metadata.bool(ADD_SPACE_PREFIX)? {
                    Some(false) => Prefix::None,
                    _ => Prefix::Every,
                };
                let spaces = Spaces { prefix, ..Spaces::default() };
                (Merging::SentencePiece { scores, spaces, of: Origin::Gguf }, true, [Some(1), Some(2), Some(0)])
            }
            other => {
                return Err(refuse(
                    metadata.file(),
                    MODEL,
                    format!("`{other}` is not supported (supported: gpt2, llama)"),
                ));
            }
        };
        let [bos, eos, unknown] = defaults;
        let special = [id(BOS, bos)?, id(EOS, eos)?, id(UNKNOWN, unknown)?, id(PADDING, None)?];
        let [bos, eos, unknown, padding] = special;
        let types = token_types(metadata, &tokens, &special)?;
        let vocabulary = Vocabulary {
            merging,
            strips_behind: strips_behind(metadata, &tokens, &types)?,
            types,
            bos,
            eos,
            unknown,
            add_bos: metadata.bool(ADD_BOS)?.unwrap_or(add_bos),
            add_eos: metadata.bool(ADD_EOS)?.unwrap_or(false),
            tokens,
        };
        Ok(Self {
            file: metadata.file().to_owned(),
            vocabulary,
            padding,
            chat_template: metadata.string(CHAT_TEMPLATE)?.map(str::to_owned),
            context_length: metadata.unsigned(&format!("{}.context_length", metadata.architecture()))?,
        })
    }

    /// The content of `tokenizer.json`.
    pub(super) fn tokenizer_json(&self) -> Result<Value, TextError> {
        self.vocabulary.tokenizer_json().map_err(|problem| {
            let (key, flag) = match problem.part {
                Part::Tokens => (TOKENS, ""),
                Part::Merges => (MERGES, ""),
                Part::Bos => (BOS, ADD_BOS),
                Part::Eos => (EOS, ADD_EOS),
            };
            let flag = if flag.is_empty() { String::new() } else { format!(" (`{flag}`)") };
            refuse(&self.file, key, problem.reason + &flag)
        })
    }

    /// The content of `tokenizer_config.json`.
    pub(super) fn tokenizer_config(&self) -> Map<String, Value> {
        let vocabulary = &self.vocabulary;
        let mut config = Map::new();
        let mut set = |name: &str, value: Value| {
            config.insert(name.to_owned(), value);
        };
        set("tokenizer_class", json!("PreTrainedTokenizerFast"));
        set("add_bos_token", json!(vocabulary.add_bos));
        set("add_eos_token", json!(vocabulary.add_eos));
        let special = [
            ("bos_token", vocabulary.bos),
            ("eos_token", vocabulary.eos),
            ("unk_token", vocabulary.unknown),
            ("pad_token", self.padding),
        ];
        for (name, id) in special {
            if let Some(token) = id.and_then(|id| vocabulary.tokens.get(id)) {
                set(name, json!(token));
            }
        }
        set("clean_up_tokenization_spaces", json!(false));
        if let Some(length) = self.context_length {
            set("model_max_length", json!(length));
        }
        if let Some(template) = &self.chat_template {
            set("chat_template", json!(template));
        }
        config
    }
}

fn word_rules(metadata: &GgufMetadata) -> Result<&'static WordRules, TextError> {
    let name = metadata.string(PRE)?.unwrap_or_else(|| {
        tracing::warn!("{}: `{PRE}` is missing; words are split by llama.cpp's default rules", metadata.file());
        "default"
    });
    WordRules::named(name).ok_or_else(|| {
        let reason = format!("the pre-tokenizer `{name}` is not supported (supported: {})", WordRules::known());
        refuse(metadata.file(), PRE, reason)
    })
}

fn tokens(metadata: &GgufMetadata) -> Result<Vec<String>, TextError> {
    let mut tokens = metadata.require_strings(TOKENS)?.to_vec();
    for (id, token) in tokens.iter_mut().enumerate().filter(|(_, token)| token.is_empty()) {
        // The name that llama.cpp gives it; an empty token cannot be matched.
        *token = format!("[EMPTY_{id}]");
    }
    Ok(tokens)
}

/// The type of every token. A file without types still has its special tokens, and some are known by their text.
fn token_types(
    metadata: &GgufMetadata,
    tokens: &[String],
    special: &[Option<usize>],
) -> Result<Vec<TokenType>, TextError> {
    let mut types: Vec<TokenType> = match metadata.integers(TOKEN_TYPES)? {
        Some(numbers) => {
            check_count(metadata, TOKEN_TYPES, numbers.len(), tokens.len())?;
            numbers.into_iter().take(tokens.len()).map(TokenType::from_number).collect()
        }
        None => {
            let kind = |id| if special.contains(&Some(id)) { TokenType::Control } else { TokenType::Normal };
            (0..tokens.len()).map(kind).collect()
        }
    };
    let mut control = END_TOKENS.to_vec();
    for (keys, names) in FILL_TOKENS {
        let mut named = false;
        for key in *keys {
            named |= token_id(metadata, key, None, tokens.len())?.is_some();
        }
        if !named {
            control.extend(*names);
        }
    }
    for (kind, token) in types.iter_mut().zip(tokens) {
        let token = token.as_str();
        *kind = match *kind {
            _ if MARKS.contains(&token) => TokenType::UserDefined,
            TokenType::UserDefined => TokenType::UserDefined,
            _ if control.contains(&token) => TokenType::Control,
            // Bytes are what they are called.
            TokenType::Normal | TokenType::Unused | TokenType::Byte if is_byte(token) => TokenType::Byte,
            TokenType::Byte => TokenType::Normal,
            other => other,
        };
    }
    Ok(types)
}

/// Whether a token is written `<0x0A>`.
fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|token| token.strip_suffix('>'));
    digits.is_some_and(|digits| {
        digits.len() == 2 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F'))
    })
}

/// The tokens that take the white space behind them, which llama.cpp tells by the name of the model.
fn strips_behind(metadata: &GgufMetadata, tokens: &[String], types: &[TokenType]) -> Result<Vec<usize>, TextError> {
    let name = metadata.string("general.name")?.unwrap_or_default().to_lowercase();
    if !PHI3.iter().any(|part| name.contains(part)) {
        return Ok(Vec::new());
    }
    let strips = |(_, (token, kind)): &(usize, (&String, &TokenType))| {
        let special = matches!(kind, TokenType::Control | TokenType::Unknown | TokenType::UserDefined);
        special && !KEEP_SPACES.contains(&token.as_str())
    };
    Ok(tokens.iter().zip(types).enumerate().filter(strips).map(|(id, _)| id).collect())
}

fn scores(metadata: &GgufMetadata, count: usize) -> Result<Vec<f64>, TextError> {
    let scores = metadata.floats(SCORES)?.ok_or_else(|| refuse(metadata.file(), SCORES, "is missing".into()))?;
    check_count(metadata, SCORES, scores.len(), count)?;
    Ok(scores.to_vec())
}

/// More than there are tokens do no harm: some files are padded.
fn check_count(metadata: &GgufMetadata, key: &str, found: usize, expected: usize) -> Result<(), TextError> {
    if found >= expected {
        return Ok(());
    }
    Err(refuse(metadata.file(), key, format!("has {found} entries, expected {expected}, one for each of `{TOKENS}`")))
}

/// A special token's id. One outside the vocabulary counts as not given, as in llama.cpp: converters write such ids
/// for tokens that a model does not have.
fn token_id(
    metadata: &GgufMetadata,
    key: &str,
    default: Option<usize>,
    count: usize,
) -> Result<Option<usize>, TextError> {
    let default = default.filter(|&id| id < count);
    let Some(number) = metadata.unsigned(key)? else {
        return Ok(default);
    };
    let id = usize::try_from(number).ok().filter(|&id| id < count);
    if id.is_none() {
        tracing::warn!("{}: `{key}` is {number}, but there are {count} tokens; it is ignored", metadata.file());
    }
    Ok(id.or(default))
}

fn refuse(file: &str, key: &str, reason: String) -> TextError {
    TextError::Gguf { file: file.to_owned(), key: key.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::super::Tokenizer;
    use super::*;
    use crate::weights::gguf::{MetadataArray, MetadataValue};

    type Entries = Vec<(&'static str, MetadataValue)>;

    fn string(value: &str) -> MetadataValue {
        MetadataValue::String(value.to_owned())
    }

    fn strings(values: &[&str]) -> MetadataValue {
        MetadataValue::Array(MetadataArray::String(values.iter().map(|value| (*value).to_owned()).collect()))
    }

    fn integers(values: &[i64]) -> MetadataValue {
        MetadataValue::Array(MetadataArray::Signed(values.to_vec()))
    }

    fn floats(values: &[f64]) -> MetadataValue {
        MetadataValue::Array(MetadataArray::Float(values.to_vec()))
    }

    fn build(entries: &Entries) -> Result<Tokenizer, TextError> {
        let entries = entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        Tokenizer::from_gguf(&GgufMetadata::new("m.gguf", entries))
    }

    fn set(entries: &mut Entries, key: &'static str, value: MetadataValue) {
        entries.retain(|(name, _)| *name != key);
        entries.push((key, value));
    }

    fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
        tokenizer.encode(text).unwrap()
    }

    /// `<|end|>`, `<u>`, then the letters, digits, a space (U+0120) and three merged tokens.
    fn byte_level(pre: &str) -> Entries {
        let tokens = ["<|end|>", "<u>", "a", "b", "1", "2", "\u{120}", "ab", "\u{120}ab", "12", "aba"];
        vec![
            ("general.architecture", string("llama")),
            ("llama.context_length", MetadataValue::Unsigned(512)),
            (MODEL, string("gpt2")),
            (PRE, string(pre)),
            (TOKENS, strings(&tokens)),
            (TOKEN_TYPES, integers(&[3, 4, 1, 1, 1, 1, 1, 1, 1, 1, 1])),
            (MERGES, strings(&["a b", "\u{120} ab", "1 2"])),
            (BOS, MetadataValue::Unsigned(0)),
            (EOS, MetadataValue::Unsigned(0)),
        ]
    }

    #[test]
    fn byte_level_merges_in_words() {
        let tokenizer = build(&byte_level("gpt-2")).unwrap();
        assert_eq!(ids(&tokenizer, "ab ab12"), [7, 8, 9]);
        assert_eq!(ids(&tokenizer, "aba"), [7, 2]);
        assert_eq!(tokenizer.vocab_size(), 11);
        assert_eq!(tokenizer.decode(&[7, 8, 9, 0]).unwrap(), "ab ab12");
    }

    #[test]
    fn control_and_user_defined_tokens_are_found_in_the_text() {
        let tokenizer = build(&byte_level("gpt-2")).unwrap();
        assert_eq!(ids(&tokenizer, "a<|end|>b<u>ab"), [2, 0, 3, 1, 7]);
        assert_eq!(tokenizer.decode(&[2, 0, 1]).unwrap(), "a<u>");
    }

    #[test]
    fn the_pre_tokenizer_decides_how_digits_split_and_whether_words_are_taken_whole() {
        assert_eq!(ids(&build(&byte_level("smollm")).unwrap(), "ab12"), [7, 4, 5]);
        assert_eq!(ids(&build(&byte_level("qwen2")).unwrap(), "ab12"), [7, 4, 5]);
        // BOS first, and `aba` whole although no merge builds it.
        assert_eq!(ids(&build(&byte_level("llama-bpe")).unwrap(), "aba12"), [0, 10, 9]);
        assert_eq!(ids(&build(&byte_level("tekken")).unwrap(), "aba12"), [0, 10, 4, 5]);
        let mut unnamed = byte_level("gpt-2");
        unnamed.retain(|(key, _)| *key != PRE);
        assert_eq!(ids(&build(&unnamed).unwrap(), "ab ab12"), [7, 8, 9]);
    }

    /// Where each rule splits a text, seen through the letters that its words become.
    #[test]
    fn every_pre_tokenizer_splits_as_its_models_do() {
        use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, PreTokenizerWrapper};
        let split = |name: &str, text: &str| {
            let rules = WordRules::named(name).unwrap();
            let steps: PreTokenizerWrapper = serde_json::from_value(rules.pre_tokenizer()).unwrap();
            let mut words = PreTokenizedString::from(text);
            steps.pre_tokenize(&mut words).unwrap();
            let offsets = words.get_splits(OffsetReferential::Original, OffsetType::Byte);
            offsets.into_iter().map(|(_, (from, to), _)| &text[from..to]).collect::<Vec<_>>().join("|")
        };
        let text = "I'LL see 12345  Dogs' tails\n\n he's/done...";
        let gpt2 = "I|'|LL| see| 12345| | Dogs|'| tails|\n\n| he|'s|/|done|...";
        assert_eq!(split("gpt-2", text), gpt2);
        for name in ["smollm", "starcoder", "refact", "command-r"] {
            assert_eq!(split(name, text), gpt2.replace(" 12345", " |1|2|3|4|5"), "{name}");
        }
        for name in ["llama-bpe", "llama3", "llama-v3"] {
            assert_eq!(split(name, text), "I|'LL| see| |123|45| | Dogs|'| tails|\n\n| he|'s|/done|...", "{name}");
        }
        assert_eq!(split("qwen2", text), "I|'LL| see| |1|2|3|4|5| | Dogs|'| tails|\n\n| he|'s|/done|...");
        assert_eq!(split("tekken", text), "I|'LL| see| |1|2|3|4|5| | Dogs|'| tails|\n\n| he|'s|/done|...");
        assert_eq!(split("tekken", "HTTPServer CamelCase"), "HTTPServer| Camel|Case");
        assert_eq!(split("default", "a+b 12345"), "a|+|b| |123|45");
    }

    #[test]
    fn an_unknown_pre_tokenizer_is_refused_with_the_known_ones() {
        let message = build(&byte_level("klingon")).err().unwrap().to_string();
        assert!(message.starts_with("m.gguf: metadata key `tokenizer.ggml.pre`"), "{message}");
        assert!(message.contains("`klingon`") && message.contains("smollm, starcoder"), "{message}");
    }

    #[test]
    fn damaged_metadata_is_refused_by_key() {
        let cases = [
            (MODEL, string("wordpiece"), "supported: gpt2, llama"),
            (MODEL, MetadataValue::Bool(true), "expected a string"),
            (TOKENS, strings(&["a", "b", "a"]), "listed twice, as 0 and as 2"),
            (TOKEN_TYPES, integers(&[1]), "has 1 entries, expected 11"),
            (MERGES, strings(&["ab"]), "merge 0 is \"ab\""),
            (MERGES, strings(&[""]), "merge 0 is \"\""),
            (MERGES, strings(&["a b", "b a"]), "merge 1, \"b a\", needs the token \"ba\""),
            (MERGES, strings(&["ba b", "b a"]), "merge 0, \"ba b\", needs the token \"ba\""),
            (MERGES, integers(&[1]), "expected an array of strings"),
        ];
        for (key, value, expected) in cases {
            let mut entries = byte_level("gpt-2");
            if key == TOKENS {
                entries.retain(|(name, _)| *name != TOKEN_TYPES);
                set(&mut entries, MERGES, strings(&[]));
            }
            set(&mut entries, key, value);
            let message = build(&entries).err().unwrap().to_string();
            assert!(message.contains(key) && message.contains(expected), "{message}");
        }
        let mut entries = byte_level("llama-bpe");
        entries.retain(|(key, _)| *key != BOS);
        let message = build(&entries).err().unwrap().to_string();
        assert!(message.contains(BOS) && message.contains(ADD_BOS), "{message}");
    }

    /// llama.cpp's ids of such files.
    #[test]
    fn what_llama_cpp_passes_over_does_no_harm() {
        let mut entries = byte_level("gpt-2");
        set(&mut entries, TOKEN_TYPES, integers(&[3, 4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]));
        // Nothing becomes `zz`, so that nothing becomes `zzq`.
        set(&mut entries, MERGES, strings(&["a b", "\u{120} ab", "zz q", "1 2"]));
        assert_eq!(ids(&build(&entries).unwrap(), "ab ab12"), [7, 8, 9]);
    }

    /// llama.cpp's ids of such files.
    #[test]
    fn some_tokens_are_known_by_their_text() {
        let of = |token: &str, more: Entries| {
            let mut entries = byte_level("gpt-2");
            for (key, value) in &mut entries {
                match value {
                    MetadataValue::Array(MetadataArray::String(tokens)) if *key == TOKENS => {
                        tokens.push(token.to_owned())
                    }
                    MetadataValue::Array(MetadataArray::Signed(types)) => types.push(1),
                    _ => {}
                }
            }
            entries.extend(more);
            ids(&build(&entries).unwrap(), &format!("a{token}b"))
        };
        for token in [
            "<|fim_prefix|>",
            "<|fim_suffix|>",
            "<|code_middle|>",
            "[PAD]",
            "<reponame>",
            "<|file_sep|>",
            "<|channel|>",
            "<|message|>",
            "<|start|>",
            "<|constrain|>",
        ] {
            assert_eq!(of(token, vec![]), [2, 11, 3], "{token}");
        }
        assert_eq!(of("<|fim_hole|>", vec![]), [2, 3]);
        // A key says that it is another.
        assert_eq!(of("[PAD]", vec![("tokenizer.ggml.fim_pad_token_id", MetadataValue::Unsigned(1))]), [2, 3]);
    }

    #[test]
    fn ids_outside_the_vocabulary_are_not_special_tokens() {
        let mut entries = byte_level("gpt-2");
        set(&mut entries, PADDING, MetadataValue::Unsigned(4_294_967_295));
        assert!(build(&entries).unwrap().tokenizer_config().get("pad_token").is_none());
    }

    #[test]
    fn the_configuration_names_special_tokens_template_and_context() {
        let mut entries = byte_level("gpt-2");
        set(&mut entries, CHAT_TEMPLATE, string("{{ messages }}"));
        let config = build(&entries).unwrap().tokenizer_config();
        let expected = json!({
            "tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": false, "add_eos_token": false,
            "bos_token": "<|end|>", "eos_token": "<|end|>", "clean_up_tokenization_spaces": false,
            "model_max_length": 512, "chat_template": "{{ messages }}",
        });
        assert_eq!(config, expected);
    }

    #[test]
    fn the_rebuilt_file_reads_back_as_the_same_tokenizer() {
        for entries in [byte_level("llama-bpe"), sentence_piece()] {
            let tokenizer = build(&entries).unwrap();
            let again = Tokenizer::from_json(tokenizer.to_json().as_bytes()).unwrap();
            let text = "ab a<|end|>b 12\u{e9}";
            assert_eq!(ids(&again, text), ids(&tokenizer, text));
            assert!(!ids(&again, text).is_empty());
        }
    }

    /// Specials 0 to 2, the two bytes of U+00E9, pieces with scores, and one user-defined token.
    fn sentence_piece() -> Entries {
        let tokens = [
            "<unk>",
            "<s>",
            "</s>",
            "<0xC3>",
            "<0xA9>",
            "\u{2581}",
            "a",
            "b",
            "c",
            "ab",
            "bc",
            "abc",
            "\u{2581}a",
            "<u>",
        ];
        let scores = [0.0, 0.0, 0.0, 0.0, 0.0, -9.0, -9.0, -9.0, -9.0, -3.0, -1.0, -4.0, -2.0, 0.0];
        vec![
            (MODEL, string("llama")),
            (TOKENS, strings(&tokens)),
            (TOKEN_TYPES, integers(&[2, 3, 3, 6, 6, 1, 1, 1, 1, 1, 1, 1, 1, 4])),
            (SCORES, floats(&scores)),
        ]
    }

    #[test]
    fn sentence_piece_merges_the_best_score_first() {
        let tokenizer = build(&sentence_piece()).unwrap();
        // `bc` (-1) before the prefixed `a` (-2) before `ab` (-3); BOS in front by default.
        assert_eq!(ids(&tokenizer, "abc"), [1, 12, 10]);
        assert_eq!(ids(&tokenizer, "ab"), [1, 12, 7]);
        let mut entries = sentence_piece();
        set(&mut entries, ADD_SPACE_PREFIX, MetadataValue::Bool(false));
        let bare = build(&entries).unwrap();
        assert_eq!(ids(&bare, "abc"), [1, 11]);
        assert_eq!(ids(&bare, "ab abc"), [1, 9, 12, 10]);
        assert_eq!(bare.decode(&[1, 9, 12, 10]).unwrap(), "ab abc");
        assert_eq!(tokenizer.decode(&[1, 12, 10]).unwrap(), "abc");
    }

    #[test]
    fn sentence_piece_falls_back_to_bytes_then_to_unknown() {
        let tokenizer = build(&sentence_piece()).unwrap();
        assert_eq!(ids(&tokenizer, "a\u{e9}zz"), [1, 12, 3, 4, 0]);
        assert_eq!(tokenizer.decode(&[1, 12, 3, 4]).unwrap(), "a\u{e9}");
        assert_eq!(ids(&tokenizer, "a<u>b"), [1, 12, 13, 5, 7]);
    }

    /// The SentencePiece vocabulary with further tokens, their scores and types.
    fn with_pieces(more: &[(&str, f64, i64)]) -> Entries {
        let mut entries = sentence_piece();
        for (_, value) in &mut entries {
            match value {
                MetadataValue::Array(MetadataArray::String(tokens)) => {
                    tokens.extend(more.iter().map(|(token, ..)| (*token).to_owned()));
                }
                MetadataValue::Array(MetadataArray::Signed(types)) => {
                    types.extend(more.iter().map(|(_, _, kind)| kind))
                }
                MetadataValue::Array(MetadataArray::Float(scores)) => {
                    scores.extend(more.iter().map(|(_, score, _)| score))
                }
                _ => {}
            }
        }
        entries
    }

    /// llama.cpp's ids of such files.
    #[test]
    fn bytes_are_known_by_their_text() {
        let mut entries = sentence_piece();
        set(&mut entries, TOKEN_TYPES, integers(&[2, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 4]));
        assert_eq!(ids(&build(&entries).unwrap(), "a\u{e9}"), [1, 12, 3, 4]);
        entries.retain(|(key, _)| *key != TOKEN_TYPES);
        assert_eq!(ids(&build(&entries).unwrap(), "a\u{e9}"), [1, 12, 3, 4]);
    }

    /// llama.cpp's ids of such files.
    #[test]
    fn tokens_of_every_type_are_joined() {
        let mut entries = with_pieces(&[("\u{2581}\u{2581}", -5.0, 4), ("\u{2581}\u{2581}a", -4.5, 3)]);
        for (prefix, expected) in [
            (true, [&[1, 5, 7, 14, 7][..], &[1, 5, 7, 15, 14, 7], &[1, 5, 7, 14, 5, 7]]),
            (false, [&[1, 7, 14, 7], &[1, 7, 15, 14, 7], &[1, 7, 14, 7]]),
        ] {
            set(&mut entries, ADD_SPACE_PREFIX, MetadataValue::Bool(prefix));
            let tokenizer = build(&entries).unwrap();
            for (text, expected) in ["b  b", "b  a  b", "b\u{2581}\u{2581}b"].into_iter().zip(expected) {
                assert_eq!(ids(&tokenizer, text), expected, "{text}, prefix {prefix}");
            }
        }
        // Where a text has both, their places decide.
        let same = with_pieces(&[("\u{2581}\u{2581}", -5.0, 4), ("\u{2581}\u{2581}\u{2581}", -5.0, 4)]);
        let error = build(&same).err().unwrap().to_string();
        assert!(error.contains(TOKENS) && error.contains("the same score"), "{error}");
    }

    /// llama.cpp's ids of such files.
    #[test]
    fn special_tokens_of_phi_3_take_the_space_behind_them() {
        let mut entries = with_pieces(&[("<|endoftext|>", 0.0, 3), ("<|user|>", 0.0, 4)]);
        set(&mut entries, "general.name", string("My Phi-3 x"));
        let tokenizer = build(&entries).unwrap();
        for (text, expected) in [
            ("a<u> \n b", &[1, 12, 13, 5, 7][..]),
            ("a</s>  b", &[1, 12, 2, 5, 7]),
            ("a<s> b", &[1, 12, 1, 5, 5, 7]),
            ("a<|endoftext|> b", &[1, 12, 14, 5, 5, 7]),
            ("a<|user|>\nb", &[1, 12, 15, 5, 7]),
        ] {
            assert_eq!(ids(&tokenizer, text), expected, "{text}");
        }
    }

    /// Minutes, if every split of it were looked up.
    #[test]
    fn a_token_of_an_absurd_length_takes_no_time() {
        let long = "ab".repeat(200_000);
        let tokenizer = build(&with_pieces(&[(&long, -5.0, 1), (&long[1..], -6.0, 1)])).unwrap();
        assert_eq!(ids(&tokenizer, "abc"), [1, 12, 10]);
    }

    #[test]
    fn a_run_of_spaces_is_found_however_it_is_written() {
        let mut entries = with_pieces(&[("  ", 0.0, 4)]);
        assert_eq!(ids(&build(&entries).unwrap(), "b  b"), [1, 5, 7, 14, 5, 7]);
        set(&mut entries, ADD_SPACE_PREFIX, MetadataValue::Bool(false));
        let bare = build(&entries).unwrap();
        for text in ["b  b", "b\u{2581} b", "b\u{2581}\u{2581}b"] {
            assert_eq!(ids(&bare, text), [1, 7, 14, 7], "{text}");
        }
        assert_eq!(bare.decode(&[7, 14, 7]).unwrap(), "b  b");
    }

    #[test]
    fn flags_decide_what_is_added_around_a_text() {
        let mut entries = sentence_piece();
        set(&mut entries, ADD_BOS, MetadataValue::Bool(false));
        set(&mut entries, ADD_EOS, MetadataValue::Bool(true));
        assert_eq!(ids(&build(&entries).unwrap(), "a"), [12, 2]);
        set(&mut entries, ADD_EOS, MetadataValue::Bool(false));
        assert_eq!(ids(&build(&entries).unwrap(), "a"), [12]);
        // Without types, the special tokens are those that the ids name (by default 0, 1 and 2).
        entries.retain(|(key, _)| *key != TOKEN_TYPES);
        assert_eq!(ids(&build(&entries).unwrap(), "a<s>"), [12, 1]);
    }
}
