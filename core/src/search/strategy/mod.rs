//! How the candidates of a step are scored: a [`Strategy`] decides which of them are, how far, and in which order. What every
//! strategy has in common is the search's: the steps, the choice of the lowest, what is told and what is saved.
//!
//! `exact`, `exhaustive` and `racing` are ways to run the published search. The others are what it is compared with: `one_shot` and
//! `by_change` measure once (`once`), `random` not at all.

mod by_change;
mod exact;
mod exhaustive;
mod once;
mod one_shot;
mod racing;
mod random;

use std::fmt;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::rc::Rc;

use web_time::Instant;

pub use by_change::ByChange;
pub use exact::Exact;
pub use exhaustive::Exhaustive;
pub use one_shot::OneShot;
pub use racing::Racing;
pub use random::Random;

use super::sweep::{Outcome, Scored, Sweep};
use super::{
    Candidate, CandidateState, Event, MemoryPlan, Objective, Observer, Reason, SearchError, SearchOptions, SearchState,
    Step, Unit, Units, Work,
};
use crate::model::{BlockSet, ModelSpec};
use crate::score::{Score, ScoreError, Scorer, StateChange};
use crate::text::Windows;

/// Candidates advance together for about so long, so that progress is saved and a stop takes effect.
const WAVE_SECONDS: f64 = 15.0;

/// A way to score the candidates of every step.
pub trait Strategy: fmt::Debug {
    /// What plans call it. A search can be resumed by a strategy of the same name.
    fn name(&self) -> &str;

    /// Whether the result may differ from the published loop's.
    fn is_approximate(&self) -> bool {
        true
    }

    /// What its removals are chosen by, in words that end a sentence, with its source.
    fn chosen_by(&self) -> &str {
        "the perplexity of the calibration text without them (BlockPruner, Zhong et al., Findings of ACL 2025)"
    }

    /// What it measures of candidates; None: what the search's options say.
    fn objective(&self) -> Option<Objective> {
        None
    }

    /// The only units that it can choose among; None: any.
    fn units(&self) -> Option<Units> {
        None
    }

    /// What its draws begin from, if it draws.
    fn seed(&self) -> Option<u64> {
        None
    }

    /// What it needs the device's memory for.
    fn needs(&self, _windows: &Windows) -> StrategyNeeds {
        StrategyNeeds::default()
    }

    /// Passes over the text that a step (1-based) of so many candidates counts as: one for each that is scored, one to
    /// measure all of them, and one for the perplexity of what goes where that is not known yet.
    fn passes(&self, _step: usize, candidates: usize) -> usize {
        candidates
    }

    /// The share of the arithmetic of its passes in a step (1-based) that it usually does, 0 to 1: for the estimate before there is
    /// a step to judge by.
    fn usual_share(&self, _step: usize) -> f64 {
        1.0
    }

    /// Scores candidates of the step under way: as many as it takes to find the one to remove, which is that of the lowest
    /// value. What it leaves is recorded as left out. Where it measures another value than the perplexity, the search adds the
    /// perplexity of what goes.
    fn step<'a>(&'a self, step: &'a mut StepContext<'_>) -> StepFuture<'a>;
}

/// What [`Strategy::step`] returns.
pub type StepFuture<'a> = Pin<Box<dyn Future<Output = Result<(), SearchError>> + 'a>>;

/// What a strategy needs the device's memory for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StrategyNeeds {
    /// Whether candidates advance together, which takes memory for the hidden states of many; else one pass after the other.
    pub together: bool,
    /// Parts that the text's windows should come in, if there are that many.
    pub heats: usize,
    /// Tokens of the first window that are scored before the parts, or 0.
    pub opening: usize,
    /// The head over likely tokens, which shows early that a candidate cannot win.
    pub likely_head: bool,
    /// Whether [`StepContext::changes`] is asked, which keeps copies of hidden states.
    pub changes: bool,
}

impl StrategyNeeds {
    /// Of a strategy that asks for [`StepContext::changes`] only.
    pub const CHANGES: Self = Self { together: false, heats: 1, opening: 0, likely_head: false, changes: true };
}

