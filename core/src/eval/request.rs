//! From texts to token ids, by lm-evaluation-harness' rules for causal models.

use super::task::{Item, TextPrompt};
use super::{Bos, EvalError};
use crate::model::{Checkpoint, ModelError};
use crate::score::continuations::Prompt;
use crate::text::{TextError, Tokenizer};

/// How texts become prompts for one model.
pub(crate) struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    bos: Bos,
    /// What a continuation follows that has nothing before it.
    prefix: Option<u32>,
    /// Tokens that the model can run at a time.
    most: usize,
}

impl<'a> Encoder<'a> {
    pub fn new(checkpoint: &'a Checkpoint, bos: Bos) -> Result<Self, ModelError> {
        let spec = &checkpoint.spec;
        let (begin, end) = (spec.bos_token_id, spec.eos_token_ids.first().copied());
        let prefix = match bos {
            Bos::Auto => begin.or(end),
            Bos::Never => end.or(begin),
        };
        Ok(Self { tokenizer: checkpoint.tokenizer()?, bos, prefix, most: spec.max_positions })
    }

    /// The prompts of an item: all its choices' continuations, in order.
    pub fn prompts(&self, file: &str, item: &Item) -> Result<Vec<Prompt>, EvalError> {
        let refuse = |reason: String| EvalError::Item { file: file.into(), row: item.row, reason };
        let mut prompts = Vec::new();
        for TextPrompt { context, continuations } in &item.prompts {
            // A word and the space before it are one token: the space goes where the word is.
            let (context, spaces) = context.split_at(context.trim_end().len());
            let ids = self.encode(context)?;
            let start = if ids.is_empty() { self.prefix.into_iter().collect() } else { ids.clone() };
            if start.is_empty() {
                return Err(refuse("its text is empty, and no token of this model begins or ends a text".into()));
            }
            let mut together = Prompt { context: start.clone(), continuations: Vec::new() };
            for continuation in continuations {
                let whole = self.encode(&format!("{context}{spaces}{continuation}"))?;
                let following = whole.get(ids.len()..).unwrap_or_default().to_vec();
                if following.is_empty() {
                    return Err(refuse(format!("the choice {continuation:?} adds no token to its text")));
                }
                if following.len() > self.most {
                    let (tokens, most) = (following.len(), self.most);
                    return Err(refuse(format!("a choice has {tokens} tokens, the model takes {most}")));
                }
                // The last token is only predicted.
                let excess = (start.len() + following.len()).saturating_sub(self.most + 1);
                if excess == 0 {
                    together.continuations.push(following);
                } else {
                    // The beginning goes, of this one alone.
                    let before = std::mem::take(&mut together.continuations);
                    if !before.is_empty() {
                        prompts.push(Prompt { context: start.clone(), continuations: before });
                    }
                    prompts.push(Prompt { context: start[excess..].to_vec(), continuations: vec![following] });
                }
            }
            if !together.continuations.is_empty() {
                prompts.push(together);
            }
        }
        Ok(prompts)
    }

