//! How the candidates of a step are scored: a [`Strategy`] decides which of them are, how far, and in which order. What every
//! strategy has in common is the search's: the steps, the choice of the lowest, what is told and what is saved.

mod exact;
mod exhaustive;
mod racing;

use std::fmt;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::rc::Rc;

use web_time::Instant;

pub use exact::Exact;
pub use exhaustive::Exhaustive;
pub use racing::Racing;

use super::sweep::{Outcome, Scored, Sweep};
use super::{
    Candidate, CandidateState, Event, MemoryPlan, Observer, Reason, SearchError, SearchOptions, SearchState, Step, Unit,
};
use crate::model::{BlockSet, ModelSpec};
use crate::score::{Score, ScoreError, Scorer};
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

    /// What it needs the device's memory for.
    fn needs(&self, _windows: &Windows) -> StrategyNeeds {
        StrategyNeeds::default()
    }

    /// The share of the arithmetic of scoring every candidate of a step (1-based) completely that it usually does, 0 to 1: for
    /// the estimate before there is a step to judge by.
    fn usual_share(&self, _step: usize) -> f64 {
        1.0
    }

    /// Scores candidates of the step under way: as many as it takes to find the one to remove, which is that of the lowest
    /// value. What it leaves is recorded as left out.
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
}

impl Default for StrategyNeeds {
    fn default() -> Self {
        Self { together: true, heats: 1, opening: 0, likely_head: false }
    }
}

impl<S: Strategy + ?Sized> Strategy for Rc<S> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn is_approximate(&self) -> bool {
        (**self).is_approximate()
    }

    fn needs(&self, windows: &Windows) -> StrategyNeeds {
        (**self).needs(windows)
    }

    fn usual_share(&self, step: usize) -> f64 {
        (**self).usual_share(step)
    }

    fn step<'a>(&'a self, step: &'a mut StepContext<'_>) -> StepFuture<'a> {
        (**self).step(step)
    }
}

/// The strategy of the library that plans call `name`: exact, exhaustive or racing.
///
/// # Errors
/// What is wrong with the name, in words.
pub fn strategy(name: &str) -> Result<Rc<dyn Strategy>, String> {
    let all: [Rc<dyn Strategy>; 3] = [Rc::new(Exact), Rc::new(Exhaustive), Rc::new(Racing)];
    let found = all.into_iter().find(|strategy| strategy.name() == name);
    found.ok_or_else(|| format!("`{name}` is not a strategy: expected exact, exhaustive or racing"))
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
        let (removed, scorer) = (self.removed(), self.scorer);
        for unit in units {
            let start = Instant::now();
            let without = removed.with(unit.blocks());
            let outcome = scorer.perplexity(&without).await.map(Outcome::Complete);
            let block_tokens = (scorer.blocks(&without) * scorer.tokens()) as u64;
            let head_tokens = scorer.targets() as u64;
            let candidate = candidate(Scored { unit: *unit, outcome, head_tokens })?;
            self.state.work += super::Work { block_tokens, head_tokens };
            self.state.seconds += start.elapsed().as_secs_f64();
            self.record(vec![candidate])?;
        }
        Ok(())
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
        for name in ["exact", "exhaustive", "racing"] {
            let strategy = strategy(name).unwrap();
            assert_eq!((strategy.name(), strategy.is_approximate()), (name, name == "racing"));
        }
        assert!(strategy("random").unwrap_err().contains("expected exact"));
    }
}
