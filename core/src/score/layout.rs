//! Prompts as windows of rows: which tokens run, and which rows predict what.

use blockpruner_shaders::attention::Place;

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
    /// Of each row.
    pub places: Vec<Place>,
    /// Whether there are rows that do not see all before them, as with two continuations that have any.
    pub branches: bool,
    pub targets: Vec<Target>,
    /// The shortest text that has the rotary frequencies of those in it.
    pub alike: usize,
}

impl Window {
    fn new(context: &[u32], alike: usize) -> Self {
        let places = vec![Place::default(); context.len()];
        Self { tokens: context.to_vec(), places, alike, ..Self::default() }
    }

    fn push(&mut self, context: usize, tokens: &[u32], prompt: usize, continuation: usize) {
        let (start, rows) = (self.tokens.len(), tokens.len() - 1);
        self.branches |= start > context && rows > 0;
        self.tokens.extend(&tokens[..rows]);
        self.places.resize(start + rows, Place { start: start as u32, context: context as u32 });
        // The context's last row predicts the first token of every continuation.
        let predicting = std::iter::once(context - 1).chain(start..);
        let target = |(row, token): (usize, &u32)| Target { row: row as u32, token: *token, prompt, continuation };
        self.targets.extend(predicting.zip(tokens).map(target));
    }
}

/// The prompts as windows of at most `most` rows and targets, unless a continuation has more by itself: one for each prompt, or
/// for each continuation if contexts are not shared.
pub(super) fn windows(spec: &ModelSpec, prompts: &[Prompt], most: usize, shared: bool) -> Vec<Window> {
    let mut windows: Vec<Window> = Vec::new();
    for (prompt, Prompt { context, continuations }) in prompts.iter().enumerate() {
        let first = windows.len();
        for (continuation, tokens) in continuations.iter().enumerate() {
            let rows = tokens.len() - 1;
            let ropes = spec.ropes.iter().map(|rope| rope.shortest_alike(context.len() + rows));
            let alike = ropes.max().unwrap_or(1);
            let fits = |window: &Window| {
                let targets = window.targets.len() + tokens.len();
                window.alike == alike && (window.tokens.len() + rows).max(targets) <= most
            };
            if !(shared && windows[first..].last().is_some_and(fits)) {
                windows.push(Window::new(context, alike));
            }
            if let Some(window) = windows.last_mut() {
                window.push(context.len(), tokens, prompt, continuation);
            }
        }
    }
    windows
}

/// Windows that run together: of similar lengths, by the same kernel, with the same rotary frequencies, of up to `most` rows, where each takes
/// `rows(longest)`, and as many targets.
pub(super) fn batches(mut windows: Vec<Window>, most: usize, rows: impl Fn(usize) -> usize) -> Vec<Vec<Window>> {
    windows.sort_by_key(|window| std::cmp::Reverse((window.alike, window.branches, window.tokens.len())));
    let mut batches: Vec<Vec<Window>> = Vec::new();
    let mut targets = 0;
    for window in windows {
        let batch = batches.last_mut().filter(|batch| {
            let fits = (batch.len() + 1) * rows(batch[0].tokens.len()) <= most;
            let is_like = batch[0].alike == window.alike && batch[0].branches == window.branches;
            fits && targets + window.targets.len() <= most && is_like
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
