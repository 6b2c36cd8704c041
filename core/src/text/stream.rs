//! The tokens of a text that is not held in memory.
//!
//! A tokenizer wants the whole text, and takes about a hundred times its size while it works. So a long text is tokenised in
//! chunks that overlap. Tokens depend on what is near to them, not on what is far away: if two chunks have the same tokens
//! at the same places all over the middle of their overlap, then each is right from there on to its own far end, and
//! they are joined there. If they do not, the first of them is made longer, up to the whole text.

use super::{TextError, Tokenizer};

/// How a text is cut, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunking {
    /// Length of a chunk.
    pub chunk: usize,
    /// How much of a chunk the next one has, too.
    pub overlap: usize,
    /// What does not count at either end of an overlap: there tokens may be others, because their text is cut.
    pub margin: usize,
}

/// The ends of two chunks are a prime number of bytes apart: where the tokens of a run depend on where it ends, those of two chunks
/// differ, whatever the length of a token.
pub(super) const CHUNKING: Chunking = Chunking { chunk: STRIDE + OVERLAP, overlap: OVERLAP, margin: 1 << 10 };
const STRIDE: usize = 61_441;
const OVERLAP: usize = 1 << 12;

/// A token and the first byte of its text.
pub(super) type Placed = (u32, usize);

/// The tokens of the text that `pieces` are, without those that the tokenizer adds around a text; of a longer text at least
/// the first `most`. Whether the text ends there.
pub(super) fn encode(
    tokenizer: &Tokenizer,
    pieces: &mut dyn Iterator<Item = Result<String, TextError>>,
    most: usize,
    chunking: Chunking,
) -> Result<(Vec<u32>, bool), TextError> {
    let Chunking { chunk, overlap, margin } = chunking;
    let mut text = Text { pieces, held: String::new(), ended: false };
    let mut ids = Vec::new();
    text.hold(chunk)?;
    // The tokens of the beginning of what is held, and up to which byte they are in `ids`.
    let mut tokens = tokenizer.encode_placed(text.upto(chunk))?;
    let (mut length, mut done) = (text.upto(chunk).len(), 0);
    loop {
        let left = tokens.partition_point(|(_, place)| *place < done)..;
        if text.ended && length == text.held.len() {
            ids.extend(tokens[left].iter().map(|(id, _)| id));
            return Ok((ids, true));
        }
        // The next chunk begins within this one.
        let start = text.upto(length.saturating_sub(overlap)).len();
        text.hold(start + chunk)?;
        let next_length = text.upto(start + chunk).len();
        let next = tokenizer.encode_placed(&text.held[start..next_length])?;
        let (from, to) = (start + margin, length.saturating_sub(margin));
        let here = |at: usize| tokens.partition_point(|(_, place)| *place < at);
        let there = |at: usize| next.partition_point(|(_, place)| start + place < at);
        let (ours, theirs) =
            (&tokens[here(from)..here(to).max(here(from))], &next[there(from)..there(to).max(there(from))]);
        let same = ours.len() == theirs.len()
            && ours.iter().zip(theirs).all(|(ours, theirs)| ours.0 == theirs.0 && ours.1 == start + theirs.1);
        // Where a chunk has no tokens at its end, what is there may only have been stripped.
        let surrounded = !ours.is_empty() && here(to) < tokens.len() && there(from) > 0;
        if same && surrounded && from > done {
            ids.extend(tokens[left.start..here(to)].iter().map(|(id, _)| id));
            if ids.len() >= most {
                return Ok((ids, false));
            }
            tokens = next;
            length = next_length - start;
            done = to - start;
            text.drop_first(start);
        } else {
            // More of the text at once.
            length = 2 * length.max(chunk);
            text.hold(length)?;
            length = text.upto(length).len();
            tokens = tokenizer.encode_placed(text.upto(length))?;
        }
    }
}

/// A text of which a part is in memory.
struct Text<'a> {
    pieces: &'a mut dyn Iterator<Item = Result<String, TextError>>,
    held: String,
    ended: bool,
}

