//! The greedy search over blocks, as published: score every remaining block by the perplexity without it, remove the one
//! of lowest perplexity, repeat. Knows nothing of files or screens: progress goes to an observer, which may stop it.
//!
//! `options` says what is searched for, `target` where that ends, `sizes` what blocks take as they will be written, `greedy` is the loop over steps, `strategy` how a step's candidates are scored. Below
//! these: `unit`, what a step removes, `sweep`, the pass that advances many candidates together, `bound`, what lets it stop early
//! without changing the result, `likely`, the part of the vocabulary that bounds rest on, and `memory`, how much is done at a
//! time. `cost` foresees what a search will take.

mod bound;
mod cost;
mod greedy;
mod likely;
mod memory;
mod options;
mod reason;
mod sizes;
mod step;
mod strategy;
mod sweep;
mod target;
mod unit;

pub use cost::{Arithmetic, Cost};
use greedy::Observer;
pub(crate) use greedy::null_is_infinite;
pub use greedy::{Dense, Event, SearchError, SearchState, search};
pub use memory::{MemoryError, MemoryPlan};
pub use options::{BlockTypes, Objective, SearchOptions};
pub use reason::Reason;
pub use sizes::BlockSizes;
pub(crate) use sizes::mebibytes;
pub(crate) use step::lowest;
pub use step::{Candidate, CandidateState, Step, Work};
pub use strategy::{
    ByChange, Exact, Exhaustive, OneShot, Racing, Random, StepContext, StepFuture, Strategy, StrategyNeeds, strategy,
};
pub(crate) use target::End;
pub use target::Target;
pub use unit::{Unit, Units};
