//! What a search tells, as its iterator hands it over.

use blockpruner::search::{Candidate, Cost, Event as Found, Step};
use blockpruner::session::Event;
use serde::Serialize;

use crate::options::Stage;

/// `SearchEvent` in `types.ts`.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum JsEvent {
    Prepare(Stage),
    Dense {
        perplexity: f64,
        mean_nll: f64,
    },
    Candidate {
        step: usize,
        candidate: Candidate,
        done: usize,
        total: usize,
    },
    Progress {
        step: usize,
        done: f64,
    },
    Step(Step),
    /// Would have come next, but lies beyond the target.
    Beyond(Step),
}

impl JsEvent {
    /// What the iterator tells of an event: of a wave, every candidate.
    pub fn of(event: Event) -> Vec<Self> {
        let found = match event {
            Event::Found(found) => found,
            Event::Prepare(preparation) => return Stage::of(preparation).map(Self::Prepare).into_iter().collect(),
            _ => return Vec::new(),
        };
        match found {
            Found::Dense(dense) => vec![Self::Dense { perplexity: dense.perplexity, mean_nll: dense.mean_nll }],
            Found::Wave { step, candidates, done, total } => {
                let first = done + 1 - candidates.len();
                let numbered = candidates.into_iter().zip(first..);
                numbered.map(|(candidate, done)| Self::Candidate { step, candidate, done, total }).collect()
            }
            Found::Progress { step, done, .. } => vec![Self::Progress { step, done }],
            Found::Step(step) => vec![Self::Step(step)],
            Found::Beyond(step) => vec![Self::Beyond(step)],
        }
    }
}

/// `Cost` in `types.ts`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JsCost {
    steps: Option<usize>,
    passes: usize,
    whole_passes: f64,
    done: f64,
    tokens_per_second: Option<f64>,
    seconds_left: Option<f64>,
}

impl JsCost {
    /// What the library foresees.
    pub fn of(cost: &Cost) -> Self {
        let (steps, passes, whole_passes) = (cost.steps(), cost.passes(), cost.whole_passes());
        let (tokens_per_second, seconds_left) = (cost.tokens_per_second(), cost.seconds_left());
        Self { steps, passes, whole_passes, done: cost.done(), tokens_per_second, seconds_left }
    }
}

/// `IteratorResult`.
#[derive(Serialize)]
pub struct Next {
    pub value: Option<JsEvent>,
    pub done: bool,
}
