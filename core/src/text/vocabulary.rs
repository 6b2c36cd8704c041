//! A vocabulary with what is known about its tokens, written as a `tokenizer.json`.
//!
//! GGUF metadata, SentencePiece models and `vocab.json` with `merges.txt` all become one.

use std::collections::{HashMap, HashSet};

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
    SentencePiece { scores: Vec<f64>, spaces: Spaces, of: Origin },
    /// SentencePiece unigram: the tokens of a text are those with the best sum of scores.
    Unigram { scores: Vec<f64>, spaces: Spaces },
}

/// Whose rules hold for pieces that are not normal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// llama.cpp's: user-defined pieces are looked for in the text as it is, and what is made by joining may be of any type.
    Gguf,
    /// SentencePiece's: user-defined pieces are looked for when spaces are replaced, and only normal pieces are joined.
    SentencePieceFile,
}

/// Before which texts a space is put.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Prefix {
    #[default]
    None,
    /// Before the text, unless it begins with one or with a token that is looked for in it.
    First,
    /// Before the text, and behind every token that is looked for in it.
    Every,
}

/// What SentencePiece does to a text before it looks for pieces.
#[derive(Debug, Default)]
pub(super) struct Spaces {
    pub prefix: Prefix,
    /// Runs of spaces become one, those at the ends none.
    pub single: bool,
    /// The compiled normalisation rules, in base64; empty for none.
    pub rules: String,
}

impl Merging {
    /// Before which texts a space is put.
    pub fn prefix(&self) -> Prefix {
        match self {
            Self::ByteLevel { .. } => Prefix::None,
            Self::SentencePiece { spaces, .. } | Self::Unigram { spaces, .. } => spaces.prefix,
        }
    }

    /// Whether user-defined tokens are looked for in the text as it is.
    fn finds_in_text(&self) -> bool {
        match self {
            Self::ByteLevel { .. } | Self::SentencePiece { of: Origin::Gguf, .. } => true,
            Self::SentencePiece { of: Origin::SentencePieceFile, .. } | Self::Unigram { .. } => false,
        }
    }
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
    /// Tokens that are looked for in the text and take the white space behind them.
    pub strips_behind: Vec<usize>,
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
            Merging::SentencePiece { scores, spaces, of } => {
                let model = self.sentence_piece_model(scores, *of)?;
                (spaces.normalizer(), self.split_pieces(spaces), spaces.decoder(), model)
            }
            Merging::Unigram { scores, spaces } => {
                (spaces.normalizer(), self.split_pieces(spaces), spaces.decoder(), self.unigram_model(scores)?)
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
        let mut split = Vec::with_capacity(merges.len());
        for (index, merge) in merges.iter().enumerate() {
            // A token may itself start with a space, so the separator is looked for behind the first character.
            let start = merge.chars().next().map_or(0, char::len_utf8);
            let pair = merge[start..].find(' ').map(|at| (&merge[..start + at], &merge[start + at + 1..]));
            split.push(pair.ok_or_else(|| {
                problem(Part::Merges, format!("merge {index} is {merge:?}, expected two tokens and a space"))
            })?);
        }
        let made: HashSet<String> = split.iter().map(|(left, right)| format!("{left}{right}")).collect();
        // What is no character and no merge makes never stands in a text.
        let occurs = |piece: &str| piece.chars().nth(1).is_none() || made.contains(piece);
        let mut pairs = Vec::with_capacity(merges.len());
        for (index, (left, right)) in split.into_iter().enumerate() {
            let missing = [left, right, &format!("{left}{right}")]
                .into_iter()
                .find(|piece| !vocab.contains_key(*piece))
                .map(str::to_owned);
            match missing {
                None => pairs.push(json!([left, right])),
                Some(piece) if occurs(left) && occurs(right) => {
                    let merge = &merges[index];
                    let reason = format!("merge {index}, {merge:?}, needs the token {piece:?}, which is missing");
                    return Err(problem(Part::Merges, reason));
                }
                Some(_) => {}
            }
        }
        Ok(bpe_model(vocab, pairs, None, false, rules.whole_words))
    }

