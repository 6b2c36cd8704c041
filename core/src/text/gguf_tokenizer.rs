//! The tokenizer inside a GGUF file, rewritten as a `tokenizer.json`.
//!
//! GGUF keeps a vocabulary and a few flags under `tokenizer.ggml.*`, and a name (`tokenizer.ggml.pre`) instead of the
//! rules that split a text into words. The rules below are those of the `tokenizer.json` of the models that a name
//! stands for; the names, the defaults and the token types are llama.cpp's (`src/llama-vocab.cpp`).

use serde_json::{Map, Value, json};

use super::TextError;
use crate::weights::gguf::GgufMetadata;

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TOKEN_TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
const PADDING: &str = "tokenizer.ggml.padding_token_id";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
const ADD_SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";
const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

/// Stands for a space in SentencePiece vocabularies (U+2581).
const SPACE: &str = "\u{2581}";

/// The word rules of GPT-2. `ByteLevel` with `use_regex` applies the same ones.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How a byte-level BPE vocabulary splits a text before it merges.
struct WordRules {
    /// What `tokenizer.ggml.pre` calls it.
    names: &'static [&'static str],
    /// Unicode normalisation form C comes first.
    nfc: bool,
    /// Digits stand alone, whatever the expressions say.
    single_digits: bool,
    /// Expressions, each applied to the pieces that the one before left.
    splits: &'static [&'static str],
    /// A word that is a token is taken whole, even where the merges would not build it.
    whole_words: bool,
    /// BOS is added unless the metadata says otherwise.
    add_bos: bool,
}

const PLAIN: WordRules =
    WordRules { names: &[], nfc: false, single_digits: false, splits: &[], whole_words: false, add_bos: false };

const WORD_RULES: &[WordRules] = &[
    // llama.cpp's own rules for files that do not name theirs; no tokenizer.json stands behind them.
    WordRules { names: &["default"], splits: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"], ..PLAIN },
    WordRules { names: &["gpt-2"], splits: &[GPT2], ..PLAIN },
    WordRules { names: &["smollm", "starcoder", "refact"], single_digits: true, splits: &[GPT2], ..PLAIN },
    WordRules { names: &["command-r"], nfc: true, single_digits: true, splits: &[GPT2], ..PLAIN },
    WordRules {
        names: &["llama-bpe", "llama3", "llama-v3"],
        splits: &[LLAMA3],
        whole_words: true,
        add_bos: true,
        ..PLAIN
    },
    WordRules { names: &["qwen2", "deepseek-r1-qwen"], nfc: true, splits: &[QWEN2], ..PLAIN },
    WordRules { names: &["tekken"], splits: &[TEKKEN], whole_words: true, add_bos: true, ..PLAIN },
];

impl WordRules {
    fn named(metadata: &GgufMetadata, name: &str) -> Result<&'static Self, TextError> {
        WORD_RULES.iter().find(|rules| rules.names.contains(&name)).ok_or_else(|| {
            let known: Vec<&str> = WORD_RULES.iter().flat_map(|rules| rules.names).copied().collect();
            refuse(
                metadata.file(),
                PRE,
                format!("the pre-tokenizer `{name}` is not supported (supported: {})", known.join(", ")),
            )
        })
    }

    fn normalizer(&self) -> Value {
        if self.nfc { json!({ "type": "NFC" }) } else { Value::Null }
    }

    fn pre_tokenizer(&self) -> Value {
        let digits = self.single_digits.then(|| json!({ "type": "Digits", "individual_digits": true }));
        let splits = self.splits.iter().map(
            |regex| json!({ "type": "Split", "pattern": { "Regex": regex }, "behavior": "Isolated", "invert": false }),
        );
        let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
        let steps: Vec<Value> = digits.into_iter().chain(splits).chain([bytes]).collect();
        json!({ "type": "Sequence", "pretokenizers": steps })
    }
}

/// What a token is for, by its number in `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenType {
    /// A piece of text (also 0, undefined).
    Normal,
    /// Stands for what the vocabulary cannot spell.
    Unknown,
    /// Never comes from plain text: BOS, EOS, chat markers.
    Control,
    /// Found in the text before anything else is done to it.
    UserDefined,
    /// In the vocabulary, never meant to be produced.
    Unused,
    /// One byte, written `<0x0A>`.
    Byte,
}

