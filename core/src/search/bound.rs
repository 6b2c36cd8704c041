//! Exact bounds: what shows before the end that a candidate cannot win any more.
//!
//! No loss is negative, and the log-sum-exp over a part of the vocabulary is never above that over the whole. So the NLL of
//! a target is at least the log-sum-exp over any part that holds the target, minus the target's logit.

/// A candidate is dropped only if it is worse by this much of the incumbent's mean NLL plus one nat: far more than the
/// rounding of f32 sums, so that an equal or better candidate never is.
const MARGIN: f64 = 1e-4;

/// What the other candidates have to beat.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    mean_nll: f64,
}

impl Bound {
    /// From the mean NLL of a candidate that was scored completely.
    pub(super) fn new(mean_nll: f64) -> Self {
        Self { mean_nll }
    }

    /// Whether a candidate with a mean NLL of at least `lower` cannot win.
    pub(super) fn beats(&self, lower: f64) -> bool {
        lower.is_finite() && lower > self.mean_nll + MARGIN * (1.0 + self.mean_nll.abs())
    }
}

/// Lower bound of the sum of some targets' NLL, from `[rows]` of (maximum, sum of exp(logit - maximum), logit of the
/// target, unused) over a part of the vocabulary that holds every target.
pub(super) fn least_sum(running: &[f32]) -> f64 {
    running.chunks_exact(4).map(|row| log_sum_exp(row) - row[2] as f64).sum()
}

fn log_sum_exp(row: &[f32]) -> f64 {
    row[0] as f64 + (row[1] as f64).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the shader leaves it after some columns.
    fn running(logits: &[f32], target: f32) -> [f32; 4] {
        let largest = logits.iter().copied().fold(f32::MIN, f32::max);
        [largest, logits.iter().map(|x| (x - largest).exp()).sum(), target, 0.0]
    }

    #[test]
    fn bounds_rise_towards_the_loss_and_stay_below() {
        let logits: Vec<f32> = (0..64).map(|i| ((i * 37 % 64) as f32 / 7.0).sin() * 6.0).collect();
        for target in [0, 5, 7] {
            let exact = least_sum(&running(&logits, logits[target]));
            let mut before = 0.0;
            for seen in [8, 16, 32, 64] {
                let bound = least_sum(&running(&logits[..seen], logits[target]));
                assert!(bound >= before && bound <= exact + 1e-5, "{bound} {before} {exact}");
                before = bound;
            }
            assert!((before - exact).abs() < 1e-5);
        }
    }

    #[test]
    fn equals_are_never_dropped() {
        let bound = Bound::new(3.0);
        assert!(!bound.beats(3.0) && !bound.beats(2.0) && !bound.beats(3.0001) && bound.beats(3.01));
        assert!(!bound.beats(f64::NAN) && !bound.beats(f64::INFINITY));
    }
}
