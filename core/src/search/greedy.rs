//! The search itself.

use std::ops::ControlFlow;

use serde::{Deserialize, Deserializer, Serialize};
use web_time::Instant;

use super::strategy::StepContext;
use super::sweep::Sweep;
use super::{
    BlockTypes, Candidate, CandidateState, MemoryPlan, Reason, SearchOptions, Step, Unit, Units, Work, lowest,
    mebibytes,
};
use crate::gpu::GpuError;
use crate::model::{BlockId, BlockSet, ForwardError, ModelSpec};
use crate::score::{ScoreError, Scorer};

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
pub(crate) fn null_is_infinite<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
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
        self.steps.iter().flat_map(|step| step.removed.blocks()).collect()
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
        /// Share of the step's candidates that is done, 0 to 1.
        done: f64,
        /// Arithmetic of the step so far.
        work: Work,
    },
    /// A step is finished.
    Step(Step),
    /// What the next step would remove goes beyond what the target allows: it stays, and the search ends. The state has this
    /// step, for a search with another target.
    Beyond(Step),
}

/// Why a search ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// The device, the model or the text.
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// More should be removed than there is.
    #[error("cannot remove {remove} {units}: the model has {there}{}", of_type(*.units, *.block_types))]
    TooMany {
        /// Asked for.
        remove: usize,
        /// Of what.
        units: Units,
        /// Of which kind, if they are blocks.
        block_types: BlockTypes,
        /// There are.
        there: usize,
    },
    /// A larger share of the parameters should be removed than can be.
    #[error(
        "cannot remove {:.1} % of the parameters: without everything that may go, {:.1} % are gone; that is the most",
        100.0 * .ratio, (1000.0 * .most).floor() / 10.0
    )]
    TooMuch {
        /// Asked for, 0 to 1.
        ratio: f64,
        /// Can be reached, 0 to 1.
        most: f64,
    },
    /// The model should become smaller than it can.
    #[error(
        "the model cannot come down to {bytes} bytes: without everything that may go, it takes {least} bytes ({}) as it is \
         written ({written_as}); that is the least",
        mebibytes(*.least)
    )]
    TooSmall {
        /// Asked for.
        bytes: u64,
        /// Can be reached, in bytes.
        least: u64,
        /// Format and type.
        written_as: String,
    },
    /// The model is no larger than it should become.
    #[error(
        "nothing has to be removed: the whole model takes {whole} bytes ({}) as it is written ({written_as}), which fits into \
         {bytes}",
        mebibytes(*.whole)
    )]
    FitsAlready {
        /// Asked for.
        bytes: u64,
        /// There are.
        whole: u64,
        /// Format and type.
        written_as: String,
    },
    /// A target that makes no sense.
    #[error("{problem}")]
    Target {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Nothing could be removed within the perplexity that is allowed.
    #[error(
        "nothing can be removed within a perplexity of {most:.4}: the least costs {unit}, without which it is {perplexity:.4}; \
         allow more"
    )]
    NothingWithin {
        /// Perplexity that is allowed.
        most: f64,
        /// The first that would go.
        unit: Unit,
        /// Without it.
        perplexity: f64,
    },
    /// Blocks of one kind, and units that have both.
    #[error(
        "{units} have an attention and a feed-forward block each: choose blocks to remove blocks of type {block_types} only"
    )]
    TypesOfBlocks {
        /// What should be removed.
        units: Units,
        /// Of which kind.
        block_types: BlockTypes,
    },
    /// Units that a strategy cannot choose among.
    #[error("the strategy {strategy} removes {only}, not {units}: choose {only}, or another strategy")]
    UnitsOfStrategy {
        /// Its name.
        strategy: String,
        /// What it can.
        only: Units,
        /// What should be removed.
        units: Units,
    },
    /// No candidate of a step has a perplexity.
    #[error("step {step}: no candidate has a finite perplexity; the first one, {unit}: {reason}")]
    NoCandidate {
        /// 1-based.
        step: usize,
        /// The first candidate.
        unit: Unit,
        /// Why it was rejected.
        reason: String,
    },
    /// The observer asked to stop.
    #[error("stopped")]
    Stopped,
}

fn of_type(units: Units, block_types: BlockTypes) -> String {
    if units == Units::Blocks { format!(" of type {block_types}") } else { String::new() }
}

/// Tells of events; what it returns says whether to go on.
pub(super) type Observer<'o> = &'o mut dyn FnMut(Event, &SearchState) -> ControlFlow<()>;

