//! Racing, an approximation: all candidates run over the first windows, and those that are clearly behind the best one
//! there are dropped. Where windows are few, a race opens with the beginning of the first one. Differences are paired, target
//! by target, because most of a loss is the text's and not the candidate's.

use std::collections::BTreeMap;

use super::{StepContext, StepFuture, Strategy, StrategyNeeds, candidate};
use crate::score::Score;
use crate::search::sweep::{Outcome, Scored};
use crate::search::{Candidate, CandidateState, Event, Reason, SearchError, Unit};
use crate::text::Windows;

/// Approximate: candidates that fall behind on the first windows are dropped.
#[derive(Clone, Copy, Debug)]
pub struct Racing;

impl Strategy for Racing {
    fn name(&self) -> &str {
        "racing"
    }

    fn needs(&self, windows: &Windows) -> StrategyNeeds {
        StrategyNeeds { heats: HEATS, opening: opening(windows), ..StrategyNeeds::default() }
    }

    fn usual_share(&self, _step: usize) -> f64 {
        0.5
    }

    fn step<'a>(&'a self, step: &'a mut StepContext<'_>) -> StepFuture<'a> {
        Box::pin(race(step))
    }
}

/// Parts of the text after each of which candidates may be dropped.
const HEATS: usize = 8;
/// A race needs so many tokens at least to see a difference,
const LEAST_OPENING: usize = 128;
/// and begins on a multiple of so many, which fills the blocks of every attention kernel.
const OPENING_GRAIN: usize = 64;

/// Tokens that a race begins with, the first ones of the first window, where the windows are too few for the heats; or 0.
fn opening(windows: &Windows) -> usize {
    let half_a_heat = windows.window * windows.count / (2 * HEATS) / OPENING_GRAIN * OPENING_GRAIN;
    if windows.count < HEATS && half_a_heat >= LEAST_OPENING { half_a_heat } else { 0 }
}

/// A candidate is dropped when it is worse than the leader with this confidence, by a one-sided paired t-test: the level that
/// is usual for races (Birattari et al., 2002),
const CONFIDENCE: f64 = 0.95;
/// the quantile of the normal distribution for that
const NORMAL_QUANTILE: f64 = 1.6449;
/// and differences averaged over so many neighbouring targets, which depend on each other.
const RUN: usize = 16;

/// One step of a racing search. Nothing of it is told before all candidates are settled.
async fn race(context: &mut StepContext<'_>) -> Result<(), SearchError> {
    let mut live = context.open();
    if live.is_empty() {
        // It was saved between the race and its end.
        return Ok(());
    }
    live.sort_by_key(Unit::by_layer);
    let (step, removed) = (context.number(), context.removed());
    let mut settled: Vec<Candidate> = Vec::new();
    let StepContext { scorer, sweep: Some(sweep), memory, state, observe, .. } = context else {
        return context.score(&live).await;
    };
    let kept = scorer.kept();
    let mut nll: BTreeMap<Unit, Vec<f32>> = BTreeMap::new();
    let mut head_tokens: BTreeMap<Unit, u64> = BTreeMap::new();
    let heats: Vec<usize> = sweep.opening().into_iter().chain(0..sweep.batches()).collect();
    for (heat, batch) in heats.iter().copied().enumerate() {
        let waves = live.len().div_ceil(memory.wave);
        for (index, wave) in live.chunks(memory.wave).enumerate() {
            let mut progress = |share: f64, work| {
                let part = (index as f64 + share) / waves as f64;
                let done = (heat as f64 + part) / heats.len() as f64;
                observe(Event::Progress { step, done, work: state.work + work }, state)
            };
            for (unit, losses) in sweep.nll(batch, wave, &mut progress).await? {
                *head_tokens.entry(unit).or_default() += losses.len() as u64;
                nll.entry(unit).or_default().extend(losses);
            }
        }
        live.retain(|unit| {
            let Some(error) = Score::from_nll(&nll[unit], kept, &removed.with(unit.blocks())).err() else {
                return true;
            };
            settled.extend(candidate(Scored { unit: *unit, outcome: Err(error), head_tokens: head_tokens[unit] }));
            false
        });
        if heat + 1 < heats.len() {
            drop_losers(&mut live, &nll, &head_tokens, &mut settled);
        }
        if sweep.opening() == Some(batch) {
            // These tokens come again, with their whole window.
            nll.clear();
        }
    }
    state.work += sweep.take_work();
    for unit in live {
        let outcome = Score::from_nll(&nll[&unit], kept, &removed.with(unit.blocks())).map(Outcome::Complete);
        settled.push(candidate(Scored { unit, outcome, head_tokens: head_tokens[&unit] })?);
    }
    context.record(settled)
}

