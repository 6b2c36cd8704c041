//! What would make a plan that is nearly plain an ordinary model, and what that costs.

use super::{Preparation, Search};
use crate::Error;
use crate::model::{BlockSet, PlainChange};
use crate::score::ScoreError;
use crate::search::SearchState;

/// An ordinary model near to the one that was found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NearlyPlain {
    /// What else goes, or stays.
    pub change: PlainChange,
    /// The blocks that are gone then.
    pub removed: BlockSet,
    /// Layers of the ordinary model.
    pub layers: usize,
    /// Its perplexity on the text of the search.
    pub perplexity: f64,
}

/// So many changes are measured at most.
const MOST: usize = 6;

impl Search {
    /// Ordinary models that are one or two blocks away from what was found, measured on the text of the search; the lowest
    /// perplexity first. Of many, those that promise the least, and none of which the search cannot tell. None if what was found
    /// is one; not the whole model, for which nobody has to search.
    ///
    /// # Errors
    /// Those of [`super::Session::perplexity`], but for a loss that is not finite.
    pub async fn nearly_plain(&self, tell: &mut dyn FnMut(Preparation)) -> Result<Vec<NearlyPlain>, Error> {
        let (session, removed) = (self.session(), self.state().removed());
        let spec = &session.checkpoint().spec;
        let mut found = Vec::new();
        let mut changes = spec.plain_changes(&removed);
        changes.retain(|change| !change.of(&removed).is_empty());
        for change in most_promising(changes, self.state()) {
            let removed = change.of(&removed);
            let perplexity = match session.perplexity(self.windows(), &removed, tell).await {
                Ok(score) => score.perplexity,
                Err(Error::Score(ScoreError::NotFinite { .. })) => continue,
                Err(error) => return Err(error),
            };
            let layers = spec.kept_layers(&removed).len();
            found.push(NearlyPlain { change, removed, layers, perplexity });
        }
        found.sort_by(|one, other| one.perplexity.total_cmp(&other.perplexity));
        Ok(found)
    }
}

/// The changes that are measured: all of few. Of many, those that promise the least perplexity; others than those of which the
/// search has found something out would be any.
fn most_promising(changes: Vec<PlainChange>, state: &SearchState) -> Vec<PlainChange> {
    if changes.len() <= MOST {
        return changes;
    }
    let promised = |change| Some((promised(&change, state)?, change));
    let mut known: Vec<_> = changes.into_iter().filter_map(promised).collect();
    known.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    known.into_iter().take(MOST).map(|(_, change)| change).collect()
}

