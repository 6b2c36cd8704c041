//! A vocabulary with what is known about its tokens, written as a `tokenizer.json`.
//!
//! GGUF metadata, SentencePiece models and `vocab.json` with `merges.txt` all become one.

use serde_json::{Map, Value, json};

use super::word_rules::WordRules;

/// Stands for a space in SentencePiece vocabularies (U+2581).
const SPACE: &str = "\u{2581}";

/// What a token is for, by its number in `tokenizer.ggml.token_type` and in SentencePiece models.
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
    pub fn from_number(number: i64) -> Self {
        match number {
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => Self::Normal,
        }
    }

    pub fn number(self) -> i32 {
        match self {
            Self::Normal => 1,
            Self::Unknown => 2,
            Self::Control => 3,
            Self::UserDefined => 4,
            Self::Unused => 5,
            Self::Byte => 6,
        }
    }
}

/// How the tokens of a vocabulary come together.
#[derive(Debug)]
pub(super) enum Merging {
    /// Byte-level BPE with listed merges, each two tokens and a space between them.
    ByteLevel { rules: &'static WordRules, merges: Vec<String> },
    /// SentencePiece BPE; of two neighbours, those are joined first whose union has the best score.
    SentencePiece { scores: Vec<f64>, spaces: Spaces },
    /// SentencePiece unigram: the tokens of a text are those with the best sum of scores.
    Unigram { scores: Vec<f64>, spaces: Spaces },
}

/// What SentencePiece does to a text before it looks for pieces.
#[derive(Debug, Default)]
pub(super) struct Spaces {
    /// A space is put before the text.
    pub prefix: bool,
    /// Runs of spaces become one, those at the ends none.
    pub single: bool,
    /// The compiled normalisation rules, in base64; empty for none.
    pub rules: String,
}

/// Which part of a vocabulary cannot be written, and why.
#[derive(Debug)]
pub(super) struct Problem {
    pub part: Part,
    pub reason: String,
}

/// A part of a vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Tokens,
    Merges,
    Bos,
    Eos,
}

/// A vocabulary, by token ids.
#[derive(Debug)]
pub(super) struct Vocabulary {
    pub merging: Merging,
    /// An empty one is no token.
    pub tokens: Vec<String>,
    pub types: Vec<TokenType>,
    pub bos: Option<usize>,
    pub eos: Option<usize>,
    pub unknown: Option<usize>,
    pub add_bos: bool,
    pub add_eos: bool,
}

impl Vocabulary {
    /// The content of `tokenizer.json`.
    pub fn tokenizer_json(&self) -> Result<Value, Problem> {
        let (normalizer, pre_tokenizer, decoder, model) = match &self.merging {
            Merging::ByteLevel { rules, merges } => (
                rules.normalizer(),
                rules.pre_tokenizer(),
                json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true }),
                self.byte_level_model(rules, merges)?,
            ),
            Merging::SentencePiece { scores, spaces } => {
                (spaces.normalizer(), Value::Null, spaces.decoder(), self.sentence_piece_model(scores)?)
            }
            Merging::Unigram { scores, spaces } => {
                (spaces.normalizer(), Value::Null, spaces.decoder(), self.unigram_model(scores)?)
            }
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

    fn vocab_json(&self) -> Result<Map<String, Value>, Problem> {
        let mut vocab = Map::with_capacity(self.tokens.len());
        for (id, token) in self.tokens.iter().enumerate().filter(|(_, token)| !token.is_empty()) {
            if let Some(before) = vocab.insert(token.clone(), json!(id)) {
                return Err(problem(Part::Tokens, format!("{token:?} is listed twice, as {before} and as {id}")));
            }
        }
        Ok(vocab)
    }

    fn byte_level_model(&self, rules: &WordRules, merges: &[String]) -> Result<Value, Problem> {
        let vocab = self.vocab_json()?;
        let mut pairs = Vec::with_capacity(merges.len());
        for (index, merge) in merges.iter().enumerate() {
            // A token may itself start with a space, so the separator is looked for behind the first character.
            let start = merge.chars().next().map_or(0, char::len_utf8);
            let pair = merge[start..].find(' ').map(|at| (&merge[..start + at], &merge[start + at + 1..]));
            let Some((left, right)) = pair else {
                return Err(problem(
                    Part::Merges,
                    format!("merge {index} is {merge:?}, expected two tokens and a space"),
                ));
            };
            for piece in [left, right, &format!("{left}{right}")] {
                if !vocab.contains_key(piece) {
                    return Err(problem(
                        Part::Merges,
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
    fn sentence_piece_model(&self, scores: &[f64]) -> Result<Value, Problem> {
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

    fn unigram_model(&self, scores: &[f64]) -> Result<Value, Problem> {
        // Told apart here: the model's own reader keeps the later of two.
        self.vocab_json()?;
        let vocab: Vec<Value> = self.tokens.iter().zip(scores).map(|(token, score)| json!([token, score])).collect();
        let byte_fallback = self.types.contains(&TokenType::Byte);
        Ok(json!({ "type": "Unigram", "unk_id": self.unknown, "vocab": vocab, "byte_fallback": byte_fallback }))
    }

    /// Control and user-defined tokens: what is looked for in the text before anything else is done to it.
    fn added_tokens(&self) -> Vec<Value> {
        // A SentencePiece text has its spaces replaced before user-defined tokens are looked for, a run of them among these.
        // Not with a space prefix: it would be put before the token, too.
        let replaced = matches!(&self.merging, Merging::SentencePiece { spaces, .. } if !spaces.prefix);
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
    fn post_processor(&self) -> Result<Value, Problem> {
        let mut specials = Map::new();
        let mut piece = |wanted: bool, id: Option<usize>, part: Part| -> Result<Option<Value>, Problem> {
            if !wanted {
                return Ok(None);
            }
            let token = id
                .and_then(|id| self.tokens.get(id))
                .ok_or_else(|| problem(part, "is missing, but is to be added to every text".into()))?;
            specials.insert(token.clone(), json!({ "id": token, "ids": [id], "tokens": [token] }));
            Ok(Some(json!({ "SpecialToken": { "id": token, "type_id": 0 } })))
        };
        let bos = piece(self.add_bos, self.bos, Part::Bos)?;
        let eos = piece(self.add_eos, self.eos, Part::Eos)?;
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

impl Spaces {
    fn normalizer(&self) -> Value {
        let replace =
            |pattern: Value, content: &str| json!({ "type": "Replace", "pattern": pattern, "content": content });
        let mut steps = Vec::new();
        if !self.rules.is_empty() {
            steps.push(json!({ "type": "Precompiled", "precompiled_charsmap": self.rules }));
        }
        if self.single {
            // Only spaces: SentencePiece leaves line ends alone.
            steps.push(replace(json!({ "Regex": r"\A +| +\z" }), ""));
            steps.push(replace(json!({ "Regex": " {2,}" }), " "));
        }
        if self.prefix {
            steps.push(json!({ "type": "Prepend", "prepend": SPACE }));
        }
        steps.push(replace(json!({ "String": " " }), SPACE));
        json!({ "type": "Sequence", "normalizers": steps })
    }

    fn decoder(&self) -> Value {
        let mut steps = vec![
            json!({ "type": "Replace", "pattern": { "String": SPACE }, "content": " " }),
            json!({ "type": "ByteFallback" }),
            json!({ "type": "Fuse" }),
        ];
        if self.prefix {
            steps.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
        }
        json!({ "type": "Sequence", "decoders": steps })
    }
}

fn problem(part: Part, reason: String) -> Problem {
    Problem { part, reason }
}