impl Default for StrategyNeeds {
    fn default() -> Self {
        Self { together: true, heats: 1, opening: 0, likely_head: false, changes: false }
    }
}

impl<S: Strategy + ?Sized> Strategy for Rc<S> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn is_approximate(&self) -> bool {
        (**self).is_approximate()
    }

    fn chosen_by(&self) -> &str {
        (**self).chosen_by()
    }

    fn objective(&self) -> Option<Objective> {
        (**self).objective()
    }

    fn units(&self) -> Option<Units> {
        (**self).units()
    }

    fn seed(&self) -> Option<u64> {
        (**self).seed()
    }

    fn needs(&self, windows: &Windows) -> StrategyNeeds {
        (**self).needs(windows)
    }

    fn passes(&self, step: usize, candidates: usize) -> usize {
        (**self).passes(step, candidates)
    }

    fn usual_share(&self, step: usize) -> f64 {
        (**self).usual_share(step)
    }

    fn step<'a>(&'a self, step: &'a mut StepContext<'_>) -> StepFuture<'a> {
        (**self).step(step)
    }
}

/// The strategy of the library that plans call `name`; `random` with the seed 0.
///
/// # Errors
/// What is wrong with the name, in words.
pub fn strategy(name: &str) -> Result<Rc<dyn Strategy>, String> {
    let all: [Rc<dyn Strategy>; 8] = [
        Rc::new(Exact),
        Rc::new(Exhaustive),
        Rc::new(Racing),
        Rc::new(OneShot),
        Rc::new(ByChange::ShortGpt),
        Rc::new(ByChange::Cosine),
        Rc::new(ByChange::RelativeMagnitude),
        Rc::new(Random::default()),
    ];
    all.iter().find(|strategy| strategy.name() == name).cloned().ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|strategy| strategy.name()).collect();
        format!("`{name}` is not a strategy: expected one of {}", names.join(", "))
    })
}

/// A search, as a [`Strategy`] sees it in a step.
pub struct StepContext<'s> {
    pub(super) scorer: &'s Scorer<'s>,
    /// What many candidates advance in, if the strategy wants them together.
    pub(super) sweep: Option<Sweep<'s>>,
    pub(super) options: &'s SearchOptions,
    pub(super) memory: MemoryPlan,
    pub(super) state: SearchState,
    pub(super) observe: Observer<'s>,
}

