//! The greedy search over blocks, as published: score every remaining block by the perplexity without it, remove the one
//! of lowest perplexity, repeat. Knows nothing of files or screens: progress goes to an observer, which may stop it.

mod greedy;
mod step;

pub use greedy::{BlockTypes, Dense, Event, SearchError, SearchOptions, SearchState, search};
pub use step::{Candidate, CandidateState, Step, Work};
