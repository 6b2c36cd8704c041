//! The result of the published loop, without the work that cannot change it.

use super::{StepContext, StepFuture, Strategy, StrategyNeeds, Waves};
use crate::search::bound::Bound;
use crate::search::{Candidate, Event, SearchError, SearchState, Unit, lowest};
use crate::text::Windows;

/// The result of the published loop, without the work that cannot change it: candidates advance together in waves, the likely
/// winner first; the others only until it is clear that they cannot win. Every candidate of the first step is scored completely.
#[derive(Clone, Copy, Debug)]
pub struct Exact;

impl Strategy for Exact {
    fn name(&self) -> &str {
        "exact"
    }

    fn is_approximate(&self) -> bool {
        false
    }

    fn needs(&self, _windows: &Windows) -> StrategyNeeds {
        StrategyNeeds { likely_head: true, ..StrategyNeeds::default() }
    }

    fn usual_share(&self, step: usize) -> f64 {
        if step == 1 { 1.0 } else { 0.8 }
    }

    fn step<'a>(&'a self, step: &'a mut StepContext<'_>) -> StepFuture<'a> {
        Box::pin(exact_step(step))
    }
}

async fn exact_step(context: &mut StepContext<'_>) -> Result<(), SearchError> {
    let favourite = favourite(&context.state);
    let mut open = context.open();
    open.sort_by_key(Unit::by_layer);
    // Only the favourite is ever the incumbent, so that what is recorded does not depend on how the waves fell.
    let mut incumbent = self::incumbent(favourite, context.scored());
    if let (Some(unit), Some(_), false) = (favourite, incumbent, open.is_empty()) {
        show_likely_tokens(context, unit).await?;
    }
    let memory = context.memory;
    let batches = context.sweep.as_ref().map_or(1, |sweep| sweep.batches());
    let one_wave = memory.wave >= open.len() && memory.round >= batches;
    let alone = favourite.filter(|unit| open.contains(unit) && !(memory.streamed && one_wave));
    if let Some(unit) = alone {
        open.retain(|other| *other != unit);
        open.insert(0, unit);
    }
    let mut waves = Waves::new(context);
    let mut rest = open.as_slice();
    while !rest.is_empty() {
        let first = alone.is_some_and(|unit| rest.first() == Some(&unit));
        let (wave, after) = rest.split_at(if first { 1 } else { waves.next(rest.len()) });
        rest = after;
        context.score_wave(wave, incumbent, favourite, &mut waves).await?;
        incumbent = incumbent.or_else(|| self::incumbent(favourite, context.scored()));
    }
    Ok(())
}

/// A resumed step scores its favourite again, because it shows which tokens are likely; that work is counted already.
async fn show_likely_tokens(context: &mut StepContext<'_>, favourite: Unit) -> Result<(), SearchError> {
    let (step, done) = (context.number(), context.scored().len() as f64 / context.total() as f64);
    let StepContext { sweep: Some(sweep), state, observe, .. } = context else { return Ok(()) };
    let mut progress = |_, _| observe(Event::Progress { step, done, work: state.work }, state);
    sweep.score(&[favourite], None, Some(favourite), &mut progress).await?;
    sweep.take_work();
    Ok(())
}

/// The best of the last step's candidates that is left: it is likely to win this one.
fn favourite(state: &SearchState) -> Option<Unit> {
    let last = state.steps.last()?;
    let is_left = |unit: Unit| unit.blocks().all(|block| !last.removed.contains(block));
    lowest(last.candidates.iter().filter(|candidate| is_left(candidate.unit))).map(|candidate| candidate.unit)
}

fn incumbent(favourite: Option<Unit>, candidates: &[Candidate]) -> Option<Bound> {
    let candidate = candidates.iter().find(|candidate| Some(candidate.unit) == favourite)?;
    Some(Bound::new(candidate.perplexity?.ln()))
}