impl StepContext<'_> {
    /// The model's architecture.
    pub fn spec(&self) -> &ModelSpec {
        self.scorer.model().spec()
    }

    /// The number of the step under way, 1-based.
    pub fn number(&self) -> usize {
        self.state.steps.len() + 1
    }

    /// The steps before.
    pub fn steps(&self) -> &[Step] {
        &self.state.steps
    }

    /// The blocks that these removed.
    pub fn removed(&self) -> BlockSet {
        self.state.removed()
    }

    /// Candidates of the step that have a score.
    pub fn scored(&self) -> &[Candidate] {
        &self.state.candidates
    }

    /// Candidates of the step that have none yet, in the order in which the first of equals wins. Those that a resumed search
    /// had scored before it was stopped have one.
    pub fn open(&self) -> Vec<Unit> {
        let mut candidates = self.options.candidates(self.spec(), &self.removed());
        candidates.retain(|unit| self.scored().iter().all(|scored| scored.unit != *unit));
        candidates
    }

    /// How many candidates the step has, scored or not.
    pub fn total(&self) -> usize {
        self.open().len() + self.scored().len()
    }

    /// Scores candidates completely, and tells of them, as many at a time as there is memory for.
    ///
    /// # Errors
    /// What a device can do wrong, and [`SearchError::Stopped`]. A loss that is not finite is none: it rejects the candidate.
    pub async fn score(&mut self, units: &[Unit]) -> Result<(), SearchError> {
        if self.sweep.is_none() {
            return self.score_alone(units).await;
        }
        let mut waves = Waves::new(self);
        let mut rest = units;
        while !rest.is_empty() {
            let (wave, after) = rest.split_at(waves.next(rest.len()));
            self.score_wave(wave, None, None, &mut waves).await?;
            rest = after;
        }
        Ok(())
    }

    /// One whole pass for every candidate.
    async fn score_alone(&mut self, units: &[Unit]) -> Result<(), SearchError> {
        for unit in units {
            let start = Instant::now();
            let candidate = self.pass(*unit).await?;
            self.state.seconds += start.elapsed().as_secs_f64();
            self.record(vec![candidate])?;
        }
        Ok(())
    }

    /// A whole pass without a candidate, whose work becomes the step's.
    pub(super) async fn pass(&mut self, unit: Unit) -> Result<Candidate, SearchError> {
        let (without, scorer) = (self.removed().with(unit.blocks()), self.scorer);
        let outcome = scorer.perplexity(&without).await.map(Outcome::Complete);
        let block_tokens = (scorer.blocks(&without) * scorer.tokens()) as u64;
        let head_tokens = scorer.targets() as u64;
        self.state.work += Work { block_tokens, head_tokens };
        Ok(candidate(Scored { unit, outcome, head_tokens })?)
    }

    /// What each of these candidates makes of the hidden states in the model as it is in this step, in one pass for all of
    /// them. Nothing is recorded.
    ///
    /// # Errors
    /// What a device can do wrong, and [`SearchError::Stopped`].
    pub async fn changes(&mut self, units: &[Unit]) -> Result<Vec<(Unit, StateChange)>, SearchError> {
        if units.is_empty() {
            return Ok(Vec::new());
        }
        let (start, step, removed) = (Instant::now(), self.number(), self.removed());
        let Self { scorer, state, observe, .. } = self;
        let sets: Vec<BlockSet> = units.iter().map(|unit| unit.blocks().collect()).collect();
        let before = state.candidates.len() as f64;
        let total = before + units.len() as f64;
        let (changes, block_tokens) = scorer
            .changes(&sets, &removed, |share| {
                let done = (before + share * units.len() as f64) / total;
                match observe(Event::Progress { step, done, work: state.work }, state) {
                    ControlFlow::Continue(()) => Ok(()),
                    ControlFlow::Break(()) => Err(SearchError::Stopped),
                }
            })
            .await?;
        state.work += Work { block_tokens, head_tokens: 0 };
        state.seconds += start.elapsed().as_secs_f64();
        Ok(units.iter().copied().zip(changes).collect())
    }

    /// Records what was measured of candidates, and tells of them. One whose value is not finite is rejected.
    ///
    /// # Errors
    /// [`SearchError::Stopped`].
    pub fn record_values(&mut self, values: &[(Unit, f64)]) -> Result<(), SearchError> {
        if values.is_empty() {
            return Ok(());
        }
        let candidates = values.iter().map(|(unit, value)| {
            let (value, state, reason) = match value.is_finite() {
                true => (Some(*value), CandidateState::Complete, None),
                false => {
                    let problem = format!("what is measured of it is {value}: the hidden states overflow there");
                    (None, CandidateState::Rejected, Some(Reason::Other(problem)))
                }
            };
            Candidate { unit: *unit, value, perplexity: None, at_least: None, state, head_tokens: 0, reason }
        });
        self.record(candidates.collect())
    }

    /// Scores candidates together, against the incumbent's mean NLL if there is one; see [`Sweep::score`].
    async fn score_wave(
        &mut self,
        wave: &[Unit],
        incumbent: Option<super::bound::Bound>,
        lead: Option<Unit>,
        waves: &mut Waves,
    ) -> Result<(), SearchError> {
        let (start, step, total) = (Instant::now(), self.number(), self.total());
        let Self { sweep: Some(sweep), state, observe, .. } = self else { return self.score_alone(wave).await };
        let before = state.candidates.len() as f64;
        let scored = {
            let mut progress = |share: f64, work| {
                let done = (before + share * wave.len() as f64) / total as f64;
                observe(Event::Progress { step, done, work: state.work + work }, state)
            };
            sweep.score(wave, incumbent, lead, &mut progress).await?
        };
        let seconds = start.elapsed().as_secs_f64();
        state.work += sweep.take_work();
        state.seconds += seconds;
        waves.took(wave.len(), seconds);
        let candidates = scored.into_iter().map(candidate).collect::<Result<_, _>>()?;
        self.record(candidates)
    }

    /// Adds candidates, whose work the state has already, and tells of them.
    pub(super) fn record(&mut self, candidates: Vec<Candidate>) -> Result<(), SearchError> {
        let (step, total) = (self.number(), self.total());
        self.state.candidates.extend_from_slice(&candidates);
        let done = self.state.candidates.len();
        self.tell(Event::Wave { step, candidates, done, total })
    }

    /// Tells of an event.
    pub(super) fn tell(&mut self, event: Event) -> Result<(), SearchError> {
        match (self.observe)(event, &self.state) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(SearchError::Stopped),
        }
    }
}

