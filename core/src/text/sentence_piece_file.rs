//! `tokenizer.model`: a SentencePiece model, as `sentencepiece_model.proto` (google/sentencepiece) lays it out.
//!
//! BPE and unigram models are read, with the spaces and normalisation that the model itself asks for, as transformers'
//! `build_tokenizer_from_spm_proto` does. What is put around a text is not in it: `tokenizer_config.json` says that, or else its
//! class does.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::TextError;
use super::special_tokens::{CONFIG, flag, named};
use super::vocabulary::{Merging, Origin, Prefix, Spaces, TokenType, Vocabulary};
use crate::file_kind::FileKind;

pub(super) const MODEL: &str = "tokenizer.model";

/// Classes of transformers, and of models' own Python files, that put BOS before a text unless `add_bos_token` says otherwise.
const ADD_BOS: [&str; 6] = [
    "LlamaTokenizer",
    "CodeLlamaTokenizer",
    "GemmaTokenizer",
    "BaichuanTokenizer",
    "InternLMTokenizer",
    "InternLM2Tokenizer",
];

/// Kinds of models by their number in the file.
const UNIGRAM: u64 = 1;
const BPE: u64 = 2;

/// The vocabulary of a `tokenizer.model` by the settings beside it.
///
/// # Errors
/// What is no SentencePiece model, or one that is neither BPE nor unigram; a class that is not known and does not say whether BOS
/// is added.
pub(super) fn read(bytes: &[u8], config: &Map<String, Value>) -> Result<Vocabulary, TextError> {
    let model = Model::read(bytes).ok_or_else(|| {
        let damaged =
            "it is no SentencePiece model, or a damaged one; take tokenizer.json from where the model is published";
        refuse(FileKind::of(bytes).map_or(damaged.into(), FileKind::problem))
    })?;
    for (id, piece) in model.pieces.iter().enumerate() {
        if piece.text.is_empty() || !piece.score.is_finite() {
            let reason = format!("piece {id} is {:?} with the score {}; it is damaged", piece.text, piece.score);
            return Err(refuse(reason));
        }
    }
    let special = |key: &str, id: Option<usize>| {
        let by_name = named(config, key).and_then(|name| model.pieces.iter().position(|piece| piece.text == name));
        by_name.or(id.filter(|&id| id < model.pieces.len()))
    };
    let (bos, eos) = (special("bos_token", model.bos), special("eos_token", model.eos));
    let unknown = model.pieces.iter().position(|piece| piece.kind == TokenType::Unknown);
    let mut spaces = model.spaces;
    // The class of Llama lets it be switched off, and does less of it if it need not be as it first was; `null` is as good as false.
    if flag(config, "add_prefix_space")? == Some(false) {
        spaces.prefix = Prefix::None;
    }
    let legacy = flag(config, "legacy")?.unwrap_or(!config.contains_key("legacy"));
    if !legacy && spaces.prefix != Prefix::None {
        spaces.prefix = Prefix::First;
    }
    let scores = model.pieces.iter().map(|piece| f64::from(piece.score)).collect();
    let merging = match model.kind {
        UNIGRAM => Merging::Unigram { scores, spaces },
        BPE => Merging::SentencePiece { scores, spaces, of: Origin::SentencePieceFile },
        kind => {
            let reason =
                format!("its `model_type` is {kind}, which is not supported (supported: 1, unigram, and 2, BPE)");
            return Err(refuse(reason));
        }
    };
    Ok(Vocabulary {
        merging,
        bos,
        eos,
        unknown,
        strips_behind: Vec::new(),
        add_bos: adds_bos(config)?,
        add_eos: flag(config, "add_eos_token")?.unwrap_or(false),
        types: model.pieces.iter().map(|piece| piece.kind).collect(),
        tokens: model.pieces.into_iter().map(|piece| piece.text).collect(),
    })
}

