//! One-shot removal by perplexity, the ablation of BlockPruner (Zhong et al., Findings of ACL 2025): every unit is scored once, by
//! the perplexity of the text without it alone, PPL(model - u), and they go in that order. The first step is that of the
//! published search; what it leaves out is to look again after each removal.

use super::{StepContext, StepFuture, Strategy};
use crate::search::Unit;

/// Approximate: units go in the order of the perplexities without each of them alone.
#[derive(Clone, Copy, Debug)]
pub struct OneShot;

impl Strategy for OneShot {
    fn name(&self) -> &str {
        "one-shot"
    }

    fn chosen_by(&self) -> &str {
        "the perplexity of the calibration text without each alone, measured once (the one-shot ablation of BlockPruner, Zhong et \
         al., Findings of ACL 2025)"
    }

    fn passes(&self, step: usize, candidates: usize) -> usize {
        if step == 1 { candidates } else { 1 }
    }

    fn step<'a>(&'a self, step: &'a mut StepContext<'_>) -> StepFuture<'a> {
        Box::pin(async move {
            let mut units = step.carry_over()?;
            units.sort_by_key(Unit::by_layer);
            step.score(&units).await
        })
    }
}
