//! What a model writes beside what it writes without some of its blocks. Choosing among given answers flatters pruned models:
//! one that has fallen into repeating itself may still find the likelier of two endings.

use std::collections::HashSet;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::EvalError;
use crate::generate::{GenerateError, GenerateOptions, Generator, prompt_ids};
use crate::model::{BlockSet, Checkpoint, DeviceModel};

/// Prompts for who brings none: general knowledge, stories, code and lists, three of each.
pub const GENERATION_PROMPTS: [&str; 12] = [
    "The capital of France is",
    "Water boils at a temperature of",
    "The largest planet in the solar system is",
    "Once upon a time, in a small village by the sea, there lived",
    "The old man opened the letter, read the first line, and",
    "She had never seen so much snow. When she opened the door,",
    "def factorial(n):\n    \"\"\"Returns n!.\"\"\"\n",
    "# Reads a file and counts its words.\nimport sys\n\n",
    "function reverse(text) {\n",
    "Five fruits that are easy to find:\n1. Apples\n2.",
    "To make a cup of tea, follow these steps:\n1. Boil the water.\n2.",
    "The days of the week are Monday,",
];

/// Tokens at the end that are looked at for a loop.
const LOOP: usize = 16;

/// Greedy continuations of a model and of the same without some blocks. Shares are from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Generation {
    /// Prompt by prompt.
    pub prompts: Vec<PromptGeneration>,
    /// Mean over the prompts of their agreement.
    pub agreement: f64,
    /// Mean over the prompts of how much the whole model repeats itself.
    pub repetition_dense: f64,
    /// The same without the blocks.
    pub repetition_pruned: f64,
}

/// What followed one prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PromptGeneration {
    /// The prompt.
    pub prompt: String,
    /// What the whole model wrote.
    pub dense: String,
    /// What it wrote without the blocks.
    pub pruned: String,
    /// Share of the places at which both have the same token, of as many as the longer one has.
    pub agreement: f64,
    /// Tokens before the first one that differs; None if none does.
    pub first_difference: Option<usize>,
    /// Share of the 4-grams of `dense` that were there before in it (seq-rep-4; Welleck et al., 2020).
    pub repetition_dense: f64,
    /// The same of `pruned`.
    pub repetition_pruned: f64,
    /// Whether the last 16 tokens of `dense` are one sequence of up to 8 again and again.
    pub loops_dense: bool,
    /// The same of `pruned`.
    pub loops_pruned: bool,
}

/// The prompts of a file: its lines, without empty ones.
///
/// # Errors
/// [`EvalError::NoPrompt`].
pub fn generation_prompts(file: &str, text: &str) -> Result<Vec<String>, EvalError> {
    let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    match lines.map(str::to_string).collect::<Vec<_>>() {
        lines if lines.is_empty() => Err(EvalError::NoPrompt { file: file.into() }),
        lines => Ok(lines),
    }
}

