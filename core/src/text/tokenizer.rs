//! The tokenizer: text to ids and back, by the `tokenizers` crate, so that ids agree with Hugging Face.

use std::collections::HashMap;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokenizers::{Encoding, Token};

use super::gguf_tokenizer::GgufTokenizer;
use super::guard::guarded;
use super::special_tokens::{self, SpecialTokens};
use super::stream::Placed;
use super::tokenizer_checks::{check, decoder_problem, meant_for_oniguruma, set_prefix_space};
use super::vocabulary::{Part, Prefix};
use super::{TextError, byte_level_files, sentence_piece_file};
use crate::digest::hex;
use crate::file_kind::FileKind;
use crate::weights::gguf::GgufMetadata;

const FILE: &str = "tokenizer.json";

/// A tokenizer and the files it is saved as.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    json: String,
    config: Map<String, Value>,
    vocab_size: usize,
    /// What is put before and behind a text.
    around: [Vec<u32>; 2],
    /// Why tokens cannot be turned into text.
    decoder_problem: Option<String>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json` that has nothing beside it. Its regular expressions are taken as Oniguruma takes them, which
    /// Python's `tokenizers` use.
    ///
    /// Truncation and padding that the file asks for are switched off: a calibration text is never shortened
    /// silently.
    ///
    /// # Errors
    /// [`TextError::TokenizerFile`] if the bytes are not UTF-8 or not a tokenizer, or one that would give other tokens each
    /// time (BPE dropout).
    pub fn from_json(bytes: &[u8]) -> Result<Self, TextError> {
        Self::from_files(bytes, |_| None)
    }

    /// Reads a `tokenizer.json` and, as far as `read` has them, the files that say more about its tokens:
    /// `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`.
    ///
    /// # Errors
    /// As [`Tokenizer::from_json`], and [`TextError::TokenizerFile`] for one of those files.
    pub fn from_files<'a>(bytes: &[u8], read: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Self, TextError> {
        if let Some(kind) = FileKind::of(&bytes[..bytes.len().min(FileKind::START)]) {
            return Err(refuse(kind.problem()));
        }
        let text = std::str::from_utf8(bytes).map_err(|error| refuse(format!("not UTF-8 text: {error}")))?;
        let special = SpecialTokens::read(read)?;
        let mut config = Map::new();
        config.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
        Self::from_parts(text.to_owned(), config, &special)
    }

    /// Reads the tokenizer of a Hugging Face folder from what `read` has of its files: `tokenizer.json` as
    /// [`Tokenizer::from_files`] does, else `tokenizer.model` (SentencePiece, BPE or unigram), else `vocab.json` with `merges.txt`
    /// (byte-level BPE). From the latter two, a `tokenizer.json` is made.
    ///
    /// # Errors
    /// [`TextError::TokenizerFile`] for a file that is missing or cannot be used, and for a class of tokenizers that is not
    /// known.
    pub fn from_folder<'a>(read: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Self, TextError> {
        if let Some(json) = read(FILE) {
            return Self::from_files(json, read);
        }
        let settings = special_tokens::settings(&read)?;
        let (vocabulary, [tokens, merges]) = match (read(sentence_piece_file::MODEL), read(byte_level_files::VOCAB)) {
            (Some(model), _) => (sentence_piece_file::read(model, &settings)?, [sentence_piece_file::MODEL; 2]),
            (None, Some(vocab)) => {
                let files @ [_, merges] = [byte_level_files::VOCAB, byte_level_files::MERGES];
                let bytes = read(merges).ok_or_else(|| TextError::TokenizerFile {
                    file: merges,
                    reason: format!(
                        "is missing, but belongs to {}; take it from where the model is published",
                        files[0]
                    ),
                })?;
                (byte_level_files::read(vocab, bytes, &settings)?, files)
            }
            (None, None) => return Err(refuse("is missing; take it from where the model is published".into())),
        };
        let mut json = vocabulary.tokenizer_json().map_err(|problem| match problem.part {
            Part::Tokens => TextError::TokenizerFile { file: tokens, reason: problem.reason },
            Part::Merges => TextError::TokenizerFile { file: merges, reason: problem.reason },
            Part::Bos | Part::Eos => {
                let token = if problem.part == Part::Bos { "bos_token" } else { "eos_token" };
                let reason = format!("`{token}` {}; set `add_{token}` to false to do without", problem.reason);
                TextError::TokenizerFile { file: special_tokens::CONFIG, reason }
            }
        })?;
        if vocabulary.merging.prefix() != Prefix::None {
            SpecialTokens::read(&read)?.write_to(&mut json, &vocabulary.tokens);
        }
        Self::from_files(json.to_string().as_bytes(), read)
    }

    /// Rebuilds the tokenizer that a GGUF file carries in its `tokenizer.ggml.*` metadata.
    ///
    /// Byte-level BPE (`gpt2`) and SentencePiece BPE (`llama`) are known.
    ///
    /// # Errors
    /// [`TextError::Gguf`] naming the key that is missing, of the wrong kind, or not supported.
    #[doc(hidden)]
    pub fn from_gguf(metadata: &GgufMetadata) -> Result<Self, TextError> {
        let parts = GgufTokenizer::read(metadata)?;
        let config = parts.tokenizer_config();
        Self::from_parts(parts.tokenizer_json()?.to_string(), config, &SpecialTokens::default())
    }

    /// A tokenizer from the text of its `tokenizer.json`, the content of its `tokenizer_config.json`, and further tokens.
    fn from_parts(mut json: String, config: Map<String, Value>, special: &SpecialTokens) -> Result<Self, TextError> {
        let mut value: Value = serde_json::from_str(&json).map_err(|error| refuse(error.to_string()))?;
        if value["model"].is_null() {
            return Err(refuse("it has no `model`".to_string()));
        }
        check(&value).map_err(refuse)?;
        let decoder_problem = decoder_problem(&value);
        if let Some(prefix) = special.add_prefix_space
            && set_prefix_space(&mut value, prefix).map_err(refuse)?
        {
            json = value.to_string();
        }
        let own = meant_for_oniguruma(&mut value).map_err(refuse)?.then(|| value.to_string());
        drop(value);
        let bytes = own.as_ref().unwrap_or(&json).as_bytes();
        let load = || tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| refuse(error.to_string()));
        let mut inner = guarded(load)?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| refuse(error.to_string()))?;
        special.add_to(&mut inner)?;
        let vocab_size = inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1);
        if vocab_size == 0 {
            return Err(refuse("the vocabulary is empty".into()));
        }
        let around = around(&inner)?;
        Ok(Self { inner, json, config, vocab_size, around, decoder_problem })
    }

    /// The `tokenizer.json`: as it was read, or as it was rebuilt from GGUF metadata. Where `add_prefix_space` beside it says
    /// something else, that is written in it.
    pub fn to_json(&self) -> String {
        self.json.clone()
    }

    /// What belongs in `tokenizer_config.json`. Rebuilt from GGUF metadata it names the special tokens, the chat
    /// template and the context length; a `tokenizer.json` says none of these, so only `tokenizer_class` is known
    /// then and the folder's own `tokenizer_config.json` is the better file to carry over.
    pub fn tokenizer_config(&self) -> Value {
        Value::Object(self.config.clone())
    }

    /// Token ids of `text`, with what the tokenizer itself adds around a text (a BOS token for some, nothing for
    /// others).
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] with the reason that the tokenizer gives.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TextError> {
        Ok([self.prefix(), &self.encode_alone(text)?, self.suffix()].concat())
    }

    /// Token ids of `text` without anything around it.
    pub(crate) fn encode_alone(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let encoding = guarded(|| self.inner.encode_fast(text, false).map_err(failed))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Token ids of `text` without anything around it, each with the first byte of its text.
    pub(super) fn encode_placed(&self, text: &str) -> Result<Vec<Placed>, TextError> {
        let encoding = guarded(|| self.inner.encode(text, false).map_err(failed))?;
        let places = encoding.get_offsets().iter().map(|(start, _)| *start);
        Ok(encoding.get_ids().iter().copied().zip(places).collect())
    }

    /// Tokens that are put before a text.
    pub(crate) fn prefix(&self) -> &[u32] {
        &self.around[0]
    }

    /// Tokens that are put behind a text.
    pub(super) fn suffix(&self) -> &[u32] {
        &self.around[1]
    }

    /// Text of `ids`; special tokens (BOS, chat markers) and ids outside the vocabulary are left out.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] with the reason that the tokenizer gives.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TextError> {
        if let Some(problem) = &self.decoder_problem {
            return Err(TextError::Tokenizer { reason: problem.clone() });
        }
        // Some decoders of the crate count on a token.
        if ids.is_empty() {
            return Ok(String::new());
        }
        guarded(|| self.inner.decode(ids, true).map_err(failed))
    }

    /// All tokens with their ids.
    pub(super) fn vocabulary(&self) -> impl Iterator<Item = (String, u32)> {
        self.inner.get_vocab(true).into_iter()
    }

    /// The ids of the tokens that are looked for in a text before anything else is done to it, and whether each is a special one.
    pub(super) fn added_tokens(&self) -> HashMap<u32, bool> {
        self.inner.get_added_tokens_decoder().into_iter().map(|(id, token)| (id, token.special)).collect()
    }

    /// SHA-256, in hexadecimal, of the `tokenizer.json`.
    pub fn fingerprint(&self) -> String {
        hex(Sha256::digest(&self.json))
    }

    /// One more than the largest token id. A model's embedding has at least that many rows, often a few more.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }
}

fn refuse(reason: String) -> TextError {
    TextError::TokenizerFile { file: FILE, reason }
}

fn failed(error: tokenizers::Error) -> TextError {
    TextError::Tokenizer { reason: error.to_string() }
}

/// What the post-processor of a tokenizer puts before and behind a text.
fn around(inner: &tokenizers::Tokenizer) -> Result<[Vec<u32>; 2], TextError> {
    // One token stands for a text, since a vocabulary need not spell any; what is added around it is marked.
    let text = Encoding::from_tokens(vec![Token::new(0, String::new(), (0, 0))], 0);
    let encoding = guarded(|| inner.post_process(text, None, true).map_err(failed))?;
    let (ids, is_added) = (encoding.get_ids(), encoding.get_special_tokens_mask());
    let before = is_added.iter().take_while(|added| **added == 1).count();
    let behind = is_added[before..].iter().rev().take_while(|added| **added == 1).count();
    Ok([ids[..before].to_vec(), ids[ids.len() - behind..].to_vec()])
}

/// Text of tokens that come one by one, as soon as it is certain: a character may take several tokens.
pub struct DecodeStream {
    /// Tokens at the end of the text so far, by the `tokenizers` crate's own bookkeeping: their text depends on what is
    /// before them, so some that are decoded already are kept.
    ids: Vec<u32>,
    prefix: String,
    prefix_index: usize,
}

impl DecodeStream {
    /// A stream that continues the tokens `context`, whose own text is not given again.
    ///
    /// # Errors
    /// Those of [`Tokenizer::decode`].
    pub fn after(tokenizer: &Tokenizer, context: &[u32]) -> Result<Self, TextError> {
        let prefix = tokenizer.decode(context)?;
        // The replacement character stands for a part of a character, which is no text to go on from.
        match prefix.is_empty() || prefix.ends_with(char::REPLACEMENT_CHARACTER) {
            true => Ok(Self { ids: Vec::new(), prefix: String::new(), prefix_index: 0 }),
            false => Ok(Self { ids: context.to_vec(), prefix, prefix_index: context.len() }),
        }
    }

    /// The text that has become certain with one more token; often that of the token, or empty.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] with the reason that the tokenizer gives.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<String, TextError> {
        if let Some(problem) = &tokenizer.decoder_problem {
            return Err(TextError::Tokenizer { reason: problem.clone() });
        }
        let Self { ids, prefix, prefix_index } = self;
        guarded(|| {
            let text = tokenizers::step_decode_stream(&tokenizer.inner, vec![id], true, ids, prefix, prefix_index);
            Ok(text.map_err(failed)?.unwrap_or_default())
        })
    }

    /// What is left at the end: an unfinished character, as a replacement character.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] with the reason that the tokenizer gives.
    pub fn finish(self, tokenizer: &Tokenizer) -> Result<String, TextError> {
        let text = tokenizer.decode(&self.ids)?;
        Ok(text.strip_prefix(&self.prefix).unwrap_or_default().to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use blockpruner_tiny::TOKENIZER as TINY;

    use super::*;

    #[test]
    fn the_tiny_tokenizer_gives_the_ids_of_hugging_face() {
        let tokenizer = Tokenizer::from_json(TINY).unwrap();
        // tokenizers 0.23 for Python.
        let text = "In the beginning 1234 <|endoftext|>\n\n caf\u{e9} \u{1f600}";
        let expected =
            [1338, 260, 2926, 221, 17, 18, 19, 20, 221, 0, 199, 199, 1011, 70, 128, 103, 221, 173, 254, 247, 223];
        assert_eq!(tokenizer.encode(text).unwrap(), expected);
        assert_eq!(tokenizer.decode(&expected).unwrap(), text.replace("<|endoftext|>", ""));
        assert_eq!(tokenizer.vocab_size(), 4096);
        assert_eq!(tokenizer.to_json().as_bytes(), TINY);
        assert_eq!(tokenizer.tokenizer_config(), json!({ "tokenizer_class": "PreTrainedTokenizerFast" }));
    }

    #[test]
    fn the_fingerprint_is_that_of_the_file() {
        // sha256sum assets/tiny/tokenizer.json
        let expected = "b0bd29cf535a337738dfc36275880d90fccfe6d2c8260a17524f7ce228473685";
        assert_eq!(Tokenizer::from_json(TINY).unwrap().fingerprint(), expected);
    }

    #[test]
    fn text_comes_as_soon_as_it_is_certain() {
        let tokenizer = Tokenizer::from_json(TINY).unwrap();
        let text = "In the beginning caf\u{e9} \u{1f600}, and<|endoftext|> then";
        let ids = tokenizer.encode(text).unwrap();
        let whole = tokenizer.decode(&ids).unwrap();
        // After any beginning that is whole characters, the rest comes in parts that are, too.
        for split in 0..ids.len() {
            let context = tokenizer.decode(&ids[..split]).unwrap();
            if context.ends_with(char::REPLACEMENT_CHARACTER) {
                continue;
            }
            let mut stream = DecodeStream::after(&tokenizer, &ids[..split]).unwrap();
            let parts: Vec<String> = ids[split..].iter().map(|id| stream.push(&tokenizer, *id).unwrap()).collect();
            assert!(parts.iter().all(|part| !part.contains(char::REPLACEMENT_CHARACTER)), "{parts:?}");
            assert!(split > 4 || parts.iter().filter(|part| part.is_empty()).count() >= 4, "{parts:?}");
            assert_eq!(context + &parts.concat(), whole, "after {split} tokens");
            assert_eq!(stream.finish(&tokenizer).unwrap(), "");
        }
        // The first bytes of the emoji alone.
        let emoji = tokenizer.encode("\u{1f600}").unwrap();
        let mut stream = DecodeStream::after(&tokenizer, &ids[..3]).unwrap();
        assert_eq!(stream.push(&tokenizer, emoji[0]).unwrap(), "");
        assert_eq!(stream.finish(&tokenizer).unwrap(), "\u{fffd}");
    }

    #[test]
    fn truncation_and_padding_of_the_file_are_not_applied() {
        let mut file: Value = serde_json::from_slice(TINY).unwrap();
        file["truncation"] = json!({ "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0 });
        file["padding"] = json!({
            "strategy": { "Fixed": 64 }, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "<|endoftext|>",
        });
        let cut = Tokenizer::from_json(file.to_string().as_bytes()).unwrap();
        let text = "And it came to pass in those days";
        assert_eq!(cut.encode(text).unwrap(), Tokenizer::from_json(TINY).unwrap().encode(text).unwrap());
    }

    /// What makes the `tokenizers` crate panic, or give other tokens each time.
    #[test]
    fn tokenizers_that_cannot_be_used_are_refused() {
        let file: Value = serde_json::from_slice(TINY).unwrap();
        let with = |key: &str, part: Value| {
            let mut file = file.clone();
            file[key] = part;
            Tokenizer::from_json(file.to_string().as_bytes())
        };
        let sequence = |list: &str, part: Value| json!({ "type": "Sequence", list: [part] });
        let template = |single: Value| {
            let pair =
                json!([{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }]);
            let bos = json!({ "<s>": { "id": "<s>", "ids": [0], "tokens": ["<s>"] } });
            json!({ "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": bos })
        };
        let text = |id: &str| json!({ "Sequence": { "id": id, "type_id": 0 } });
        let token = |id: &str| json!({ "SpecialToken": { "id": id, "type_id": 0 } });
        let map = |map: Value| json!({ "type": "Precompiled", "precompiled_charsmap": map });
        let cases = [
            ("normalizer", map(Value::Null), "precompiled_charsmap"),
            ("normalizer", sequence("normalizers", map(json!("AAAA"))), "precompiled_charsmap"),
            ("pre_tokenizer", json!({ "type": "FixedLength", "length": 0 }), "length"),
            ("post_processor", template(json!([text("A"), text("B")])), "sequence A once"),
            ("post_processor", template(json!([text("A"), text("A")])), "sequence A once"),
            ("post_processor", sequence("processors", template(json!([text("A"), token("<none>")]))), "<none>"),
        ];
        for (key, part, expected) in cases {
            let error = with(key, part.clone()).err().unwrap().to_string();
            assert!(error.starts_with("tokenizer.json: ") && error.contains(expected), "{part}: {error}");
        }
        for dropout in [json!(0.1), json!("x")] {
            let mut file = file.clone();
            file["model"]["dropout"] = dropout;
            let error = Tokenizer::from_json(file.to_string().as_bytes()).err().unwrap().to_string();
            assert!(error.contains("`model.dropout`") && error.contains("set it to null"), "{error}");
        }
        // Only what turns tokens into text needs the decoder.
        let strip = json!({ "type": "Strip", "content": " ", "start": 0, "stop": 3 });
        let strips = with("decoder", sequence("decoders", strip)).unwrap();
        let ids = strips.encode("In the beginning").unwrap();
        let error = strips.decode(&ids).unwrap_err().to_string();
        assert!(error.contains("strips the end"), "{error}");
        assert!(DecodeStream::after(&strips, &ids).is_err());
        let bpe = with("decoder", json!({ "type": "BPEDecoder", "suffix": "</w>" })).unwrap();
        assert_eq!(bpe.decode(&[]).unwrap(), "");
        let bos = with("post_processor", template(json!([token("<s>"), text("A")]))).unwrap();
        assert_eq!((bos.prefix(), bos.suffix()), (&[0][..], &[][..]));
        assert_eq!(bos.encode("In the beginning").unwrap(), [&[0], ids.as_slice()].concat());
    }

    /// transformers 5.24: of letters that are not in the vocabulary, nothing is left.
    #[test]
    fn what_is_around_a_text_does_not_depend_on_the_vocabulary() {
        let vocab = json!({"<s>": 0, "</s>": 1, "A": 2, "C": 3, "AC": 4});
        let text = json!({ "Sequence": { "id": "A", "type_id": 0 } });
        let token = |id: &str| json!({ "SpecialToken": { "id": id, "type_id": 0 } });
        let special = |id: &str, number: u32| json!({ "id": id, "ids": [number], "tokens": [id] });
        let file = json!({
            "version": "1.0", "added_tokens": [],
            "post_processor": {
                "type": "TemplateProcessing", "single": [token("<s>"), text, token("</s>")], "pair": [text, text],
                "special_tokens": { "<s>": special("<s>", 0), "</s>": special("</s>", 1) },
            },
            "model": { "type": "BPE", "vocab": vocab, "merges": [["A", "C"]] },
        });
        let tokenizer = Tokenizer::from_json(file.to_string().as_bytes()).unwrap();
        assert_eq!((tokenizer.prefix(), tokenizer.suffix()), (&[0][..], &[1][..]));
        assert_eq!(tokenizer.encode("CAC").unwrap(), [0, 3, 4, 1]);
        assert_eq!(tokenizer.encode("a").unwrap(), [0, 1]);
    }

    #[test]
    fn what_is_no_tokenizer_is_refused() {
        let model = |vocab: Value, merges: Value| {
            json!({ "version": "1.0", "added_tokens": [], "model": { "type": "BPE", "vocab": vocab, "merges": merges } })
                .to_string()
        };
        let cases = [
            ("{".to_owned(), "EOF"),
            ("{}".to_owned(), "model"),
            (model(json!({}), json!([])), "empty"),
            // Longer than every token: the crate's own check would panic.
            (model(json!({ "a": 0, "b": 1 }), json!([["a", "b"]])), "merge 0 joins \"a\" and \"b\""),
            (model(json!({ "a": 0, "b": 1, "ab": 2 }), json!(["a b", 7])), "merge 1 is 7"),
            (model(json!({ "a": 0, "ab": 2 }), json!(["a b"])), "b"),
        ];
        for (json, expected) in cases {
            let message = Tokenizer::from_json(json.as_bytes()).err().unwrap().to_string();
            assert!(message.starts_with("tokenizer.json: ") && message.contains(expected), "{json}: {message}");
        }
        assert!(Tokenizer::from_json(&[0xff]).err().unwrap().to_string().contains("not UTF-8"));
    }
}
