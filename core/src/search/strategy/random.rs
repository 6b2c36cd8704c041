//! Chance, which every other strategy has to beat: in each step every candidate is as likely to go. A candidate's value is the
//! first 53 bits of SHA-256 over "SEED STEP UNIT", the step counted from 1, as a fraction of 2^53: the lowest goes. One seed is one
//! draw, whose first steps are those of a longer one.

use sha2::{Digest, Sha256};

use super::{StepContext, StepFuture, Strategy, StrategyNeeds};
use crate::search::{Objective, Unit};
use crate::text::Windows;

/// Approximate: a seed draws what goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Random {
    seed: u64,
}

impl Random {
    /// The draw of a seed.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// At least 0, less than 1.
    fn value(self, step: usize, unit: Unit) -> f64 {
        let digest = Sha256::digest(format!("{} {step} {unit}", self.seed));
        let number = digest.iter().take(8).fold(0u64, |number, byte| number << 8 | *byte as u64);
        (number >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl Strategy for Random {
    fn name(&self) -> &str {
        "random"
    }

    fn chosen_by(&self) -> &str {
        "chance"
    }

    fn objective(&self) -> Option<Objective> {
        Some(Objective::Random)
    }

    fn seed(&self) -> Option<u64> {
        Some(self.seed)
    }

    fn needs(&self, _windows: &Windows) -> StrategyNeeds {
        StrategyNeeds { together: false, ..StrategyNeeds::default() }
    }

    fn passes(&self, _step: usize, _candidates: usize) -> usize {
        1
    }

    fn step<'a>(&'a self, step: &'a mut StepContext<'_>) -> StepFuture<'a> {
        Box::pin(async move {
            let number = step.number();
            let values: Vec<_> = step.open().into_iter().map(|unit| (unit, self.value(number, unit))).collect();
            step.record_values(&values)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BlockId;

    /// As `printf '7 1 mha:0' | sha256sum` says.
    #[test]
    fn a_seed_decides() {
        let unit = Unit::from(BlockId::mha(0));
        let found = Random::new(7).value(1, unit);
        assert_eq!(found, 0.8209168167409286);
        for other in [Random::new(8).value(1, unit), Random::new(7).value(2, unit)] {
            assert_ne!(found, other);
        }
    }
}
