//! Block Influence, by which ShortGPT removes layers (Men et al., "ShortGPT: Layers in Large Language Models are More Redundant Than
//! You Expect", 2024): BI = 1 - E[x . y / (|x| |y|)] over the tokens of the text, with the hidden states x in front of a layer and y
//! behind it, in the whole model. The layer of the least influence goes first.

use super::once::passes_of_changes;
use super::{StepContext, StepFuture, Strategy, StrategyNeeds};
use crate::search::{Objective, Units};
use crate::text::Windows;

/// Approximate: layers go in the order of their Block Influence.
#[derive(Clone, Copy, Debug)]
pub struct ShortGpt;

impl Strategy for ShortGpt {
    fn name(&self) -> &str {
        "short-gpt"
    }

    fn chosen_by(&self) -> &str {
        "their Block Influence, 1 - the mean cosine similarity of the hidden states before and after a layer, measured once (ShortGPT, \
         Men et al., 2024)"
    }

    fn objective(&self) -> Option<Objective> {
        Some(Objective::CosineDistance)
    }

    fn units(&self) -> Option<Units> {
        Some(Units::Layers)
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
