//! How much is removed: where a search ends, and which of its steps are its result.

use serde::{Deserialize, Serialize};

use super::{SearchError, SearchOptions, SearchState, Step, Units};
use crate::model::{BlockKind, BlockSet, ModelSpec};

/// When a search is done.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Target {
    /// When so many units are removed: of blocks, the K of the paper.
    Units(usize),
    /// With the first step after which this share of all parameters is removed, above 0 and up to 1.
    Ratio(f64),
    /// With the first step after which the model takes at most so many bytes as it will be written, by
    /// [`SearchOptions::sizes`].
    Bytes(u64),
    /// Before the first step that raises the perplexity by more than this share of the unpruned model's; 0.2 are 20 %.
    MaxIncrease(f64),
    /// Before the first step that brings the perplexity beyond this.
    MaxPerplexity(f64),
}

impl Target {
    /// Steps that it takes, if that is known beforehand.
    pub fn steps(self) -> Option<usize> {
        match self {
            Self::Units(units) => Some(units),
            _ => None,
        }
    }

    /// The perplexity that no step goes beyond, if there is one.
    pub fn most_perplexity(self, dense: f64) -> Option<f64> {
        match self {
            Self::MaxIncrease(share) => Some(dense * (1.0 + share)),
            Self::MaxPerplexity(most) => Some(most),
            _ => None,
        }
    }
}

/// The end of a search that has come to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// Steps of the result, the first of those that were found.
    pub steps: usize,
    /// Whether the step behind them is known, and goes beyond what the target allows.
    pub beyond: bool,
}

impl End {
    /// What was found, as far as it is the result.
    pub fn result(self, found: &SearchState) -> SearchState {
        let steps = found.steps.get(..self.steps).unwrap_or_default().to_vec();
        SearchState { dense: found.dense, steps, ..SearchState::default() }
    }

    /// The step that goes beyond.
    pub fn step_beyond(self, found: &SearchState) -> Option<&Step> {
        found.steps.get(self.steps).filter(|_| self.beyond)
    }
}

impl SearchOptions {
    /// Where a search ends that has found this; None if it goes on.
    pub(crate) fn end(&self, spec: &ModelSpec, found: &SearchState) -> Option<End> {
        found.dense?;
        let there = |steps: usize| Some(End { steps, beyond: false });
        let at = |reached: &dyn Fn(&Step) -> bool| found.steps.iter().position(reached);
        match self.target {
            Target::Units(units) if found.steps.len() >= units => there(units),
            Target::Units(_) => None,
            Target::Ratio(ratio) => there(at(&|step| step.ratio_removed >= ratio)? + 1),
            Target::Bytes(most) => {
                let sizes = self.sizes.as_ref()?;
                let mut gone = BlockSet::new();
                let before = found.steps.iter().map(|step| step.removed).map(Some);
                let mut fits = std::iter::once(None).chain(before).map(|unit| {
                    gone.extend(unit.into_iter().flat_map(|unit| unit.blocks()));
                    sizes.without(&gone) <= most
                });
                there(fits.position(|fits| fits)?)
            }
            Target::MaxIncrease(_) | Target::MaxPerplexity(_) => {
                let most = self.target.most_perplexity(found.dense?.perplexity)?;
                match at(&|step| step.perplexity > most) {
                    Some(steps) => Some(End { steps, beyond: true }),
                    None if self.is_exhausted(spec, found) => there(found.steps.len()),
                    None => None,
                }
            }
        }
    }

    /// Whether no candidate of the next step has a finite perplexity, or there is none.
    fn is_exhausted(&self, spec: &ModelSpec, found: &SearchState) -> bool {
        let total = self.candidates(spec, &found.removed()).len();
        found.candidates.len() >= total && found.candidates.iter().all(|candidate| candidate.value.is_none())
    }

