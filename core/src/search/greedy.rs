//! The search itself.

use std::fmt;
use std::ops::ControlFlow;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use web_time::Instant;

use super::{Candidate, CandidateState, Step, Work};
use crate::model::{BlockId, BlockKind, BlockSet, ModelSpec};
use crate::score::{PrefixWalk, Score, ScoreError, Scorer};

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

/// What to search for.
#[derive(Clone, Copy, Debug)]
pub struct SearchOptions {
    /// Blocks to remove, the K of the paper.
    pub remove: usize,
    /// Which blocks are candidates.
    pub block_types: BlockTypes,
    /// Run the published loop literally: a whole forward pass for every candidate, in the published order.
    pub exhaustive: bool,
}

impl SearchOptions {
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
    /// exp of `mean_nll`.
    pub perplexity: f64,
    /// Nats a token.
    pub mean_nll: f64,
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
#[derive(Debug)]
pub enum Event<'a> {
    /// The unpruned model was scored.
    Dense(&'a Dense),
    /// A candidate was scored.
    Candidate {
        /// 1-based.
        step: usize,
        /// The candidate.
        candidate: &'a Candidate,
        /// Candidates of this step that are scored.
        done: usize,
        /// Candidates of this step.
        total: usize,
    },
    /// A step is finished.
    Step(&'a Step),
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
type Observer<'o> = &'o mut dyn FnMut(Event<'_>, &SearchState) -> ControlFlow<()>;

/// Searches from `state` on: an empty one, or one that an observer kept from an earlier run with the same model, text,
/// options and device. Every event comes with the state after it; to save that state is to be able to resume.
pub async fn search(
    scorer: &Scorer<'_>,
    options: &SearchOptions,
    mut state: SearchState,
    observe: Observer<'_>,
) -> Result<SearchState, SearchError> {
    options.check(scorer.model().spec())?;
    if state.dense.is_none() {
        let score = scorer.perplexity(&BlockSet::new()).await?;
        let dense = Dense { perplexity: score.perplexity, mean_nll: score.mean_nll };
        state.dense = Some(dense);
        go_on(observe(Event::Dense(&dense), &state))?;
    }
    while state.steps.len() < options.remove {
        score_candidates(scorer, options, &mut state, observe).await?;
        let step = finish_step(scorer.model().spec(), &mut state)?;
        go_on(observe(Event::Step(&step), &state))?;
    }
    Ok(state)
}

fn go_on(flow: ControlFlow<()>) -> Result<(), SearchError> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(SearchError::Stopped),
    }
}

/// Scores every candidate of the step under way that `state` does not hold yet.
async fn score_candidates(
    scorer: &Scorer<'_>,
    options: &SearchOptions,
    state: &mut SearchState,
    observe: Observer<'_>,
) -> Result<(), SearchError> {
    let removed = state.removed();
    let mut open: Vec<BlockId> =
        options.candidates(scorer.model().spec()).filter(|block| !removed.contains(*block)).collect();
    let total = open.len();
    open.retain(|block| state.candidates.iter().all(|scored| scored.block != *block));
    let mut walk = None;
    if !options.exhaustive {
        open.sort_by_key(|block| block.depth());
        walk = Some(PrefixWalk::new(scorer, removed.clone()).await?);
    }
    for block in open {
        let start = Instant::now();
        let (score, work) = match &mut walk {
            Some(walk) => walk.perplexity(block).await,
            None => {
                let without = removed.with(block);
                (scorer.perplexity(&without).await, scorer.work(0, &without))
            }
        };
        let candidate = candidate(block, score)?;
        state.work += work;
        state.seconds += start.elapsed().as_secs_f64();
        state.candidates.push(candidate.clone());
        let done = state.candidates.len();
        let event = Event::Candidate { step: state.steps.len() + 1, candidate: &candidate, done, total };
        go_on(observe(event, state))?;
    }
    Ok(())
}

/// A loss that is not finite rejects the candidate, by name; any other error ends the search.
fn candidate(block: BlockId, score: Result<Score, ScoreError>) -> Result<Candidate, ScoreError> {
    let (perplexity, state, reason) = match score {
        // The mean can be finite where its exponential is not.
        Ok(score) if score.perplexity.is_finite() => (Some(score.perplexity), CandidateState::Complete, None),
        Ok(score) => {
            let reason = format!("the mean loss of {} nats is too large for a perplexity", score.mean_nll);
            (None, CandidateState::Rejected, Some(reason))
        }
        Err(error @ ScoreError::NotFinite { .. }) => (None, CandidateState::Rejected, Some(error.to_string())),
        Err(error) => return Err(error),
    };
    Ok(Candidate { block, perplexity, at_least: None, state, reason })
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