/// By how many nats a token a change may raise the loss, as far as the search has found out, as if what blocks cost added up: of a
/// block that stays, what the step cost that removed it; of one that goes, what the last step found of it. None where that is
/// nothing, as with strategies that measure something else than perplexities.
fn promised(change: &PlainChange, state: &SearchState) -> Option<f64> {
    let dense = state.dense?.perplexity;
    let before = |step: usize| step.checked_sub(1).map_or(dense, |before| state.steps[before].perplexity);
    let restored = change.restore.iter().map(|block| {
        let step = state.steps.iter().position(|step| step.removed.contains(block))?;
        Some((before(step) / state.steps[step].perplexity).ln())
    });
    let (last, step) = (state.steps.len().checked_sub(1)?, state.steps.last()?);
    let removed = change.remove.iter().map(|block| {
        let of_block = step.candidates.iter().filter(|candidate| candidate.unit.contains(block));
        let least =
            of_block.filter_map(|candidate| candidate.perplexity.or(candidate.at_least)).min_by(f64::total_cmp)?;
        Some((least / before(last)).ln())
    });
    restored.chain(removed).sum::<Option<f64>>().filter(|promised| promised.is_finite())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::search::{Candidate, CandidateState, Dense, Step, Work};

    fn step(step: usize, removed: &str, perplexity: f64, candidates: &[(&str, Option<f64>, Option<f64>)]) -> Step {
        let candidate = |(unit, perplexity, at_least): &(&str, Option<f64>, Option<f64>)| Candidate {
            unit: unit.parse().unwrap(),
            value: Some(0.5),
            perplexity: *perplexity,
            at_least: *at_least,
            state: CandidateState::Complete,
            head_tokens: 0,
            reason: None,
        };
        Step {
            step,
            removed: removed.parse().unwrap(),
            value: 0.5,
            perplexity,
            candidates: candidates.iter().map(candidate).collect(),
            work: Work::default(),
            params_left: 1,
            ratio_removed: 0.1,
            bytes: None,
            kv_cache: None,
            seconds: 0.0,
        }
    }

    fn change(remove: &str, restore: &str) -> PlainChange {
        PlainChange { remove: remove.parse().unwrap(), restore: restore.parse().unwrap() }
    }

    /// Two attention blocks are gone, from 8 to 10 and on to 20; of the others it is known what they would have come to, or not.
    fn state(others: &[(&str, Option<f64>, Option<f64>)]) -> SearchState {
        let candidates = [&[("mha:4", Some(20.0), None)], others].concat();
        let dense = Some(Dense { perplexity: 8.0, mean_nll: 8f64.ln() });
        let steps = vec![step(1, "mha:1", 10.0, &[]), step(2, "mha:4", 20.0, &candidates)];
        SearchState { dense, steps, ..SearchState::default() }
    }

    fn changes() -> Vec<PlainChange> {
        let (ones, others) =
            ([("", "mha:1"), ("mlp:0", ""), ("mlp:1", "")], [("", "mha:4"), ("mlp:3", ""), ("mlp:4", "")]);
        let both = |one: &str, other: &str| format!("{one},{other}");
        let two = |(one, other): (&(&str, &str), &(&str, &str))| change(&both(one.0, other.0), &both(one.1, other.1));
        ones.iter().flat_map(|one| others.iter().map(move |other| (one, other))).map(two).collect()
    }

    #[test]
    fn what_a_search_found_out_decides() {
        let others = [
            ("mlp:0", Some(25.0), None),
            ("mlp:1", None, Some(40.0)),
            ("mlp:3", Some(15.0), None),
            ("mlp:4", Some(30.0), None),
        ];
        let found = most_promising(changes(), &state(&others));
        let (both_stay, one_goes) = (change("", "mha:1,mha:4"), change("mlp:3", "mha:1"));
        // 8 of 20; then 20 * 25 / 10 * 10 / 20, 20 * 15 / 10 * 8 / 10, 20 * 30 / 10 * 8 / 10.
        assert_eq!(found.len(), MOST);
        assert_eq!(found[0], both_stay);
        let left = |change: &PlainChange| 20.0 * promised(change, &state(&others)).unwrap().exp();
        for (change, expected) in [(&both_stay, 8.0), (&one_goes, 24.0), (&change("mlp:0,mlp:3", ""), 75.0)] {
            assert!((left(change) - expected).abs() < 1e-9, "{change:?}: {}", left(change));
        }
        assert!(found.windows(2).all(|two| left(&two[0]) <= left(&two[1])), "{found:?}");
        assert!(!found.contains(&change("mlp:1,mlp:4", "")), "the dearest is left out");
    }

    /// A strategy that measures no perplexities knows what its own steps cost.
    #[test]
    fn what_nobody_knows_is_not_promised() {
        let unknown = [("mlp:0", None, None), ("mlp:1", None, None), ("mlp:3", None, None), ("mlp:4", None, None)];
        let state = state(&unknown);
        assert_eq!(most_promising(changes(), &state), [change("", "mha:1,mha:4")]);
        // Few are measured, all of them: nothing has to be chosen.
        let few = changes()[3..].to_vec();
        assert_eq!(few.len(), MOST);
        assert_eq!(most_promising(few.clone(), &state), few);
    }
}