    /// Steps of the whole search: as many as are asked for, or a guess by the mean size of the units that are left; None where
    /// nobody knows.
    pub(super) fn foreseen_steps(&self, spec: &ModelSpec, found: &SearchState) -> Option<usize> {
        if let Some(end) = self.end(spec, found) {
            return Some(end.steps + usize::from(end.beyond));
        }
        let gone = found.removed();
        let (missing, sizes): (f64, &dyn Fn(_) -> u64) = match (self.target, &self.sizes) {
            (Target::Units(units), _) => return Some(units),
            (Target::Ratio(ratio), _) => {
                let (all, left) = (spec.parameters() as f64, spec.parameters_without(&gone) as f64);
                (ratio * all - (all - left), &|block| spec.block_parameters(block))
            }
            (Target::Bytes(most), Some(sizes)) => {
                (sizes.without(&gone).saturating_sub(most) as f64, &|block| sizes.of(block))
            }
            _ => return None,
        };
        let units = self.candidates(spec, &gone);
        let all: u64 = units.iter().flat_map(|unit| unit.blocks()).map(sizes).sum();
        let mean = all as f64 / units.len().max(1) as f64;
        let more = (missing / mean.max(1.0)).ceil().max(1.0) as usize;
        Some(found.steps.len() + more.min(self.most_units(spec, &gone)))
    }

    /// How many units a search can remove of a model without the blocks in `gone`.
    pub(super) fn most_units(&self, spec: &ModelSpec, gone: &BlockSet) -> usize {
        let of_kind = |kind| spec.blocks().filter(|block| block.kind == kind && !gone.contains(*block)).count();
        match self.units_of(spec) {
            Units::Blocks | Units::Layers => self.candidates(spec, gone).len(),
            // As long as there is a block of each kind, there are two neighbours.
            Units::Pairs => of_kind(BlockKind::Mha).min(of_kind(BlockKind::Mlp)),
        }
    }

    /// The blocks that are gone if a search goes on for as long as it can. Where pairs leave blocks of one kind, nobody knows
    /// which: the largest, here.
    fn all_that_may_go(&self, spec: &ModelSpec) -> BlockSet {
        let mut blocks: Vec<_> =
            self.candidates(spec, &BlockSet::new()).into_iter().flat_map(|unit| unit.blocks()).collect();
        if self.units_of(spec) == Units::Pairs {
            let size = |block| match (self.target, &self.sizes) {
                (Target::Bytes(_), Some(sizes)) => sizes.of(block),
                _ => spec.block_parameters(block),
            };
            let pairs = self.most_units(spec, &BlockSet::new());
            blocks = BlockKind::ALL
                .into_iter()
                .flat_map(|kind| {
                    let mut of_kind: Vec<_> = spec.blocks().filter(|block| block.kind == kind).collect();
                    of_kind.sort_by_key(|block| size(*block));
                    of_kind.truncate(pairs);
                    of_kind
                })
                .collect();
        }
        blocks.into_iter().collect()
    }