    /// SentencePiece BPE as listed merges: every way to put a piece together from two others, best score first. Ways
    /// to build the same piece come in the order in which transformers' converters list them (longest left part
    /// first).
    fn sentence_piece_model(&self, scores: &[f64], of: Origin) -> Result<Value, Problem> {
        let vocab = self.vocab_json()?;
        let is_normal = |id: usize| matches!(self.types.get(id), Some(TokenType::Normal | TokenType::Unused));
        let is_piece = |id: usize| of == Origin::Gguf || is_normal(id);
        let is_known = |piece: &str| vocab.get(piece).and_then(Value::as_u64).is_some_and(|id| is_piece(id as usize));
        // A token of an absurd length has as many splits: only those are looked up that have tokens of such lengths.
        let lengths: HashSet<usize> = self.tokens.iter().map(String::len).collect();
        let mut merges: Vec<(f64, usize, &str, &str)> = Vec::new();
        let mut not_normal: HashMap<u64, &str> = HashMap::new();
        for (id, (token, &score)) in self.tokens.iter().zip(scores).enumerate() {
            if !is_piece(id) {
                continue;
            }
            let before = merges.len();
            for (characters, (at, _)) in token.char_indices().enumerate().skip(1) {
                if lengths.contains(&at) && lengths.contains(&(token.len() - at)) {
                    let (left, right) = token.split_at(at);
                    if is_known(left) && is_known(right) {
                        merges.push((score, characters, left, right));
                    }
                }
            }
            // Of the others, those without a space are found before anything is joined.
            if merges.len() > before
                && !is_normal(id)
                && token.contains(SPACE)
                && let Some(other) = not_normal.insert(score.to_bits(), token)
            {
                let reason = format!(
                    "{other:?} and {token:?}, which are not normal tokens, have the same score, {score}: which of them a text \
                     becomes is not known; convert the model again with a newer llama.cpp"
                );
                return Err(problem(Part::Tokens, reason));
            }
        }
        merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
        let pairs = merges.into_iter().map(|(_, _, left, right)| json!([left, right])).collect();
        let unknown = self.unknown.and_then(|id| self.tokens.get(id)).map(String::as_str);
        let byte_fallback = self.types.contains(&TokenType::Byte);
        // A user-defined piece is a word of its own, which nothing makes by joining.
        let whole_words = of == Origin::SentencePieceFile && self.types.contains(&TokenType::UserDefined);
        Ok(bpe_model(vocab, pairs, unknown, byte_fallback, whole_words))
    }

    /// What is done behind the normaliser: a space before the text only, and user-defined pieces become words of their own.
    fn split_pieces(&self, spaces: &Spaces) -> Value {
        let mut steps = Vec::new();
        if spaces.prefix == Prefix::First {
            steps.push(json!({ "type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first", "split": false }));
        }
        if !self.merging.finds_in_text() {
            let pieces = self.tokens.iter().zip(&self.types).filter(|(_, kind)| **kind == TokenType::UserDefined);
            let mut pieces: Vec<&str> = pieces.map(|(piece, _)| piece.as_str()).collect();
            // The longest that fits counts.
            pieces.sort_by_key(|piece| std::cmp::Reverse(piece.chars().count()));
            let pattern = pieces.into_iter().map(escaped).collect::<Vec<_>>().join("|");
            if !pattern.is_empty() {
                steps.push(json!({
                    "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false,
                }));
            }
        }
        match steps.is_empty() {
            true => Value::Null,
            false => json!({ "type": "Sequence", "pretokenizers": steps }),
        }
    }

    fn unigram_model(&self, scores: &[f64]) -> Result<Value, Problem> {
        // Told apart here: the model's own reader keeps the later of two.
        self.vocab_json()?;
        let vocab: Vec<Value> = self.tokens.iter().zip(scores).map(|(token, score)| json!([token, score])).collect();
        let byte_fallback = self.types.contains(&TokenType::Byte);
        Ok(json!({ "type": "Unigram", "unk_id": self.unknown, "vocab": vocab, "byte_fallback": byte_fallback }))
    }

    /// What is looked for in the text before anything else is done to it: control tokens, and user-defined ones.
    fn added_tokens(&self) -> Vec<Value> {
        let finds_in_text = self.merging.finds_in_text();
        // A SentencePiece text has its spaces replaced before user-defined tokens are looked for, a run of them among these.
        // Not with a space prefix: it would be put before the token, too.
        let replaced = matches!(&self.merging, Merging::SentencePiece { spaces, .. } if spaces.prefix == Prefix::None);
        let mut added = Vec::new();
        for (id, (token, kind)) in self.tokens.iter().zip(&self.types).enumerate() {
            let special = match kind {
                TokenType::Control | TokenType::Unknown => true,
                TokenType::UserDefined if finds_in_text => false,
                TokenType::UserDefined | TokenType::Normal | TokenType::Unused | TokenType::Byte => continue,
            };
            added.push(json!({
                "id": id, "content": token, "single_word": false, "lstrip": false,
                "rstrip": self.strips_behind.contains(&id),
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
        if self.prefix == Prefix::Every {
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
        if self.prefix != Prefix::None {
            steps.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
        }
        json!({ "type": "Sequence", "decoders": steps })
    }
}

/// The expression that is this text.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        if r"\.+*?()|[]{}^$#&-~".contains(letter) {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

fn problem(part: Part, reason: String) -> Problem {
    Problem { part, reason }
}