fn drop_losers(
    live: &mut Vec<Unit>,
    nll: &BTreeMap<Unit, Vec<f32>>,
    head_tokens: &BTreeMap<Unit, u64>,
    settled: &mut Vec<Candidate>,
) {
    let mean = |unit: &Unit| nll[unit].iter().map(|loss| *loss as f64).sum::<f64>();
    let Some(leader) = live.iter().copied().min_by(|a, b| mean(a).total_cmp(&mean(b))) else { return };
    live.retain(|unit| {
        let behind = Lead::of(&nll[&leader], &nll[unit]);
        if *unit == leader || !behind.is_clear() {
            return true;
        }
        settled.push(Candidate {
            unit: *unit,
            value: None,
            perplexity: None,
            at_least: None,
            state: CandidateState::Raced,
            head_tokens: head_tokens[unit],
            reason: Some(Reason::Behind {
                leader,
                mean: to_four_decimals(behind.mean),
                error: to_four_decimals(behind.error),
                tokens: nll[unit].len(),
                confidence: CONFIDENCE * 100.0,
            }),
        });
        false
    });
}

/// As it is printed.
fn to_four_decimals(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// How far a candidate is behind, in nats a token.
struct Lead {
    mean: f64,
    /// Standard error of the mean.
    error: f64,
    /// Independent differences that it rests on.
    samples: usize,
}

impl Lead {
    fn of(leader: &[f32], other: &[f32]) -> Self {
        let pairs = leader.chunks_exact(RUN).zip(other.chunks_exact(RUN));
        let difference =
            |(a, b): (&[f32], &[f32])| a.iter().zip(b).map(|(a, b)| *b as f64 - *a as f64).sum::<f64>() / RUN as f64;
        let differences: Vec<f64> = pairs.map(difference).collect();
        let samples = differences.len();
        let mean = differences.iter().sum::<f64>() / samples.max(1) as f64;
        let square = differences.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
        let error = (square / samples.saturating_sub(1).max(1) as f64 / samples.max(1) as f64).sqrt();
        Self { mean, error, samples }
    }

    fn is_clear(&self) -> bool {
        self.samples >= 4 && self.mean > self.error * t_quantile(self.samples - 1)
    }
}

/// Quantile of Student's t distribution at [`CONFIDENCE`]; Abramowitz and Stegun, 26.7.5.
fn t_quantile(degrees: usize) -> f64 {
    let (z, n) = (NORMAL_QUANTILE, degrees as f64);
    z + (z.powi(3) + z) / (4.0 * n)
        + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * n * n)
        + (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / (384.0 * n.powi(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against tables of the one-sided 0.95 quantile.
    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (degrees, expected) in [(10, 1.812), (15, 1.753), (30, 1.697), (120, 1.658)] {
            assert!((t_quantile(degrees) - expected).abs() < 0.03, "{degrees}: {}", t_quantile(degrees));
        }
    }

    #[test]
    fn only_clear_losers_are_behind() {
        let noise = |i: usize| (i as f32 * 12.9898).sin();
        let leader: Vec<f32> = (0..256).map(|i| 3.0 + noise(i)).collect();
        let loser: Vec<f32> = (0..256).map(|i| 3.5 + noise(i) + 0.1 * noise(i + 7)).collect();
        let close: Vec<f32> = (0..256).map(|i| 3.001 + noise(i) + 0.5 * noise(i * 3 + 1)).collect();
        assert!(Lead::of(&leader, &loser).is_clear());
        assert!(!Lead::of(&leader, &close).is_clear());
        assert!(!Lead::of(&leader, &leader).is_clear() && !Lead::of(&loser, &leader).is_clear());
        assert!(!Lead::of(&leader[..40], &loser[..40]).is_clear(), "too few samples");
    }
}
