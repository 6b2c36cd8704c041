//! What a search did, against the published loop, which runs a whole pass for every candidate.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::ModelSpec;
use crate::search::{Arithmetic, CandidateState, Reason, Step, Work};
use crate::text::Windows;

/// One step.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct StepCount {
    /// 1-based.
    pub step: usize,
    /// Candidates; so many passes the published loop runs.
    pub candidates: usize,
    /// Scored to the end.
    pub complete: usize,
    /// Dropped by an exact bound.
    pub bounded: usize,
    /// Dropped by the approximate race.
    pub raced: usize,
    /// Whose loss was not finite.
    pub rejected: usize,
    /// Done.
    pub work: Work,
    /// What the published loop does.
    pub exhaustive: Work,
    /// Wall time.
    pub seconds: f64,
}

/// Candidates that were dropped for the same reason.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Dropped {
    /// How many.
    pub candidates: usize,
    /// Tokens that did not go through the head for it.
    pub head_tokens_saved: u64,
    /// The same as a share of all that the published loop's head does.
    pub head_share_saved: f64,
}

/// All steps.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct SearchCount {
    /// One by one.
    pub steps: Vec<StepCount>,
    /// Candidates of all steps.
    pub candidates: usize,
    /// Candidates that were dropped early, by the reason.
    pub dropped: BTreeMap<String, Dropped>,
    /// Done.
    pub work: Work,
    /// What the published loop does.
    pub exhaustive: Work,
    /// Share of the published loop's block work that was done.
    pub block_share: f64,
    /// Share of its head work.
    pub head_share: f64,
    /// Share of its arithmetic, all blocks of the mean size.
    pub arithmetic_share: f64,
    /// Wall time of all steps, the dense pass before them not included.
    pub seconds: f64,
}

impl SearchCount {
    /// Counts the steps of a search from the whole model on.
    pub fn new(spec: &ModelSpec, windows: &Windows, steps: &[Step]) -> Self {
        let blocks = spec.blocks().count();
        let mut count = Self::default();
        let mut gone = 0;
        for step in steps {
            let state = |state| step.candidates.iter().filter(|candidate| candidate.state == state).count();
            let passes = step.candidates.len() as u64;
            let tokens = (windows.count * (windows.window - 1)) as u64;
            gone += step.removed.blocks().count();
            let exhaustive = Work {
                block_tokens: passes * (blocks.saturating_sub(gone) * windows.ids.len()) as u64,
                head_tokens: passes * tokens,
            };
            for candidate in &step.candidates {
                let reason = match candidate.state {
                    CandidateState::Bounded => candidate.reason.as_ref().map(Reason::to_string).unwrap_or_default(),
                    CandidateState::Raced if candidate.head_tokens == 0 => "not scored".into(),
                    CandidateState::Raced => format!("approximate: behind after {} tokens", candidate.head_tokens),
                    CandidateState::Complete | CandidateState::Rejected => continue,
                };
                let dropped = count.dropped.entry(reason).or_default();
                dropped.candidates += 1;
                dropped.head_tokens_saved += tokens.saturating_sub(candidate.head_tokens);
            }
            count.work += step.work;
            count.exhaustive += exhaustive;
            count.candidates += step.candidates.len();
            count.seconds += step.seconds;
            count.steps.push(StepCount {
                step: step.step,
                candidates: step.candidates.len(),
                complete: state(CandidateState::Complete),
                bounded: state(CandidateState::Bounded),
                raced: state(CandidateState::Raced),
                rejected: state(CandidateState::Rejected),
                work: step.work,
                exhaustive,
                seconds: step.seconds,
            });
        }
        let share = |done: f64, all: f64| if all > 0.0 { done / all } else { 1.0 };
        let arithmetic = Arithmetic::new(spec, windows.window);
        count.block_share = share(count.work.block_tokens as f64, count.exhaustive.block_tokens as f64);
        let head_tokens = count.exhaustive.head_tokens as f64;
        for dropped in count.dropped.values_mut() {
            dropped.head_share_saved = share(dropped.head_tokens_saved as f64, head_tokens);
        }
        count.head_share = share(count.work.head_tokens as f64, head_tokens);
        count.arithmetic_share = share(arithmetic.flops(&count.work), arithmetic.flops(&count.exhaustive));
        count
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::model::Checkpoint;
    use crate::search::{Candidate, Unit};

    #[test]
    fn the_published_loop_is_counted() {
        let checkpoint = pollster::block_on(Checkpoint::open("builtin:tiny")).unwrap();
        let spec = &checkpoint.spec;
        let windows = Windows::from_ids(vec![1; 64], 32, None).unwrap();
        let candidate = |unit, state| Candidate {
            unit,
            value: None,
            perplexity: None,
            at_least: None,
            state,
            head_tokens: 2,
            reason: None,
        };
        let blocks: Vec<Unit> = spec.blocks().map(Unit::Block).collect();
        let step = |step: usize, state: CandidateState| Step {
            step,
            removed: blocks[step],
            value: 1.0,
            perplexity: 1.0,
            candidates: blocks[step - 1..].iter().map(|block| candidate(*block, state)).collect(),
            work: Work { block_tokens: 64, head_tokens: 62 },
            params_left: 0,
            ratio_removed: 0.0,
            bytes: None,
            kv_cache: None,
            seconds: 0.5,
        };
        let count =
            SearchCount::new(spec, &windows, &[step(1, CandidateState::Complete), step(2, CandidateState::Bounded)]);
        // 24 candidates of 23 blocks, then 23 of 22.
        let exhaustive = Work { block_tokens: (24 * 23 + 23 * 22) * 64, head_tokens: (24 + 23) * 2 * 31 };
        assert_eq!(count.exhaustive, exhaustive);
        assert_eq!(count.work, Work { block_tokens: 128, head_tokens: 124 });
        assert_eq!((count.candidates, count.seconds), (47, 1.0));
        assert_eq!((count.steps[0].complete, count.steps[1].bounded), (24, 23));
        // Each of them saw 2 of 62 targets.
        let dropped = count.dropped.values().next().unwrap();
        assert_eq!((count.dropped.len(), dropped.candidates, dropped.head_tokens_saved), (1, 23, 23 * 60));
        assert!((dropped.head_share_saved - 23.0 * 60.0 / (47.0 * 62.0)).abs() < 1e-12);
        let (blocks, head) = (count.block_share, count.head_share);
        assert!(blocks < count.arithmetic_share && count.arithmetic_share < head, "{count:?}");
    }
}
