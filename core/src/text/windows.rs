//! Windows of token ids: what the perplexity is measured on.
//!
//! As the published method does it: the rows are joined by a blank line into one text, the text is tokenised once (so
//! that a BOS token, if the tokenizer adds one, stands at the very start only), and the ids are cut into consecutive
//! windows of one length. What is left over at the end is dropped. If only the first windows are wanted, the text is read no
//! further than these need it.

use sha2::{Digest, Sha256};

use super::{CalibrationText, TextError, TextOptions, Tokenizer, stream};
use crate::digest::hex;

/// Consecutive windows of one length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    /// The ids of all windows, one window after the other: `count * window` of them.
    pub ids: Vec<u32>,
    /// Tokens of a window.
    pub window: usize,
    /// Number of windows, at least 1.
    pub count: usize,
    /// Rows of the text that were read for them (0 if they were given as ids).
    pub rows: usize,
    /// Tokens of the text before cutting, as far as it was read.
    pub tokens: usize,
    /// Whether it was read to its end.
    pub whole_text: bool,
    /// The text that they were cut from, as [`CalibrationText::source`]; empty if they were given as ids.
    pub source: String,
    /// Which part of that text was taken.
    pub options: TextOptions,
}

impl Windows {
    /// Joins, tokenises and cuts `text` into windows of `window` tokens, of which the first `max_windows` are kept.
    ///
    /// # Errors
    /// [`TextError::Window`] if `window < 2`, `max_windows` is 0 or the text has fewer tokens than one window;
    /// [`TextError::Tokenizer`] if the tokenizer fails.
    pub fn cut(
        text: &CalibrationText,
        tokenizer: &Tokenizer,
        window: usize,
        max_windows: Option<usize>,
    ) -> Result<Self, TextError> {
        check_lengths(window, max_windows)?;
        let most = max_windows.map_or(usize::MAX, |windows| windows.saturating_mul(window));
        let mut pieces = text.pieces()?;
        let (mut ids, whole_text) = stream::encode(tokenizer, &mut pieces, most, stream::CHUNKING)?;
        ids.splice(0..0, tokenizer.prefix().iter().copied());
        match whole_text {
            true => ids.extend(tokenizer.suffix()),
            // Where reading stopped depends on how it was read.
            false => ids.truncate(most),
        }
        let (source, options) = (text.source.clone(), text.options().clone());
        Ok(Self { rows: pieces.rows, whole_text, source, options, ..Self::from_ids(ids, window, max_windows)? })
    }

    /// Cuts ids into windows of `window` tokens, of which the first `max_windows` are kept.
    ///
    /// # Errors
    /// [`TextError::Window`] as for [`Windows::cut`].
    pub fn from_ids(mut ids: Vec<u32>, window: usize, max_windows: Option<usize>) -> Result<Self, TextError> {
        check_lengths(window, max_windows)?;
        let tokens = ids.len();
        if tokens < window {
            return Err(too_short(tokens, window));
        }
        let available = tokens / window;
        let count = max_windows.map_or(available, |most| most.min(available));
        ids.truncate(count * window);
        let (source, options) = (String::new(), TextOptions::default());
        Ok(Self { ids, window, count, rows: 0, tokens, whole_text: true, source, options })
    }

    /// Tokens that are predicted: all but the first of each window.
    pub fn predicted(&self) -> usize {
        self.ids.len() - self.count
    }

    /// What to say of a choice of blocks that rests on few predicted tokens, fewer than [`Windows::FEW`].
    pub fn too_few(&self) -> Option<String> {
        let (predicted, few) = (self.predicted(), Self::FEW);
        (predicted < few).then(|| {
            format!(
                "the choice of blocks rests on {predicted} predicted tokens; below {few} it is chance to a good part: take \
                 a longer text or more windows"
            )
        })
    }

    /// Below so many predicted tokens a choice of blocks depends much on which text was taken.
    pub const FEW: usize = 2000;

    /// Checks that the model has an embedding for every id.
    ///
    /// # Errors
    /// [`TextError::Vocabulary`] names the first id that is too large and its position.
    pub fn check_vocabulary(&self, vocab_size: usize) -> Result<(), TextError> {
        match self.ids.iter().position(|&id| id as usize >= vocab_size) {
            Some(position) => Err(TextError::Vocabulary { position, id: self.ids[position], vocab_size }),
            None => Ok(()),
        }
    }

    /// SHA-256, in hexadecimal, of the window length (u64) and the ids (u32), all little-endian: two runs with the
    /// same fingerprint score the same tokens in the same windows.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update((self.window as u64).to_le_bytes());
        for id in &self.ids {
            hash.update(id.to_le_bytes());
        }
        hex(hash.finalize())
    }
}

fn check_lengths(window: usize, max_windows: Option<usize>) -> Result<(), TextError> {
    // The first token of a window is never predicted, so a window of one token has no loss.
    if window < 2 {
        return Err(TextError::Window {
            reason: format!("the window is {window} tokens, but it has to be at least 2"),
        });
    }
    if max_windows == Some(0) {
        return Err(TextError::Window { reason: "at most 0 windows were asked for, but it takes at least 1".into() });
    }
    Ok(())
}