impl Text<'_> {
    /// Reads on until so many bytes are held, or all.
    fn hold(&mut self, length: usize) -> Result<(), TextError> {
        // One byte more tells whether the text ends there.
        while !self.ended && self.held.len() <= length {
            match self.pieces.next().transpose()? {
                Some(piece) => self.held.push_str(&piece),
                None => self.ended = true,
            }
        }
        Ok(())
    }

    /// So many bytes of what is held, less to end with a whole character.
    fn upto(&self, length: usize) -> &str {
        let mut end = length.min(self.held.len());
        while !self.held.is_char_boundary(end) {
            end -= 1;
        }
        &self.held[..end]
    }

    fn drop_first(&mut self, length: usize) {
        self.held.drain(..length);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// SentencePiece BPE as Llama 2 has it: spaces are letters, the whole text is one word, and a space is put before it.
    fn sentence_piece() -> Tokenizer {
        let pieces =
            ["<unk>", "\u{2581}", "a", "b", "c", "ab", "bc", "\u{2581}a", "abc", "\u{2581}ab", "ca", "aa", "aaaa"];
        let vocab: serde_json::Map<_, _> =
            pieces.iter().enumerate().map(|(id, piece)| (piece.to_string(), json!(id))).collect();
        let merges = json!([
            ["a", "b"],
            ["b", "c"],
            ["\u{2581}", "a"],
            ["a", "bc"],
            ["\u{2581}", "ab"],
            ["c", "a"],
            ["a", "a"],
            ["aa", "aa"]
        ]);
        let json = json!({
            "version": "1.0", "added_tokens": [],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "\u{2581}"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
            ]},
            "model": {"type": "BPE", "vocab": vocab, "merges": merges, "unk_token": "<unk>", "fuse_unk": true},
        });
        Tokenizer::from_json(json.to_string().as_bytes()).unwrap()
    }

    /// Unigram with a normalisation that composes characters, and white space at the ends taken away.
    fn unigram() -> Tokenizer {
        let vocab = json!([
            ["<unk>", 0.0],
            ["\u{2581}", -2.0],
            ["a", -3.0],
            ["b", -3.5],
            ["c", -4.0],
            ["ab", -4.5],
            ["\u{2581}ab", -5.0],
            ["\u{e9}", -6.0],
            ["e", -6.5]
        ]);
        let json = json!({
            "version": "1.0", "added_tokens": [],
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Strip", "strip_left": true, "strip_right": true}]},
            "pre_tokenizer": {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first", "split": false},
            "model": {"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": false},
        });
        Tokenizer::from_json(json.to_string().as_bytes()).unwrap()
    }

    fn streamed(tokenizer: &Tokenizer, text: &str, most: usize, piece: usize, chunking: Chunking) -> (Vec<u32>, bool) {
        let letters: Vec<char> = text.chars().collect();
        let mut pieces = letters.chunks(piece).map(|piece| Ok(piece.iter().collect()));
        encode(tokenizer, &mut pieces, most, chunking).unwrap()
    }

    fn placed(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
        tokenizer.encode_placed(text).unwrap().into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn a_long_text_has_the_tokens_of_the_whole() {
        let tokenizer = Tokenizer::from_json(blockpruner_tiny::TOKENIZER).unwrap();
        let book = blockpruner_tiny::SAMPLE;
        // Words far longer than an overlap, and characters of several bytes.
        let text =
            book.repeat(8) + &"ab".repeat(20_000) + &"\u{1f600}\u{e9} ".repeat(3_000) + &" ".repeat(9_000) + book;
        let whole = placed(&tokenizer, &text);
        assert_eq!(streamed(&tokenizer, &text, usize::MAX, 1000, CHUNKING), (whole.clone(), true));
        let (first, ended) = streamed(&tokenizer, &text, 5, 1000, CHUNKING);
        assert!(!ended && first.len() >= 5 && first.len() < whole.len() / 4 && whole.starts_with(&first));
    }

    /// Both tokenizers would have two chunks agree on what is wrong, were their ends a multiple of a token's length apart.
    #[test]
    fn a_run_whose_tokens_depend_on_its_end_has_those_of_the_whole() {
        for token in ["aa", "aaa"] {
            let vocab = json!([["<unk>", 0.0], ["a", -10.0], [token, -1.0], ["b", -2.0]]);
            let model = json!({"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": false});
            let json = json!({"version": "1.0", "added_tokens": [], "model": model});
            let tokenizer = Tokenizer::from_json(json.to_string().as_bytes()).unwrap();
            for length in [200_000, 200_001, 200_002] {
                let text = format!("b{}b", "a".repeat(length));
                let found = streamed(&tokenizer, &text, usize::MAX, 1000, CHUNKING);
                assert!(found == (placed(&tokenizer, &text), true), "{token}, {length}");
            }
        }
    }

    #[test]
    fn no_more_is_read_than_is_needed() {
        let tokenizer = Tokenizer::from_json(blockpruner_tiny::TOKENIZER).unwrap();
        let mut read = 0;
        let mut pieces = std::iter::repeat_with(|| {
            read += 1;
            Ok("In the beginning God created the heaven and the earth. ".repeat(20))
        });
        let (ids, ended) = encode(&tokenizer, &mut pieces, 64, CHUNKING).unwrap();
        assert!(!ended && ids.len() >= 64);
        assert!(read * 1100 < 4 * CHUNKING.chunk, "{read} pieces");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn chunks_make_no_difference(
            text in "([abc ]{0,12}|e\u{301}|\u{1f600}|a{20}| {9}|\n\n){0,80}",
            piece in 1usize..50,
            chunk in 40usize..120,
            most in prop::sample::select(&[usize::MAX, 10][..]),
        ) {
            let chunking = Chunking { chunk, overlap: 36, margin: 10 };
            for (name, tokenizer) in [("bytes", Tokenizer::from_json(blockpruner_tiny::TOKENIZER).unwrap()), ("sentence piece", sentence_piece()), ("unigram", unigram())] {
                let whole = placed(&tokenizer, &text);
                let (found, ended) = streamed(&tokenizer, &text, most, piece, chunking);
                prop_assert!(whole.starts_with(&found), "{name}: {found:?}, {whole:?}");
                prop_assert!(if ended { found.len() == whole.len() } else { found.len() >= most }, "{name}");
            }
        }
    }
}