    /// Checks that the target makes sense, and can be reached whatever the search finds.
    pub(super) fn check_target(&self, spec: &ModelSpec) -> Result<(), SearchError> {
        let bad = |problem: &'static str| Err(SearchError::Target { problem });
        match self.target {
            Target::Units(remove) => match self.most_units(spec, &BlockSet::new()) {
                there if remove <= there => Ok(()),
                there => {
                    let (units, block_types) = (self.units_of(spec), self.block_types);
                    Err(SearchError::TooMany { remove, units, block_types, there })
                }
            },
            Target::Ratio(ratio) => {
                if !(ratio > 0.0 && ratio <= 1.0) {
                    return bad("a share of the parameters is above 0 and at most 1");
                }
                let most = spec.ratio_removed(&self.all_that_may_go(spec));
                if ratio <= most { Ok(()) } else { Err(SearchError::TooMuch { ratio, most }) }
            }
            Target::Bytes(bytes) => {
                let Some(sizes) = &self.sizes else {
                    return bad("a number of bytes takes the sizes of the blocks as they will be written");
                };
                let (whole, least) = (sizes.without(&BlockSet::new()), sizes.without(&self.all_that_may_go(spec)));
                let written_as = sizes.written_as().to_string();
                match bytes {
                    _ if bytes < least => Err(SearchError::TooSmall { bytes, least, written_as }),
                    _ if bytes >= whole => Err(SearchError::FitsAlready { bytes, whole, written_as }),
                    _ => Ok(()),
                }
            }
            Target::MaxIncrease(share) if share >= 0.0 && share.is_finite() => Ok(()),
            Target::MaxIncrease(_) => bad("the most that perplexity may rise by is a share of at least 0"),
            Target::MaxPerplexity(most) if most >= 1.0 && most.is_finite() => Ok(()),
            Target::MaxPerplexity(_) => bad("no perplexity is below 1"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::model::BlockId;
    use crate::search::{BlockSizes, BlockTypes, Candidate, CandidateState, Dense, Work};

    fn spec() -> ModelSpec {
        ModelSpec::from_config(&serde_json::from_slice(blockpruner_tiny::CONFIG).unwrap()).unwrap()
    }

    /// A search that has removed attention blocks from the first on, with these perplexities.
    fn found(dense: f64, perplexities: &[f64]) -> SearchState {
        let spec = spec();
        let step = |(index, perplexity): (usize, &f64)| {
            let left = spec.parameters_without(&(0..=index).map(BlockId::mha).collect());
            Step {
                step: index + 1,
                removed: BlockId::mha(index).into(),
                value: *perplexity,
                perplexity: *perplexity,
                candidates: Vec::new(),
                work: Work::default(),
                params_left: left,
                ratio_removed: (spec.parameters() - left) as f64 / spec.parameters() as f64,
                bytes: None,
                kv_cache: None,
                seconds: 1.0,
            }
        };
        let dense = Some(Dense { perplexity: dense, mean_nll: dense.ln() });
        SearchState { dense, steps: perplexities.iter().enumerate().map(step).collect(), ..SearchState::default() }
    }

    fn options(target: Target) -> SearchOptions {
        let blocks = spec().blocks().map(|block| (block, 10)).collect::<Vec<_>>();
        SearchOptions::until(target).sizes(BlockSizes::new("hf", 1000, blocks))
    }

    fn end(target: Target, found: &SearchState) -> Option<(usize, bool)> {
        let end = options(target).end(&spec(), found)?;
        assert_eq!(end.result(found).steps[..], found.steps[..end.steps]);
        assert_eq!(end.step_beyond(found).is_some(), end.beyond);
        Some((end.steps, end.beyond))
    }

    /// The perplexity falls first, as that of the embedded model does.
    #[test]
    fn a_search_ends_where_its_target_says() {
        let state = found(26.84, &[26.51, 26.66, 26.97, 26.8, 28.0]);
        let share = |steps: usize| state.steps[steps - 1].ratio_removed;
        for (target, expected) in [
            (Target::Units(3), Some((3, false))),
            (Target::Units(6), None),
            (Target::Ratio(share(2)), Some((2, false))),
            (Target::Ratio(share(2) + 1e-9), Some((3, false))),
            (Target::Ratio(0.5), None),
            (Target::Bytes(1210), Some((3, false))),
            (Target::Bytes(1215), Some((3, false))),
            (Target::Bytes(1240), Some((0, false))),
            (Target::Bytes(1000), None),
            // The third step goes beyond, the fourth is of no account.
            (Target::MaxIncrease(0.0), Some((2, true))),
            (Target::MaxPerplexity(26.9), Some((2, true))),
            (Target::MaxPerplexity(26.97), Some((4, true))),
            (Target::MaxPerplexity(26.6), Some((1, true))),
            (Target::MaxPerplexity(26.5), Some((0, true))),
            (Target::MaxIncrease(0.1), None),
        ] {
            assert_eq!(end(target, &state), expected, "{target:?}");
        }
        assert_eq!(end(Target::MaxPerplexity(1.0), &SearchState { dense: None, ..state }), None);
    }

    /// Where no candidate has a perplexity, or none is left, everything that there is lies within a bound.
    #[test]
    fn a_bound_ends_a_search_that_has_nothing_more() {
        let mut state = found(26.0, &[26.5]);
        let bound = options(Target::MaxIncrease(10.0)).block_types(BlockTypes::Mha);
        let rejected = |unit| Candidate {
            unit,
            value: None,
            perplexity: None,
            at_least: None,
            state: CandidateState::Rejected,
            head_tokens: 1,
            reason: None,
        };
        state.candidates = bound.candidates(&spec(), &state.removed()).into_iter().map(rejected).collect();
        assert_eq!(bound.end(&spec(), &state), Some(End { steps: 1, beyond: false }));
        state.candidates[3].value = Some(27.0);
        assert_eq!(bound.end(&spec(), &state), None);
        state.candidates.pop();
        assert_eq!(bound.end(&spec(), &state), None);
        let all = found(26.0, &[26.5; 12]);
        assert_eq!(bound.end(&spec(), &all), Some(End { steps: 12, beyond: false }));
    }

    /// A guess is right where all units are of one size, and is none where the perplexity decides.
    #[test]
    fn steps_are_foreseen_by_sizes() {
        let state = found(26.84, &[26.51]);
        let foreseen = |target, types| options(target).block_types(types).foreseen_steps(&spec(), &state);
        let mha = spec().block_parameters(BlockId::mha(0)) as f64 / spec().parameters() as f64;
        assert_eq!(foreseen(Target::Units(7), BlockTypes::Mix), Some(7));
        assert_eq!(foreseen(Target::Ratio(4.5 * mha), BlockTypes::Mha), Some(5));
        assert_eq!(foreseen(Target::Bytes(1205), BlockTypes::Mix), Some(4));
        assert_eq!(foreseen(Target::Ratio(0.001), BlockTypes::Mix), Some(1), "it is reached");
        assert_eq!(foreseen(Target::MaxPerplexity(30.0), BlockTypes::Mix), None);
    }

    #[test]
    fn targets_that_cannot_be_are_refused() {
        let refused = |target| options(target).check(&spec()).unwrap_err().to_string();
        for (target, expected) in [
            (Target::Units(25), "cannot remove 25 blocks"),
            (Target::Ratio(0.9), "80.8 % are gone"),
            (Target::Ratio(0.0), "above 0"),
            (Target::Ratio(f64::NAN), "above 0"),
            (Target::Bytes(999), "takes 1000 bytes"),
            (Target::Bytes(1240), "takes 1240 bytes"),
            (Target::MaxIncrease(-0.1), "at least 0"),
            (Target::MaxPerplexity(f64::INFINITY), "perplexity"),
        ] {
            assert!(refused(target).contains(expected), "{}", refused(target));
        }
        for target in [Target::Ratio(0.8), Target::Bytes(1000), Target::MaxIncrease(0.0), Target::Units(24)] {
            assert!(options(target).check(&spec()).is_ok(), "{target:?}");
        }
        let unknown = SearchOptions::until(Target::Bytes(1000)).check(&spec()).unwrap_err().to_string();
        assert!(unknown.contains("takes the sizes of the blocks"), "{unknown}");
        // Of unequal numbers of blocks, what a search of pairs leaves may be the largest.
        let mut uneven = spec();
        uneven.absent = "mlp:0,mlp:1".parse().unwrap();
        let pairs = |most| {
            let sizes = BlockSizes::new("plain", 1000, uneven.blocks().map(|block| (block, 10)));
            SearchOptions::until(Target::Bytes(most)).units(Units::Pairs).sizes(sizes).check(&uneven)
        };
        // Ten pairs go, and two of twelve attention blocks are left.
        assert!(pairs(1020).is_ok() && pairs(1019).is_err());
    }
}
