//! What a pruning came to, for people: an HTML file that needs nothing beside it, and plans side by side as tables.
//!
//! Plans and evaluations go in, strings come out; nothing here reads or writes a file. `html` has the parts of the page in their
//! order: `curve` is perplexity against size, `map` the blocks, `steps` the rankings, `evaluated` tasks and texts, `cost` arithmetic and settings. `compare` puts
//! plans beside each other, in tables (`table`). `run` is a plan with a name, `axis` and `numbers` are marks and figures that
//! people can read.

mod axis;
mod compare;
mod cost;
mod curve;
mod evaluated;
mod html;
mod map;
mod numbers;
mod run;
mod steps;
mod table;
#[cfg(test)]
mod tests;

pub use compare::{AtRatio, CommonBlocks, ComparedPlan, Comparison, FoundStep, RATIOS};
pub use numbers::{bytes, grouped, percent, perplexity};
pub use run::Run;
pub use table::Table;

use crate::eval::Evaluation;

/// What a report is about.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// Compared where there are several.
    pub runs: Vec<Run>,
    /// What the models do on tasks.
    pub evaluations: Vec<Evaluation>,
}

impl Report {
    /// Of these runs.
    pub fn new(runs: impl IntoIterator<Item = Run>) -> Self {
        Self { runs: runs.into_iter().collect(), ..Self::default() }
    }

    /// With evaluations, of the whole model and pruned ones.
    pub fn evaluations(mut self, evaluations: impl IntoIterator<Item = Evaluation>) -> Self {
        self.evaluations = evaluations.into_iter().collect();
        self
    }

    /// The report as one HTML file: no script, and nothing that it would load.
    pub fn to_html(&self) -> String {
        html::document(self).into_string()
    }
}