impl TokenType {
    fn from_number(number: i64) -> Self {
        match number {
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => Self::Normal,
        }
    }
}

/// How the tokens of a vocabulary come together.
enum Merging {
    /// `gpt2`: byte-level BPE with listed merges.
    ByteLevel { rules: &'static WordRules, merges: Vec<String> },
    /// `llama`: SentencePiece BPE; of two neighbours, those are joined first whose union has the best score.
    SentencePiece { scores: Vec<f64>, add_space_prefix: bool },
}

/// A GGUF file's tokenizer metadata, checked.
pub(super) struct Vocabulary {
    file: String,
    merging: Merging,
    tokens: Vec<String>,
    types: Vec<TokenType>,
    bos: Option<usize>,
    eos: Option<usize>,
    unknown: Option<usize>,
    padding: Option<usize>,
    add_bos: bool,
    add_eos: bool,
    chat_template: Option<String>,
    context_length: Option<u64>,
}

impl Vocabulary {
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
                let add_space_prefix = metadata.bool(ADD_SPACE_PREFIX)?.unwrap_or(true);
                (Merging::SentencePiece { scores, add_space_prefix }, true, [Some(1), Some(2), Some(0)])
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
        Ok(Self {
            file: metadata.file().to_owned(),
            merging,
            types: token_types(metadata, tokens.len(), &special)?,
            bos,
            eos,
            unknown,
            padding,
            add_bos: metadata.bool(ADD_BOS)?.unwrap_or(add_bos),
            add_eos: metadata.bool(ADD_EOS)?.unwrap_or(false),
            chat_template: metadata.string(CHAT_TEMPLATE)?.map(str::to_owned),
            context_length: metadata.unsigned(&format!("{}.context_length", metadata.architecture()))?,
            tokens,
        })
    }

