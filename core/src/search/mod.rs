//! The greedy search over blocks.

mod step;

pub use step::{Candidate, CandidateState, Step, Work};
