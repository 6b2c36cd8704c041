//! The search itself.

use std::fmt;
use std::ops::ControlFlow;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use web_time::Instant;

use super::bound::Bound;
use super::race;
use super::sweep::{Outcome, Scored, Sweep};
use super::{Candidate, CandidateState, MemoryPlan, Step, Work};
use crate::gpu::GpuError;
use crate::model::{BlockId, BlockKind, BlockSet, ForwardError, ModelSpec};
use crate::score::{Score, ScoreError, Scorer};

/// Candidates advance together for about so long, so that progress is saved and a stop takes effect.
const WAVE_SECONDS: f64 = 15.0;

/// Which blocks are candidates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlockTypes {
    /// Attention and feed-forward blocks.
    #[default]
    Mix,
    /// Attention blocks only.
    Mha,
    /// Feed-forward blocks only.
    Mlp,
}

impl BlockTypes {
    /// Whether blocks of this kind are candidates.
    pub fn has(self, kind: BlockKind) -> bool {
        match self {
            Self::Mix => true,
            Self::Mha => kind == BlockKind::Mha,
            Self::Mlp => kind == BlockKind::Mlp,
        }
    }
}

impl fmt::Display for BlockTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mix => "mix",
            Self::Mha => "mha",
            Self::Mlp => "mlp",
        })
    }
}

impl FromStr for BlockTypes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "mix" => Ok(Self::Mix),
            "mha" => Ok(Self::Mha),
            "mlp" => Ok(Self::Mlp),
            _ => Err(format!("`{text}` is not a block type: expected mix, mha or mlp")),
        }
    }
}

/// How candidates are scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// The result of the published loop, without the work that cannot change it.
    #[default]
    Exact,
    /// The published loop literally: a whole forward pass for every candidate, in the published order.
    Exhaustive,
    /// Approximate: candidates that fall behind on the first windows are dropped.
    Racing,
}

impl Strategy {
    /// Parts that the text's windows should come in, if there are that many.
    pub fn heats(self) -> usize {
        match self {
            Self::Racing => race::HEATS,
            Self::Exact | Self::Exhaustive => 1,
        }
    }
}

impl From<ForwardError> for SearchError {
    fn from(error: ForwardError) -> Self {
        Self::Score(error.into())
    }
}

impl From<GpuError> for SearchError {
    fn from(error: GpuError) -> Self {
        Self::Score(error.into())
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exact => "exact",
            Self::Exhaustive => "exhaustive",
            Self::Racing => "racing",
        })
    }
}

/// What to search for.
#[derive(Clone, Copy, Debug)]
pub struct SearchOptions {
    /// Blocks to remove, the K of the paper.
    pub remove: usize,
    /// Which blocks are candidates.
    pub block_types: BlockTypes,
    /// How they are scored.
    pub strategy: Strategy,
}

impl SearchOptions {
    /// Removes `remove` blocks of any kind by the exact search.
    pub fn remove(remove: usize) -> Self {
        Self { remove, block_types: BlockTypes::Mix, strategy: Strategy::Exact }
    }

    /// The blocks that the first step scores, in the published order.
    pub fn candidates<'a>(&'a self, spec: &'a ModelSpec) -> impl Iterator<Item = BlockId> + 'a {
        spec.blocks().filter(|block| self.block_types.has(block.kind))
    }

    /// Checks that there are as many blocks as should be removed.
    pub fn check(&self, spec: &ModelSpec) -> Result<(), SearchError> {
        let blocks = self.candidates(spec).count();
        match self.remove <= blocks {
            true => Ok(()),
            false => Err(SearchError::TooMany { remove: self.remove, block_types: self.block_types, blocks }),
        }
    }
}

/// The unpruned model's score.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dense {
    /// exp of `mean_nll`; infinite (null in a file) if that overflows.
    #[serde(deserialize_with = "null_is_infinite")]
    pub perplexity: f64,
    /// Nats a token.
    #[serde(deserialize_with = "null_is_infinite")]
    pub mean_nll: f64,
}

/// JSON has no infinity: it is written as null.
fn null_is_infinite<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
}

/// How far a search has come: enough to go on from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SearchState {
    /// The unpruned model's score, once it is known.
    pub dense: Option<Dense>,
    /// Finished steps.
    pub steps: Vec<Step>,
    /// Candidates scored so far in the step under way.
    pub candidates: Vec<Candidate>,
    /// Arithmetic done so far in the step under way.
    pub work: Work,
    /// Wall time so far of the step under way.
    pub seconds: f64,
}

