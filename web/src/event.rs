//! What a search tells, as its iterator hands it over.

use blockpruner::search::{Candidate, Event as Found, Step};
use blockpruner::session::Event;
use serde::Serialize;

use crate::options::Stage;

/// `SearchEvent` in `types.ts`.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum JsEvent {
    Prepare(Stage),
    Dense { perplexity: f64, mean_nll: f64 },
    Candidate { step: usize, candidate: Candidate, done: usize, total: usize },
    Progress { step: usize, done: f64 },
    Step(Step),
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
        }
    }
}

/// `IteratorResult`.
#[derive(Serialize)]
pub struct Next {
    pub value: Option<JsEvent>,
    pub done: bool,
}