fn too_short(tokens: usize, window: usize) -> TextError {
    let smaller = if tokens < 2 { String::new() } else { format!(", or use a window of at most {tokens} tokens") };
    TextError::Window {
        reason: format!(
            "the text has {tokens} tokens, which is less than one window of {window}; take a longer text or more \
             samples{smaller}"
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use crate::text::TextOptions;
    use proptest::prelude::*;

    fn text(rows: &[&str]) -> CalibrationText {
        let lines: Vec<String> = rows.iter().map(|row| serde_json::json!({ "text": row }).to_string()).collect();
        CalibrationText::from_bytes("test", lines.join("\n").as_bytes(), &TextOptions::default()).unwrap()
    }

    fn tiny() -> Tokenizer {
        Tokenizer::from_json(blockpruner_tiny::TOKENIZER).unwrap()
    }

    #[test]
    fn the_remainder_is_dropped() {
        let windows = Windows::from_ids((0..11).collect(), 4, None).unwrap();
        assert_eq!(
            windows,
            Windows {
                ids: (0..8).collect(),
                window: 4,
                count: 2,
                rows: 0,
                tokens: 11,
                whole_text: true,
                source: String::new(),
                options: TextOptions::default(),
            }
        );
    }

    #[test]
    fn few_tokens_are_said_to_be_few() {
        let windows = |tokens| Windows::from_ids(vec![0; tokens], 100, None).unwrap();
        assert_eq!(windows(250).predicted(), 198);
        assert!(windows(2000).too_few().is_some_and(|said| said.contains("1980 predicted tokens")));
        assert_eq!(windows(2100).too_few(), None);
    }

    #[test]
    fn only_the_first_windows_are_kept() {
        let windows = Windows::from_ids((0..11).collect(), 3, Some(2)).unwrap();
        assert_eq!(windows.ids, [0, 1, 2, 3, 4, 5]);
        assert_eq!((windows.count, windows.tokens), (2, 11));
        assert_eq!(Windows::from_ids((0..11).collect(), 3, Some(9)).unwrap().count, 3);
    }

    #[test]
    fn a_text_shorter_than_a_window_is_refused_with_the_way_out() {
        let message = Windows::from_ids(vec![7; 5], 8, None).unwrap_err().to_string();
        assert!(message.contains("5 tokens") && message.contains("window of 8"), "{message}");
        assert!(message.contains("at most 5 tokens"), "{message}");
        let message = Windows::from_ids(vec![], 8, None).unwrap_err().to_string();
        assert!(message.contains("0 tokens") && !message.contains("at most"), "{message}");
    }

    #[test]
    fn windows_without_a_target_are_refused() {
        for window in [0, 1] {
            let message = Windows::from_ids(vec![7; 5], window, None).unwrap_err().to_string();
            assert!(message.contains("at least 2"), "{message}");
        }
        assert!(Windows::from_ids(vec![7; 5], 2, Some(0)).is_err());
    }

    #[test]
    fn rows_are_joined_by_a_blank_line_and_tokenised_once() {
        let tokenizer = tiny();
        let windows = Windows::cut(&text(&["In the beginning", "God created"]), &tokenizer, 2, None).unwrap();
        let whole = tokenizer.encode("In the beginning\n\nGod created").unwrap();
        assert_eq!(windows.tokens, whole.len());
        assert_eq!(windows.ids, whole[..whole.len() / 2 * 2]);
        assert_eq!(windows.rows, 2);
    }

    #[test]
    fn the_built_in_sample_gives_the_documented_windows() {
        let windows = Windows::cut(&CalibrationText::builtin_sample(), &tiny(), 256, None).unwrap();
        assert_eq!((windows.tokens, windows.count, windows.rows), (8491, 33, 1));
        windows.check_vocabulary(4096).unwrap();
    }

    #[test]
    fn an_id_outside_the_vocabulary_is_named() {
        let windows = Windows::from_ids(vec![1, 2, 9, 10], 2, None).unwrap();
        windows.check_vocabulary(11).unwrap();
        let message = windows.check_vocabulary(9).unwrap_err().to_string();
        assert!(message.contains("token 2 ") && message.contains("id 9") && message.contains("9 entries"), "{message}");
    }

    #[test]
    fn the_fingerprint_depends_on_ids_and_window() {
        let cut = |ids: &[u32], window| Windows::from_ids(ids.to_vec(), window, None).unwrap().fingerprint();
        // sha256 of 02 00 00 00 00 00 00 00, 01 00 00 00, 02 00 00 00.
        let expected = "1066d714b87c7e4579867e8ea219fa264cd2b30c7b0bc897fd071f16354d4865";
        assert_eq!(cut(&[1, 2], 2), expected);
        assert_ne!(cut(&[1, 3], 2), expected);
        assert_ne!(cut(&[1, 2, 3, 4], 2), cut(&[1, 2, 3, 4], 4));
    }

    proptest! {
        #[test]
        fn cutting_keeps_order_and_never_panics(
            ids in prop::collection::vec(any::<u32>(), 0..200),
            window in 0usize..40,
            most in prop::option::of(0usize..20),
        ) {
            match Windows::from_ids(ids.clone(), window, most) {
                Ok(windows) => {
                    prop_assert!(windows.count >= 1);
                    prop_assert_eq!(windows.ids.len(), windows.count * window);
                    prop_assert_eq!(&windows.ids[..], &ids[..windows.count * window]);
                    prop_assert!(most.is_some_and(|most| windows.count == most) || ids.len() - windows.ids.len() < window);
                }
                Err(_) => prop_assert!(window < 2 || most == Some(0) || ids.len() < window),
            }
        }
    }
}
