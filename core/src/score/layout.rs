//! Prompts as windows of rows: which tokens run, and which rows predict what.

use super::continuations::Prompt;
use crate::model::ModelSpec;

/// A token whose likelihood is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The row of its window that predicts it.
    pub row: u32,
    pub token: u32,
    pub prompt: usize,
    pub continuation: usize,
}

/// A context, and behind it the tokens of continuations but for their last, which are only predicted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Window {
    pub tokens: Vec<u32>,
    pub targets: Vec<Target>,
    /// The shortest text that has the rotary frequencies of those in it.
    pub alike: usize,
}

/// A window for each continuation, of at most `most` rows unless it has more by itself.
pub(super) fn windows(spec: &ModelSpec, prompts: &[Prompt]) -> Vec<Window> {
    let mut windows = Vec::new();
    for (prompt, Prompt { context, continuations }) in prompts.iter().enumerate() {
        for (continuation, tokens) in continuations.iter().enumerate() {
            let mut window = Window { tokens: context.clone(), ..Window::default() };
            window.tokens.extend(&tokens[..tokens.len() - 1]);
            let rows = context.len() as u32 - 1..;
            window.targets.extend(rows.zip(tokens).map(|(row, token)| Target {
                row,
                token: *token,
                prompt,
                continuation,
            }));
            let alike = spec.ropes.iter().map(|rope| rope.shortest_alike(window.tokens.len()));
            window.alike = alike.max().unwrap_or(1);
            windows.push(window);
        }
    }
    windows
}

/// Windows that run together: of similar lengths, with the same rotary frequencies, of up to `most` rows, where each takes
/// `rows(longest)`, and as many targets.
pub(super) fn batches(mut windows: Vec<Window>, most: usize, rows: impl Fn(usize) -> usize) -> Vec<Vec<Window>> {
    windows.sort_by_key(|window| std::cmp::Reverse((window.alike, window.tokens.len())));
    let mut batches: Vec<Vec<Window>> = Vec::new();
    let mut targets = 0;
    for window in windows {
        let batch = batches.last_mut().filter(|batch| {
            let fits = (batch.len() + 1) * rows(batch[0].tokens.len()) <= most;
            fits && targets + window.targets.len() <= most && batch[0].alike == window.alike
        });
        match batch {
            Some(batch) => {
                targets += window.targets.len();
                batch.push(window);
            }
            None => {
                targets = window.targets.len();
                batches.push(vec![window]);
            }
        }
    }
    batches
}