/// Searches from `state` on: an empty one, or one that an observer kept from an earlier run with the same model, text,
/// options and device. Every event but [`Event::Progress`] comes with a state that is worth saving: a search that is resumed
/// from it ends in the same steps, their work included, as one that was never interrupted.
///
/// The result does not depend on `memory`, which says how much is done at a time. Of a target that allows so much perplexity,
/// the last step of the state that is returned may be the first one beyond it ([`Event::Beyond`]).
///
/// # Errors
/// [`SearchError`]: [`SearchError::Stopped`] when the observer wants it so.
pub async fn search(
    scorer: &Scorer<'_>,
    options: &SearchOptions,
    memory: &MemoryPlan,
    state: SearchState,
    observe: Observer<'_>,
) -> Result<SearchState, SearchError> {
    let spec = scorer.model().spec();
    options.check(spec)?;
    let sweep = match memory.needs.together {
        true => Some(Sweep::new(scorer, *memory, state.removed(), &options.candidates(spec, &BlockSet::new())).await?),
        false => None,
    };
    let mut context = StepContext { scorer, sweep, options, memory: *memory, state, observe };
    match context.state.dense {
        None => dense(&mut context).await?,
        Some(_) if options.end(spec, &context.state).is_none() => catch_up(&mut context).await?,
        Some(_) => {}
    }
    while options.end(spec, &context.state).is_none() {
        let (start, before) = (Instant::now(), context.state.seconds);
        options.strategy.step(&mut context).await?;
        leave_out(&mut context)?;
        measure_lowest(&mut context).await?;
        context.state.seconds = before + start.elapsed().as_secs_f64();
        if options.end(spec, &context.state).is_some() {
            // No candidate is within any bound: all losses are too large for a perplexity.
            break;
        }
        let step = finish_step(spec, &mut context.state)?;
        if options.end(spec, &context.state).is_some_and(|end| end.beyond) {
            context.tell(Event::Beyond(step))?;
            break;
        }
        if let Some(sweep) = &mut context.sweep {
            sweep.remove(step.removed);
        }
        context.tell(Event::Step(step))?;
    }
    Ok(context.state)
}

/// Scores the unpruned model.
async fn dense(context: &mut StepContext<'_>) -> Result<(), SearchError> {
    let StepContext { scorer, sweep, state, observe, .. } = context;
    let score = match sweep {
        None => scorer.perplexity(&BlockSet::new()).await?,
        Some(sweep) => {
            let mut progress = |done, work| observe(Event::Progress { step: 0, done, work }, state);
            let score = sweep.dense(&mut progress).await?;
            // The first step does not pay for what it shares with this pass.
            sweep.take_work();
            score
        }
    };
    let dense = Dense { perplexity: score.perplexity, mean_nll: score.mean_nll };
    state.dense = Some(dense);
    context.tell(Event::Dense(dense))
}

/// Brings a resumed search's sweep to where an uninterrupted one would be: with the states before every candidate that has
/// been reached. The step under way does not pay for them a second time.
async fn catch_up(context: &mut StepContext<'_>) -> Result<(), SearchError> {
    let (step, total) = (context.number(), context.total());
    let StepContext { sweep: Some(sweep), state, observe, .. } = context else { return Ok(()) };
    let done = state.candidates.len() as f64 / total.max(1) as f64;
    let reached = state.steps.last().map(|step| step.removed).into_iter();
    let reached = reached.chain(state.candidates.iter().map(|candidate| candidate.unit));
    let mut progress = |_, _| observe(Event::Progress { step, done, work: state.work }, state);
    sweep.catch_up(reached, state.steps.is_empty(), &mut progress).await?;
    sweep.take_work();
    Ok(())
}

/// Records the candidates that the strategy has left: a step lists every one.
fn leave_out(context: &mut StepContext<'_>) -> Result<(), SearchError> {
    let reason = Reason::LeftOut { strategy: context.options.strategy.name().into() };
    let left = context.open().into_iter().map(|unit| Candidate {
        unit,
        value: None,
        perplexity: None,
        at_least: None,
        state: CandidateState::Raced,
        head_tokens: 0,
        reason: Some(reason.clone()),
    });
    match left.collect::<Vec<_>>() {
        left if left.is_empty() => Ok(()),
        left => context.record(left),
    }
}

/// Scores what goes completely, where the strategy has only measured another value: every step has a perplexity. A candidate
/// whose loss is not finite is rejected, and the next one takes its place.
async fn measure_lowest(context: &mut StepContext<'_>) -> Result<(), SearchError> {
    // Of equals, the first is the lowest.
    context.state.candidates.sort_by_key(|candidate| candidate.unit);
    while let Some(unit) =
        lowest(&context.state.candidates).filter(|best| best.perplexity.is_none()).map(|best| best.unit)
    {
        let Candidate { perplexity, state, head_tokens, reason, .. } = context.pass(unit).await?;
        if let Some(best) = context.state.candidates.iter_mut().find(|candidate| candidate.unit == unit) {
            *best = Candidate { perplexity, state, head_tokens, reason, ..*best };
        }
    }
    Ok(())
}

/// Removes the candidate of lowest value, which come in the order in which the first of equals wins.
fn finish_step(spec: &ModelSpec, state: &mut SearchState) -> Result<Step, SearchError> {
    let step = state.steps.len() + 1;
    let candidates = std::mem::take(&mut state.candidates);
    let best = lowest(&candidates).and_then(|best| Some((best.unit, best.value?, best.perplexity?)));
    let Some((removed, value, perplexity)) = best else {
        let first = candidates.first();
        return Err(SearchError::NoCandidate {
            step,
            unit: first.map_or(BlockId::mha(0).into(), |candidate| candidate.unit),
            reason: first.and_then(|candidate| Some(candidate.reason.as_ref()?.to_string())).unwrap_or_default(),
        });
    };
    let gone = state.removed().with(removed.blocks());
    let step = Step {
        step,
        removed,
        value,
        perplexity,
        candidates,
        work: std::mem::take(&mut state.work),
        params_left: spec.parameters_without(&gone),
        ratio_removed: spec.ratio_removed(&gone),
        bytes: None,
        kv_cache: None,
        seconds: std::mem::take(&mut state.seconds),
    };
    state.steps.push(step.clone());
    Ok(step)
}