    /// The content of `tokenizer.json`.
    pub(super) fn tokenizer_json(&self) -> Result<Value, TextError> {
        let (normalizer, pre_tokenizer, decoder, model) = match &self.merging {
            Merging::ByteLevel { rules, merges } => (
                rules.normalizer(),
                rules.pre_tokenizer(),
                json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true }),
                self.byte_level_model(rules, merges)?,
            ),
            Merging::SentencePiece { scores, add_space_prefix } => (
                sentence_piece_normalizer(*add_space_prefix),
                Value::Null,
                sentence_piece_decoder(*add_space_prefix),
                self.sentence_piece_model(scores)?,
            ),
        };
        Ok(json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": self.added_tokens(),
            "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer,
            "post_processor": self.post_processor()?,
            "decoder": decoder,
            "model": model,
        }))
    }

    /// The content of `tokenizer_config.json`.
    pub(super) fn tokenizer_config(&self) -> Map<String, Value> {
        let mut config = Map::new();
        let mut set = |name: &str, value: Value| {
            config.insert(name.to_owned(), value);
        };
        set("tokenizer_class", json!("PreTrainedTokenizerFast"));
        set("add_bos_token", json!(self.add_bos));
        set("add_eos_token", json!(self.add_eos));
        let special = [
            ("bos_token", self.bos),
            ("eos_token", self.eos),
            ("unk_token", self.unknown),
            ("pad_token", self.padding),
        ];
        for (name, id) in special {
            if let Some(token) = id.and_then(|id| self.tokens.get(id)) {
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

    fn vocab_json(&self) -> Result<Map<String, Value>, TextError> {
        let mut vocab = Map::with_capacity(self.tokens.len());
        for (id, token) in self.tokens.iter().enumerate() {
            if let Some(before) = vocab.insert(token.clone(), json!(id)) {
                return Err(refuse(&self.file, TOKENS, format!("{token:?} is listed twice, as {before} and as {id}")));
            }
        }
        Ok(vocab)
    }

    fn byte_level_model(&self, rules: &WordRules, merges: &[String]) -> Result<Value, TextError> {
        let vocab = self.vocab_json()?;
        let mut pairs = Vec::with_capacity(merges.len());
        for (index, merge) in merges.iter().enumerate() {
            // A token may itself start with a space, so the separator is looked for behind the first character.
            let start = merge.chars().next().map_or(0, char::len_utf8);
            let pair = merge[start..].find(' ').map(|at| (&merge[..start + at], &merge[start + at + 1..]));
            let Some((left, right)) = pair else {
                return Err(refuse(
                    &self.file,
                    MERGES,
                    format!("merge {index} is {merge:?}, expected two tokens and a space"),
                ));
            };
            for piece in [left, right, &format!("{left}{right}")] {
                if !vocab.contains_key(piece) {
                    return Err(refuse(
                        &self.file,
                        MERGES,
                        format!("merge {index}, {merge:?}, needs the token {piece:?}, which is missing"),
                    ));
                }
            }
            pairs.push(json!([left, right]));
        }
        Ok(bpe_model(vocab, pairs, None, false, rules.whole_words))
    }

    /// SentencePiece BPE as listed merges: every way to put a piece together from two others, best score first. Ways
    /// to build the same piece come in the order in which transformers' converters list them (longest left part
    /// first).
    fn sentence_piece_model(&self, scores: &[f64]) -> Result<Value, TextError> {
        let vocab = self.vocab_json()?;
        // Control, byte and user-defined tokens are never put together from text.
        let is_piece = |id: usize| matches!(self.types.get(id), Some(TokenType::Normal | TokenType::Unused));
        let is_known = |piece: &str| vocab.get(piece).and_then(Value::as_u64).is_some_and(|id| is_piece(id as usize));
        let mut merges: Vec<(f64, &str, &str)> = Vec::new();
        for (id, (token, &score)) in self.tokens.iter().zip(scores).enumerate() {
            if !is_piece(id) {
                continue;
            }
            let splits = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
            merges.extend(splits.filter(|(l, r)| is_known(l) && is_known(r)).map(|(l, r)| (score, l, r)));
        }
        merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.chars().count().cmp(&a.1.chars().count())));
        let pairs = merges.into_iter().map(|(_, left, right)| json!([left, right])).collect();
        let unknown = self.unknown.and_then(|id| self.tokens.get(id)).map(String::as_str);
        let byte_fallback = self.types.contains(&TokenType::Byte);
        Ok(bpe_model(vocab, pairs, unknown, byte_fallback, false))
    }

    /// Control and user-defined tokens: what is looked for in the text before anything else is done to it.
    fn added_tokens(&self) -> Vec<Value> {
        // A SentencePiece text has its spaces replaced before user-defined tokens are looked for, a run of them among these.
        // Not with a space prefix: it would be put before the token, too.
        let replaced = matches!(self.merging, Merging::SentencePiece { add_space_prefix: false, .. });
        let mut added = Vec::new();
        for (id, (token, kind)) in self.tokens.iter().zip(&self.types).enumerate() {
            let special = match kind {
                TokenType::Control | TokenType::Unknown => true,
                TokenType::UserDefined => false,
                TokenType::Normal | TokenType::Unused | TokenType::Byte => continue,
            };
            added.push(json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": replaced && token.contains(' '), "special": special,
            }));
        }
        added
    }

    /// Adds BOS before and EOS behind the text, if the tokenizer does so.
    fn post_processor(&self) -> Result<Value, TextError> {
        let mut specials = Map::new();
        let mut piece = |wanted: bool, id: Option<usize>, flag: &str, key: &str| -> Result<Option<Value>, TextError> {
            if !wanted {
                return Ok(None);
            }
            let token = id.and_then(|id| self.tokens.get(id)).ok_or_else(|| {
                refuse(&self.file, key, format!("is missing, but {flag} asks for this token to be added to every text"))
            })?;
            specials.insert(token.clone(), json!({ "id": token, "ids": [id], "tokens": [token] }));
            Ok(Some(json!({ "SpecialToken": { "id": token, "type_id": 0 } })))
        };
        let bos = piece(self.add_bos, self.bos, ADD_BOS, BOS)?;
        let eos = piece(self.add_eos, self.eos, ADD_EOS, EOS)?;
        if specials.is_empty() {
            return Ok(Value::Null);
        }
        let around = |sequence: &str| {
            let text = json!({ "Sequence": { "id": sequence, "type_id": 0 } });
            bos.iter().cloned().chain([text]).chain(eos.iter().cloned()).collect::<Vec<_>>()
        };
        let pair: Vec<Value> = around("A").into_iter().chain(around("B")).collect();
        Ok(json!({ "type": "TemplateProcessing", "single": around("A"), "pair": pair, "special_tokens": specials }))
    }
}