/// How many candidates advance together: where that is free to choose, so many that a wave takes about [`WAVE_SECONDS`].
struct Waves {
    size: usize,
    most: usize,
    adapts: bool,
}

impl Waves {
    fn new(context: &StepContext<'_>) -> Self {
        let MemoryPlan { wave: most, keeps_prefixes: adapts, batching, .. } = context.memory;
        // As many as one dispatch takes, so that the first wave shows what a candidate costs.
        let size = if adapts { batching.candidates().clamp(1, most) } else { most };
        Self { size, most, adapts }
    }

    /// How many of `rest` are next.
    fn next(&self, rest: usize) -> usize {
        self.size.min(rest)
    }

    fn took(&mut self, candidates: usize, seconds: f64) {
        if self.adapts {
            let wanted = WAVE_SECONDS * candidates as f64 / seconds.max(1e-6);
            self.size = (wanted as usize).clamp(1, self.most);
        }
    }
}

/// A loss that is not finite rejects the candidate, by name; any other error ends the search.
fn candidate(scored: Scored) -> Result<Candidate, ScoreError> {
    let mut candidate = Candidate {
        unit: scored.unit,
        value: None,
        perplexity: None,
        at_least: None,
        state: CandidateState::Rejected,
        head_tokens: scored.head_tokens,
        reason: None,
    };
    match scored.outcome {
        // The mean can be finite where its exponential is not.
        Ok(Outcome::Complete(Score { perplexity, .. })) if perplexity.is_finite() => {
            candidate.value = Some(perplexity);
            candidate.perplexity = Some(perplexity);
            candidate.state = CandidateState::Complete;
        }
        Ok(Outcome::Complete(Score { mean_nll, .. })) => candidate.reason = Some(Reason::TooLarge { mean_nll }),
        Ok(Outcome::Bounded { mean_nll, by }) => {
            // Above 709 nats the exponential is no number any more; the largest one is below it.
            candidate.at_least = Some(mean_nll.exp().min(f64::MAX));
            candidate.state = CandidateState::Bounded;
            candidate.reason = Some(by);
        }
        Err(error @ ScoreError::NotFinite { .. }) => candidate.reason = Some(Reason::Other(error.to_string())),
        Err(error) => return Err(error),
    }
    Ok(candidate)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::model::BlockId;

    /// A bound above the largest perplexity still is a lower bound, which the plan wants.
    #[test]
    fn a_bound_of_any_size_is_kept() {
        for mean_nll in [1.5, 709.0, 710.0, 1e6] {
            let outcome = Ok(Outcome::Bounded { mean_nll, by: Reason::Windows });
            let candidate = candidate(Scored { unit: BlockId::mha(0).into(), outcome, head_tokens: 1 }).unwrap();
            assert_eq!(candidate.state, CandidateState::Bounded);
            let at_least = candidate.at_least.unwrap();
            assert!(at_least.is_finite() && at_least <= mean_nll.exp(), "{mean_nll}: {at_least}");
        }
    }

    #[test]
    fn strategies_have_names() {
        for (name, is_approximate) in [
            ("exact", false),
            ("exhaustive", false),
            ("racing", true),
            ("one-shot", true),
            ("short-gpt", true),
            ("cosine", true),
            ("relative-magnitude", true),
            ("random", true),
        ] {
            let strategy = strategy(name).unwrap();
            assert_eq!((strategy.name(), strategy.is_approximate()), (name, is_approximate));
        }
        assert!(strategy("annealing").unwrap_err().contains("expected one of exact, exhaustive, racing, one-shot"));
    }
}
