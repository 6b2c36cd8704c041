//! Strategies that measure once how units change the hidden states of the whole model, and remove the one that changes them least
//! first. Over the tokens of the text, with the hidden states x in front of a unit and y = x + f(x) behind it:
//!
//! - Block Influence of ShortGPT (Men et al., "ShortGPT: Layers in Large Language Models are More Redundant Than You Expect", 2024),
//!   of layers: BI = 1 - E[x . y / (|x| |y|)].
//! - The importance of LLM-Drop (He et al., "What Matters in Transformers? Not All Attention is Needed", 2024), the same of blocks, x
//!   read before their norm: attention, feed-forward or both jointly, as the block types say. Of a pair or a layer, y is what is
//!   behind both blocks.
//! - Relative magnitude (Samragh et al., "Weight subcloning: direct initialization of transformers using larger pretrained ones",
//!   2023; in the form of ShortGPT's comparison): RM = E[|f(x)| / |x + f(x)|].

use super::{StepContext, StepFuture, Strategy, StrategyNeeds};
use crate::score::StateChange;
use crate::search::{Objective, Units};
use crate::text::Windows;

/// Approximate: units go in the order of how little they change the hidden states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByChange {
    /// Layers, by how little they turn them.
    ShortGpt,
    /// Any units, by how little they turn them.
    Cosine,
    /// Any units, by how little they add to them.
    RelativeMagnitude,
}

impl ByChange {
    fn value(self, change: &StateChange) -> f64 {
        match self {
            Self::ShortGpt | Self::Cosine => change.cosine_distance,
            Self::RelativeMagnitude => change.relative_magnitude,
        }
    }
}

impl Strategy for ByChange {
    fn name(&self) -> &str {
        match self {
            Self::ShortGpt => "short-gpt",
            Self::Cosine => "cosine",
            Self::RelativeMagnitude => "relative-magnitude",
        }
    }

    fn chosen_by(&self) -> &str {
        match self {
            Self::ShortGpt => {
                "their Block Influence, 1 - the mean cosine similarity of the hidden states before and after a layer, measured once \
                 (ShortGPT, Men et al., 2024)"
            }
            Self::Cosine => {
                "1 - the mean cosine similarity of the hidden states before and after them, measured once (LLM-Drop, He et al., 2024)"
            }
            Self::RelativeMagnitude => {
                "the mean length of what they add to the hidden states, relative to what comes of it, measured once (relative \
                 magnitude, Samragh et al., 2023)"
            }
        }
    }

    fn objective(&self) -> Option<Objective> {
        Some(match self {
            Self::ShortGpt | Self::Cosine => Objective::CosineDistance,
            Self::RelativeMagnitude => Objective::RelativeMagnitude,
        })
    }

    fn units(&self) -> Option<Units> {
        (*self == Self::ShortGpt).then_some(Units::Layers)
    }

    fn needs(&self, _windows: &Windows) -> StrategyNeeds {
        StrategyNeeds::CHANGES
    }

    /// One for the changes, and in every step the one for the perplexity of what goes.
    fn passes(&self, step: usize, _candidates: usize) -> usize {
        if step == 1 { 2 } else { 1 }
    }

    fn step<'a>(&'a self, step: &'a mut StepContext<'_>) -> StepFuture<'a> {
        Box::pin(async move {
            let units = step.carry_over()?;
            let changes = step.changes(&units).await?;
            let values: Vec<_> = changes.iter().map(|(unit, change)| (*unit, self.value(change))).collect();
            step.record_values(&values)
        })
    }
}