fn bpe_model(
    vocab: Map<String, Value>,
    merges: Vec<Value>,
    unknown: Option<&str>,
    byte_fallback: bool,
    whole_words: bool,
) -> Value {
    json!({
        "type": "BPE",
        "dropout": null,
        "unk_token": unknown,
        "continuing_subword_prefix": null,
        "end_of_word_suffix": null,
        "fuse_unk": unknown.is_some(),
        "byte_fallback": byte_fallback,
        "ignore_merges": whole_words,
        "vocab": vocab,
        "merges": merges,
    })
}

fn sentence_piece_normalizer(add_space_prefix: bool) -> Value {
    let replace = json!({ "type": "Replace", "pattern": { "String": " " }, "content": SPACE });
    let prepend = add_space_prefix.then(|| json!({ "type": "Prepend", "prepend": SPACE }));
    let steps: Vec<Value> = prepend.into_iter().chain([replace]).collect();
    json!({ "type": "Sequence", "normalizers": steps })
}

fn sentence_piece_decoder(add_space_prefix: bool) -> Value {
    let mut steps = vec![
        json!({ "type": "Replace", "pattern": { "String": SPACE }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if add_space_prefix {
        steps.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    json!({ "type": "Sequence", "decoders": steps })
}

fn word_rules(metadata: &GgufMetadata) -> Result<&'static WordRules, TextError> {
    let name = metadata.string(PRE)?.unwrap_or_else(|| {
        tracing::warn!("{}: `{PRE}` is missing; words are split by llama.cpp's default rules", metadata.file());
        "default"
    });
    WordRules::named(metadata, name)
}

fn tokens(metadata: &GgufMetadata) -> Result<Vec<String>, TextError> {
    let mut tokens = metadata.require_strings(TOKENS)?.to_vec();
    for (id, token) in tokens.iter_mut().enumerate().filter(|(_, token)| token.is_empty()) {
        // The name that llama.cpp gives it; an empty token cannot be matched.
        *token = format!("[EMPTY_{id}]");
    }
    Ok(tokens)
}

/// The type of every token. A file without types still has its special tokens.
fn token_types(metadata: &GgufMetadata, count: usize, special: &[Option<usize>]) -> Result<Vec<TokenType>, TextError> {
    let Some(numbers) = metadata.integers(TOKEN_TYPES)? else {
        let kind = |id| if special.contains(&Some(id)) { TokenType::Control } else { TokenType::Normal };
        return Ok((0..count).map(kind).collect());
    };
    check_count(metadata, TOKEN_TYPES, numbers.len(), count)?;
    Ok(numbers.into_iter().map(TokenType::from_number).collect())
}

fn scores(metadata: &GgufMetadata, count: usize) -> Result<Vec<f64>, TextError> {
    let scores = metadata.floats(SCORES)?.ok_or_else(|| refuse(metadata.file(), SCORES, "is missing".into()))?;
    check_count(metadata, SCORES, scores.len(), count)?;
    Ok(scores.to_vec())
}

fn check_count(metadata: &GgufMetadata, key: &str, found: usize, expected: usize) -> Result<(), TextError> {
    if found == expected {
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
            let rules = WordRules::named(&GgufMetadata::new("m.gguf", []), name).unwrap();
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

    #[test]
    fn a_run_of_spaces_is_found_however_it_is_written() {
        let mut entries = sentence_piece();
        for (key, value) in &mut entries {
            match value {
                MetadataValue::Array(MetadataArray::String(tokens)) => tokens.push("  ".to_owned()),
                MetadataValue::Array(MetadataArray::Signed(types)) => types.push(4),
                MetadataValue::Array(MetadataArray::Float(scores)) => scores.push(0.0),
                _ => assert_eq!(*key, MODEL),
            }
        }
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