    /// Token ids with what the tokenizer puts at the front by itself, if that is wanted and not there already.
    fn encode(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let ids = self.tokenizer.encode_alone(text)?;
        let prefix = self.tokenizer.prefix();
        Ok(match self.bos {
            Bos::Auto if !ids.starts_with(prefix) => [prefix, &ids].concat(),
            _ => ids,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The tiny tokenizer, as it is or with `<|endoftext|>` (0) put before each text.
    fn tokenizer(with_bos: bool) -> Tokenizer {
        let mut file: Value = serde_json::from_slice(blockpruner_tiny::TOKENIZER).unwrap();
        if with_bos {
            let token = "<|endoftext|>";
            file["post_processor"] = json!({
                "type": "TemplateProcessing",
                "single": [{ "SpecialToken": { "id": token, "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
                "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
                "special_tokens": { token: { "id": token, "ids": [0], "tokens": [token] } },
            });
        }
        Tokenizer::from_json(file.to_string().as_bytes()).unwrap()
    }

    fn item(context: &str, continuations: &[&str]) -> Item {
        let continuations: Vec<_> = continuations.iter().map(|text| text.to_string()).collect();
        let lengths = vec![1; continuations.len()];
        Item { row: 1, prompts: vec![TextPrompt { context: context.into(), continuations }], lengths, gold: 0 }
    }

    fn encoder(tokenizer: &Tokenizer, bos: Bos, most: usize) -> Encoder<'_> {
        Encoder { tokenizer, bos, prefix: Some(9), most }
    }

    #[test]
    fn a_continuation_is_what_the_whole_has_beyond_the_context() {
        let tokenizer = tokenizer(false);
        let ids = |text: &str| tokenizer.encode_alone(text).unwrap();
        let prompts =
            encoder(&tokenizer, Bos::Auto, 99).prompts("f", &item("In the", &[" beginning", " end"])).unwrap();
        // 1338 is "In", 260 " the", 2926 " beginning".
        let expected =
            Prompt { context: vec![1338, 260], continuations: vec![vec![2926], ids("In the end")[2..].to_vec()] };
        assert_eq!(prompts, [expected]);
        // The space at the end of the context is the continuation's; here it becomes two spaces.
        let spaced =
            encoder(&tokenizer, Bos::Auto, 99).prompts("f", &item("In the ", &[" beginning", "beginning"])).unwrap();
        let expected = vec![ids("In the  beginning")[2..].to_vec(), vec![2926]];
        assert_eq!(spaced, [Prompt { context: vec![1338, 260], continuations: expected }]);
    }

    #[test]
    fn the_first_token_is_the_tokenizers_or_none_and_never_twice() {
        let tokenizer = tokenizer(true);
        let prompt = |bos, context: &str| {
            let prompts = encoder(&tokenizer, bos, 99).prompts("f", &item(context, &[" beginning"])).unwrap();
            (prompts[0].context.clone(), prompts[0].continuations[0].clone())
        };
        assert_eq!(prompt(Bos::Auto, "In the"), (vec![0, 1338, 260], vec![2926]));
        assert_eq!(prompt(Bos::Never, "In the"), (vec![1338, 260], vec![2926]));
        assert_eq!(prompt(Bos::Auto, "<|endoftext|>In the"), (vec![0, 1338, 260], vec![2926]));
        // Nothing before it: the token that begins a text.
        assert_eq!(prompt(Bos::Auto, ""), (vec![0], vec![2926]));
        assert_eq!(prompt(Bos::Never, ""), (vec![9], vec![2926]));
    }

    #[test]
    fn what_is_too_long_loses_its_beginning() {
        let tokenizer = tokenizer(false);
        let (short, long) = (" end", " beginning beginning beginning");
        let item = item("In the the the", &[short, long, short]);
        let whole = encoder(&tokenizer, Bos::Auto, 99).prompts("f", &item).unwrap();
        assert_eq!((whole.len(), whole[0].continuations[1].len(), whole[0].context.len()), (1, 3, 4));
        // One that is predicted only does not count.
        assert_eq!(encoder(&tokenizer, Bos::Auto, 6).prompts("f", &item).unwrap(), whole);
        let cut = encoder(&tokenizer, Bos::Auto, 5).prompts("f", &item).unwrap();
        let lengths: Vec<_> = cut.iter().map(|prompt| (prompt.context.len(), prompt.continuations.len())).collect();
        assert_eq!(lengths, [(4, 1), (3, 1), (4, 1)]);
        assert_eq!(cut[1].context, whole[0].context[1..]);
        let error = encoder(&tokenizer, Bos::Auto, 2).prompts("f", &item).unwrap_err().to_string();
        assert!(error.contains("f: row 1: a choice has 3 tokens"), "{error}");
    }

    #[test]
    fn what_adds_nothing_is_refused() {
        let tokenizer = tokenizer(false);
        let error = encoder(&tokenizer, Bos::Auto, 9).prompts("f", &item("In", &[""])).unwrap_err().to_string();
        assert!(error.contains("adds no token"), "{error}");
        let nothing = Encoder { prefix: None, ..encoder(&tokenizer, Bos::Auto, 9) };
        assert!(nothing.prompts("f", &item("", &[" the"])).unwrap_err().to_string().contains("its text is empty"));
    }
}