impl SearchState {
    /// The blocks removed so far.
    pub fn removed(&self) -> BlockSet {
        self.steps.iter().map(|step| step.removed).collect()
    }
}

/// Something that the search found out.
#[derive(Clone, Debug)]
pub enum Event {
    /// The unpruned model was scored.
    Dense(Dense),
    /// Candidates were scored together, as many as advance at a time.
    Wave {
        /// 1-based.
        step: usize,
        /// These candidates.
        candidates: Vec<Candidate>,
        /// Candidates of this step that are scored, with these.
        done: usize,
        /// Candidates of this step.
        total: usize,
    },
    /// Something of the step under way was computed that is not worth saving yet.
    Progress {
        /// 1-based; 0 while the unpruned model is scored.
        step: usize,
        /// Share of the step that is done, 0 to 1.
        done: f64,
    },
    /// A step is finished.
    Step(Step),
}

/// Why a search ended early.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The device, the model or the text.
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// More blocks should be removed than there are.
    #[error("cannot remove {remove} blocks: the model has {blocks} of type {block_types}")]
    TooMany {
        /// Asked for.
        remove: usize,
        /// Of which kind.
        block_types: BlockTypes,
        /// There are.
        blocks: usize,
    },
    /// Every candidate of a step has a loss that is not finite.
    #[error("step {step}: no candidate has a finite perplexity; the first one, {block}: {reason}")]
    NoCandidate {
        /// 1-based.
        step: usize,
        /// The first candidate.
        block: BlockId,
        /// Why it was rejected.
        reason: String,
    },
    /// The observer asked to stop.
    #[error("stopped")]
    Stopped,
}

/// Tells of events; what it returns says whether to go on.
pub(super) type Observer<'o> = &'o mut dyn FnMut(Event, &SearchState) -> ControlFlow<()>;

/// Searches from `state` on: an empty one, or one that an observer kept from an earlier run with the same model, text,
/// options and device. Every event but [`Event::Progress`] comes with a state that is worth saving: a search that is resumed
/// from it ends in the same steps, their work included, as one that was never interrupted.
///
/// The result does not depend on `memory`, which says how much is done at a time.
pub async fn search(
    scorer: &Scorer<'_>,
    options: &SearchOptions,
    memory: &MemoryPlan,
    mut state: SearchState,
    observe: Observer<'_>,
) -> Result<SearchState, SearchError> {
    options.check(scorer.model().spec())?;
    let mut sweep = match options.strategy {
        Strategy::Exhaustive => None,
        Strategy::Exact | Strategy::Racing => {
            Some(Sweep::new(scorer, *memory, state.removed(), options.candidates(scorer.model().spec())).await?)
        }
    };
    if let Some(sweep) = &mut sweep
        && state.dense.is_some()
        && state.steps.len() < options.remove
    {
        catch_up(sweep, options, &state, observe).await?;
    }
    if state.dense.is_none() {
        let score = match &mut sweep {
            None => scorer.perplexity(&BlockSet::new()).await?,
            Some(sweep) => {
                let score = sweep.dense(&mut |done| observe(Event::Progress { step: 0, done }, &state)).await?;
                // The first step does not pay for what it shares with this pass.
                sweep.take_work();
                score
            }
        };
        let dense = Dense { perplexity: score.perplexity, mean_nll: score.mean_nll };
        state.dense = Some(dense);
        go_on(observe(Event::Dense(dense), &state))?;
    }
    while state.steps.len() < options.remove {
        let start = Instant::now();
        let before = state.seconds;
        match (&mut sweep, options.strategy) {
            (Some(sweep), Strategy::Racing) => race::step(sweep, options, memory, &mut state, observe).await?,
            (Some(sweep), _) => exact_step(sweep, options, memory, &mut state, observe).await?,
            (None, _) => exhaustive_step(scorer, options, &mut state, observe).await?,
        }
        state.seconds = before + start.elapsed().as_secs_f64();
        let step = finish_step(scorer.model().spec(), &mut state)?;
        if let Some(sweep) = &mut sweep {
            sweep.remove(step.removed);
        }
        go_on(observe(Event::Step(step), &state))?;
    }
    Ok(state)
}