fn adds_bos(config: &Map<String, Value>) -> Result<bool, TextError> {
    if let Some(added) = flag(config, "add_bos_token")? {
        return Ok(added);
    }
    match config.get("tokenizer_class").and_then(Value::as_str) {
        // A model file alone is one of Llama's time.
        None => Ok(true),
        Some(class) if ADD_BOS.contains(&class.trim_end_matches("Fast")) => Ok(true),
        Some(class) => Err(TextError::TokenizerFile {
            file: CONFIG,
            reason: format!(
                "`tokenizer_class` is {class:?}, of which it is not known whether it adds BOS; set `add_bos_token` to true or false"
            ),
        }),
    }
}

fn refuse(reason: String) -> TextError {
    TextError::TokenizerFile { file: MODEL, reason }
}

#[derive(Debug)]
struct Piece {
    text: String,
    score: f32,
    kind: TokenType,
}

/// What is read of a model file.
#[derive(Debug)]
struct Model {
    pieces: Vec<Piece>,
    kind: u64,
    bos: Option<usize>,
    eos: Option<usize>,
    spaces: Spaces,
}

impl Model {
    /// None for what is no such file. Fields that are absent have the defaults of the layout.
    fn read(bytes: &[u8]) -> Option<Self> {
        let spaces = Spaces { prefix: Prefix::Every, single: true, ..Spaces::default() };
        let mut model = Self { pieces: Vec::new(), kind: UNIGRAM, bos: Some(1), eos: Some(2), spaces };
        for field in Fields(bytes) {
            match field? {
                (1, Content::Bytes(piece)) => model.pieces.push(Piece::read(piece)?),
                (2, Content::Bytes(trainer)) => model.read_trainer(trainer)?,
                (3, Content::Bytes(normalizer)) => model.read_normalizer(normalizer)?,
                _ => {}
            }
        }
        // Other files may look like a message, but not like one with pieces.
        (!model.pieces.is_empty()).then_some(model)
    }

    fn read_trainer(&mut self, bytes: &[u8]) -> Option<()> {
        // -1, for a token that there is not, is a number far too large.
        let id = |number| usize::try_from(number).ok();
        for field in Fields(bytes) {
            match field? {
                (3, Content::Number(kind)) => self.kind = kind,
                (41, Content::Number(number)) => self.bos = id(number),
                (42, Content::Number(number)) => self.eos = id(number),
                _ => {}
            }
        }
        Some(())
    }

    fn read_normalizer(&mut self, bytes: &[u8]) -> Option<()> {
        for field in Fields(bytes) {
            match field? {
                (2, Content::Bytes(rules)) => self.spaces.rules = STANDARD.encode(rules),
                (3, Content::Number(flag)) => {
                    self.spaces.prefix = if flag != 0 { Prefix::Every } else { Prefix::None };
                }
                (4, Content::Number(flag)) => self.spaces.single = flag != 0,
                _ => {}
            }
        }
        Some(())
    }
}

impl Piece {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut piece = Self { text: String::new(), score: 0.0, kind: TokenType::Normal };
        for field in Fields(bytes) {
            match field? {
                (1, Content::Bytes(text)) => piece.text = std::str::from_utf8(text).ok()?.to_string(),
                (2, Content::Fixed32(score)) => piece.score = f32::from_le_bytes(score),
                (3, Content::Number(kind)) => piece.kind = TokenType::from_number(i64::try_from(kind).ok()?),
                _ => {}
            }
        }
        Some(piece)
    }
}

/// The value of a field of a protocol buffer.
enum Content<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
    Fixed64,
}

/// The fields of a message with their numbers; None, once, where it is damaged.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Content<'a>)> {
        let tag = self.number()?;
        let content = match tag & 7 {
            0 => Content::Number(self.number()?),
            1 => self.take(8).map(|_| Content::Fixed64)?,
            2 => {
                let length = usize::try_from(self.number()?).ok()?;
                Content::Bytes(self.take(length)?)
            }
            5 => Content::Fixed32(self.take(4)?.try_into().ok()?),
            _ => return None,
        };
        Some((tag >> 3, content))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Content<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}