impl Generation {
    /// Continues each prompt by the model and by the model without the blocks `removed`, up to `max_tokens` tokens each. `tell`
    /// is called with the continuations that are done and those that will be.
    ///
    /// # Errors
    /// Those of [`Generator::new`] and [`Generator::next`], and a tokenizer that is missing or refuses a text.
    pub async fn new(
        model: &Rc<DeviceModel>,
        checkpoint: &Checkpoint,
        prompts: &[String],
        removed: &BlockSet,
        max_tokens: usize,
        tell: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, GenerateError> {
        let tokenizer = checkpoint.tokenizer()?;
        let options = GenerateOptions::max_tokens(max_tokens).eos_token_ids(checkpoint.eos_token_ids()?);
        let mut found = Vec::with_capacity(prompts.len());
        for (index, prompt) in prompts.iter().enumerate() {
            let ids = prompt_ids(checkpoint, prompt)?;
            let mut written = [Vec::new(), Vec::new()];
            for (part, (tokens, removed)) in written.iter_mut().zip([&BlockSet::new(), removed]).enumerate() {
                let mut generator = Generator::new(model.clone(), removed.clone(), ids.clone(), options.clone())?;
                while let Some(token) = generator.next().await? {
                    tokens.push(token);
                }
                tell(2 * index + part + 1, 2 * prompts.len());
            }
            let [dense, pruned] = written.each_ref().map(Vec::as_slice);
            found.push(PromptGeneration {
                prompt: prompt.clone(),
                dense: tokenizer.decode(dense)?,
                pruned: tokenizer.decode(pruned)?,
                agreement: agreement(dense, pruned),
                first_difference: first_difference(dense, pruned),
                repetition_dense: repetition(dense),
                repetition_pruned: repetition(pruned),
                loops_dense: loops(dense),
                loops_pruned: loops(pruned),
            });
        }
        let mean =
            |value: fn(&PromptGeneration) -> f64| found.iter().map(value).sum::<f64>() / found.len().max(1) as f64;
        Ok(Self {
            agreement: mean(|prompt| prompt.agreement),
            repetition_dense: mean(|prompt| prompt.repetition_dense),
            repetition_pruned: mean(|prompt| prompt.repetition_pruned),
            prompts: found,
        })
    }
}

fn agreement(a: &[u32], b: &[u32]) -> f64 {
    match a.len().max(b.len()) {
        0 => 1.0,
        longer => a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / longer as f64,
    }
}

fn first_difference(a: &[u32], b: &[u32]) -> Option<usize> {
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    (same < a.len().max(b.len())).then_some(same)
}

fn repetition(tokens: &[u32]) -> f64 {
    let all = tokens.windows(4).count();
    let distinct = tokens.windows(4).collect::<HashSet<_>>().len();
    (all - distinct) as f64 / all.max(1) as f64
}

fn loops(tokens: &[u32]) -> bool {
    let Some(last) = tokens.len().checked_sub(LOOP).map(|first| &tokens[first..]) else { return false };
    (1..=LOOP / 2).any(|period| last[period..] == last[..LOOP - period])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn agreement_is_of_the_longer_text() {
        assert_eq!((agreement(&[], &[]), first_difference(&[], &[])), (1.0, None));
        assert_eq!((agreement(&[1, 2, 3, 4], &[1, 2, 3, 4]), first_difference(&[1, 2], &[1, 2])), (1.0, None));
        // After the first difference, places still count.
        assert_eq!((agreement(&[1, 9, 3, 4], &[1, 2, 3, 5]), first_difference(&[1, 9, 3], &[1, 2, 3])), (0.5, Some(1)));
        assert_eq!((agreement(&[1, 2], &[1, 2, 3, 4]), first_difference(&[1, 2], &[1, 2, 3, 4])), (0.5, Some(2)));
    }

    #[test]
    fn repetition_counts_sequences_of_four() {
        assert_eq!(repetition(&[1, 1, 1]), 0.0);
        assert_eq!(repetition(&[1, 2, 3, 4, 5, 6]), 0.0);
        assert_eq!(repetition(&[7; 8]), 0.8);
        // 1 2 3 4 comes again, and nothing else does.
        assert_eq!(repetition(&[1, 2, 3, 4, 9, 1, 2, 3, 4]), 1.0 / 6.0);
    }

    #[test]
    fn loops_are_at_the_end() {
        let [count, again]: [fn(u32) -> u32; 2] = [|i| i, |i| i % 5];
        let text = |first: fn(u32) -> u32, then: fn(u32) -> u32| -> Vec<u32> {
            (0..20).map(first).chain((0..16).map(then)).collect()
        };
        assert!(loops(&text(count, again)) && loops(&text(again, |_| 3)) && loops(&[3; 16]));
        assert!(!loops(&text(again, count)) && !loops(&[3; 15]) && !loops(&text(count, |i| i % 9)));
    }

    #[test]
    fn prompts_are_lines() {
        assert_eq!(generation_prompts("p.txt", "One\r\n\n  two \n").unwrap(), ["One", "  two"]);
        let error = generation_prompts("p.txt", "\n \n").unwrap_err();
        assert_eq!(error.to_string(), "p.txt: there is no prompt; write one on each line");
    }
}