/// Brings a resumed search's sweep to where an uninterrupted one would be: with the states before every candidate that has
/// been reached. The step under way does not pay for them a second time.
async fn catch_up(
    sweep: &mut Sweep<'_, '_>,
    options: &SearchOptions,
    state: &SearchState,
    observe: Observer<'_>,
) -> Result<(), SearchError> {
    let (_, total) = open_candidates(sweep.scorer().model().spec(), options, state);
    let (step, done) = (state.steps.len() + 1, state.candidates.len() as f64 / total.max(1) as f64);
    let reached = state.steps.last().map(|step| step.removed).into_iter();
    let reached = reached.chain(state.candidates.iter().map(|candidate| candidate.block));
    let mut progress = |_| observe(Event::Progress { step, done }, state);
    sweep.catch_up(reached, state.steps.is_empty(), &mut progress).await?;
    sweep.take_work();
    Ok(())
}

pub(super) fn go_on(flow: ControlFlow<()>) -> Result<(), SearchError> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(SearchError::Stopped),
    }
}

/// The candidates of the step under way that `state` does not hold yet, in the published order, and how many there are
/// with those that it holds.
pub(super) fn open_candidates(spec: &ModelSpec, options: &SearchOptions, state: &SearchState) -> (Vec<BlockId>, usize) {
    let removed = state.removed();
    let mut open: Vec<BlockId> = options.candidates(spec).filter(|block| !removed.contains(*block)).collect();
    let total = open.len();
    open.retain(|block| state.candidates.iter().all(|scored| scored.block != *block));
    (open, total)
}

/// Adds the candidates of a wave, whose work the state has already, and tells of them.
pub(super) fn record(
    candidates: Vec<Candidate>,
    total: usize,
    state: &mut SearchState,
    observe: Observer<'_>,
) -> Result<(), SearchError> {
    state.candidates.extend_from_slice(&candidates);
    let (step, done) = (state.steps.len() + 1, state.candidates.len());
    go_on(observe(Event::Wave { step, candidates, done, total }, state))
}

/// The published loop literally.
async fn exhaustive_step(
    scorer: &Scorer<'_>,
    options: &SearchOptions,
    state: &mut SearchState,
    observe: Observer<'_>,
) -> Result<(), SearchError> {
    let (removed, spec) = (state.removed(), scorer.model().spec());
    let (open, total) = open_candidates(spec, options, state);
    for block in open {
        let start = Instant::now();
        let without = removed.with(block);
        let outcome = scorer.perplexity(&without).await.map(Outcome::Complete);
        let block_tokens = (scorer.blocks(&without) * scorer.tokens()) as u64;
        let head_tokens = scorer.targets() as u64;
        let candidate = candidate(Scored { block, outcome, head_tokens })?;
        state.work += Work { block_tokens, head_tokens };
        state.seconds += start.elapsed().as_secs_f64();
        record(vec![candidate], total, state, observe)?;
    }
    Ok(())
}

/// The same result with less work: candidates advance together in waves, the likely winner first; the others only until
/// it is clear that they cannot win. Every candidate of the first step is scored completely.
async fn exact_step(
    sweep: &mut Sweep<'_, '_>,
    options: &SearchOptions,
    memory: &MemoryPlan,
    state: &mut SearchState,
    observe: Observer<'_>,
) -> Result<(), SearchError> {
    let favourite = favourite(state);
    let (mut open, total) = open_candidates(sweep.scorer().model().spec(), options, state);
    open.sort_by_key(BlockId::by_layer);
    // Only the favourite is ever the incumbent, so that what is recorded does not depend on how the waves fell.
    let mut incumbent = self::incumbent(favourite, &state.candidates);
    if let (Some(block), Some(_), false) = (favourite, incumbent, open.is_empty()) {
        // A resumed step scores it again, because it shows which tokens are likely; that work is counted already.
        let (step, done) = (state.steps.len() + 1, state.candidates.len() as f64 / total as f64);
        let mut progress = |_| observe(Event::Progress { step, done }, state);
        sweep.score(&[block], None, favourite, &mut progress).await?;
        sweep.take_work();
    }
    let one_wave = memory.wave >= open.len() && memory.round >= sweep.batches();
    let alone = favourite.filter(|block| open.contains(block) && !(memory.streamed && one_wave));
    if let Some(block) = alone {
        open.retain(|other| *other != block);
        open.insert(0, block);
    }
    let mut size = if memory.keeps_prefixes { 1 } else { memory.wave };
    let mut rest = open.as_slice();
    while !rest.is_empty() {
        let start = Instant::now();
        let first = alone.is_some_and(|block| rest.first() == Some(&block));
        let (wave, after) = rest.split_at(if first { 1 } else { size.min(rest.len()) });
        rest = after;
        let (step, done) = (state.steps.len() + 1, state.candidates.len() as f64);
        let scored = {
            let mut progress = |share: f64| {
                let done = (done + share * wave.len() as f64) / total as f64;
                observe(Event::Progress { step, done }, state)
            };
            sweep.score(wave, incumbent, favourite, &mut progress).await?
        };
        let seconds = start.elapsed().as_secs_f64();
        state.work += sweep.take_work();
        state.seconds += seconds;
        let candidates = scored.into_iter().map(candidate).collect::<Result<_, _>>()?;
        record(candidates, total, state, observe)?;
        incumbent = incumbent.or_else(|| self::incumbent(favourite, &state.candidates));
        if memory.keeps_prefixes {
            let wanted = WAVE_SECONDS * wave.len() as f64 / seconds.max(1e-6);
            size = (wanted as usize).clamp(1, memory.wave);
        }
    }
    Ok(())
}

