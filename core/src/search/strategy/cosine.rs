//! The importance by which LLM-Drop removes blocks (He et al., "What Matters in Transformers? Not All Attention is Needed", 2024):
//! S = 1 - E[x . y / (|x| |y|)] over the tokens of the text, with the hidden states x that a block reads before its norm and
//! y = x + f(x) behind it, in the whole model. The least important goes first: attention, feed-forward or both jointly, as the
//! block types say. Of a pair or a layer, y is what is behind both blocks.

use super::once::passes_of_changes;
use super::{StepContext, StepFuture, Strategy, StrategyNeeds};
use crate::search::Objective;
use crate::text::Windows;

/// Approximate: units go in the order of how little they turn the hidden states.
#[derive(Clone, Copy, Debug)]
pub struct Cosine;

impl Strategy for Cosine {
    fn name(&self) -> &str {
        "cosine"
    }

    fn chosen_by(&self) -> &str {
        "1 - the mean cosine similarity of the hidden states before and after them, measured once (LLM-Drop, He et al., 2024)"
    }

    fn objective(&self) -> Option<Objective> {
        Some(Objective::CosineDistance)
    }

    fn needs(&self, _windows: &Windows) -> StrategyNeeds {
        StrategyNeeds::CHANGES
    }

    fn passes(&self, step: usize, _candidates: usize) -> usize {
        passes_of_changes(step)
    }

    fn step<'a>(&'a self, step: &'a mut StepContext<'_>) -> StepFuture<'a> {
        Box::pin(step.step_by_change(|change| change.cosine_distance))
    }
}
