//! The greedy search over blocks, as published: score every remaining block by the perplexity without it, remove the one
//! of lowest perplexity, repeat. Knows nothing of files or screens: progress goes to an observer, which may stop it.
//!
//! `greedy` is the loop, `sweep` the pass that advances many candidates together, `bound` what lets it stop early without
//! changing the result, `likely` the part of the vocabulary that bounds rest on, `race` the approximation, `memory` how much
//! is done at a time.

mod bound;
mod greedy;
mod likely;
mod memory;
mod race;
mod step;
mod sweep;

pub use greedy::{BlockTypes, Dense, Event, SearchError, SearchOptions, SearchState, Strategy, search};
pub use memory::{MemoryError, MemoryPlan};
pub use step::{Candidate, CandidateState, Step, Work};