/// The best of the last step's candidates that is left: it is likely to win this one.
fn favourite(state: &SearchState) -> Option<BlockId> {
    let last = state.steps.last()?;
    let left = last.candidates.iter().filter(|candidate| candidate.block != last.removed);
    let scored = left.filter_map(|candidate| Some((candidate.perplexity?, candidate.block)));
    scored.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, block)| block)
}

fn incumbent(favourite: Option<BlockId>, candidates: &[Candidate]) -> Option<Bound> {
    let candidate = candidates.iter().find(|candidate| Some(candidate.block) == favourite)?;
    Some(Bound::new(candidate.perplexity?.ln()))
}

/// A loss that is not finite rejects the candidate, by name; any other error ends the search.
pub(super) fn candidate(scored: Scored) -> Result<Candidate, ScoreError> {
    let mut candidate = Candidate {
        block: scored.block,
        perplexity: None,
        at_least: None,
        state: CandidateState::Rejected,
        head_tokens: scored.head_tokens,
        reason: None,
    };
    match scored.outcome {
        // The mean can be finite where its exponential is not.
        Ok(Outcome::Complete(Score { perplexity, .. })) if perplexity.is_finite() => {
            (candidate.perplexity, candidate.state) = (Some(perplexity), CandidateState::Complete);
        }
        Ok(Outcome::Complete(Score { mean_nll, .. })) => {
            candidate.reason = Some(format!("the mean loss of {mean_nll} nats is too large for a perplexity"));
        }
        Ok(Outcome::Bounded { mean_nll, by }) => {
            // Above 709 nats the exponential is no number any more; the largest one is below it.
            candidate.at_least = Some(mean_nll.exp().min(f64::MAX));
            candidate.state = CandidateState::Bounded;
            candidate.reason = Some(format!("cannot win by {by}"));
        }
        Err(error @ ScoreError::NotFinite { .. }) => candidate.reason = Some(error.to_string()),
        Err(error) => return Err(error),
    }
    Ok(candidate)
}

/// Removes the candidate of lowest perplexity; of equals, the first in the published order.
fn finish_step(spec: &ModelSpec, state: &mut SearchState) -> Result<Step, SearchError> {
    let step = state.steps.len() + 1;
    let mut candidates = std::mem::take(&mut state.candidates);
    candidates.sort_by_key(|candidate| candidate.block);
    let mut best: Option<(BlockId, f64)> = None;
    for candidate in &candidates {
        if let Some(perplexity) = candidate.perplexity
            && best.is_none_or(|(_, lowest)| perplexity < lowest)
        {
            best = Some((candidate.block, perplexity));
        }
    }
    let Some((removed, perplexity)) = best else {
        let first = candidates.first();
        return Err(SearchError::NoCandidate {
            step,
            block: first.map_or(BlockId::mha(0), |candidate| candidate.block),
            reason: first.and_then(|candidate| candidate.reason.clone()).unwrap_or_default(),
        });
    };
    let gone: u64 = state.removed().with(removed).iter().map(|block| spec.block_parameters(block)).sum();
    let all = spec.parameters();
    let step = Step {
        step,
        removed,
        perplexity,
        candidates,
        work: std::mem::take(&mut state.work),
        params_left: all - gone,
        ratio_removed: gone as f64 / all as f64,
        seconds: std::mem::take(&mut state.seconds),
    };
    state.steps.push(step.clone());
    Ok(step)
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
            let outcome = Ok(Outcome::Bounded { mean_nll, by: "a bound".into() });
            let candidate = candidate(Scored { block: BlockId::mha(0), outcome, head_tokens: 1 }).unwrap();
            assert_eq!(candidate.state, CandidateState::Bounded);
            let at_least = candidate.at_least.unwrap();
            assert!(at_least.is_finite() && at_least <= mean_nll.exp(), "{mean_nll}: {at_least}");
        }
    }
}
