//! Relative magnitude (Samragh et al., "Weight subcloning: direct initialization of transformers using larger pretrained ones", 2023;
//! in the form of ShortGPT's comparison): RM = E[|f(x)| / |x + f(x)|] over the tokens of the text, with the hidden states x in front
//! of a unit and x + f(x) behind it, in the whole model. The unit that adds the least, relative to what comes of it, goes first.

use super::once::passes_of_changes;
use super::{StepContext, StepFuture, Strategy, StrategyNeeds};
use crate::search::Objective;
use crate::text::Windows;

/// Approximate: units go in the order of how little they add to the hidden states.
#[derive(Clone, Copy, Debug)]
pub struct RelativeMagnitude;

impl Strategy for RelativeMagnitude {
    fn name(&self) -> &str {
        "relative-magnitude"
    }

    fn chosen_by(&self) -> &str {
        "the mean length of what they add to the hidden states, relative to what comes of it, measured once (relative magnitude, \
         Samragh et al., 2023)"
    }

    fn objective(&self) -> Option<Objective> {
        Some(Objective::RelativeMagnitude)
    }

    fn needs(&self, _windows: &Windows) -> StrategyNeeds {
        StrategyNeeds::CHANGES
    }

    fn passes(&self, step: usize, _candidates: usize) -> usize {
        passes_of_changes(step)
    }

    fn step<'a>(&'a self, step: &'a mut StepContext<'_>) -> StepFuture<'a> {
        Box::pin(step.step_by_change(|change| change.relative_magnitude))
    }
}
