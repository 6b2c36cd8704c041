//! The published loop literally.

use super::{StepContext, StepFuture, Strategy, StrategyNeeds};
use crate::text::Windows;

/// The published loop literally: a whole forward pass for every candidate, in the published order.
#[derive(Clone, Copy, Debug)]
pub struct Exhaustive;

impl Strategy for Exhaustive {
    fn name(&self) -> &str {
        "exhaustive"
    }

    fn is_approximate(&self) -> bool {
        false
    }

    fn needs(&self, _windows: &Windows) -> StrategyNeeds {
        StrategyNeeds { together: false, ..StrategyNeeds::default() }
    }

    fn step<'a>(&'a self, step: &'a mut StepContext<'_>) -> StepFuture<'a> {
        Box::pin(async move { step.score(&step.open()).await })
    }
}
