//! A plan among others, and what everything here asks of it.

use crate::export::{Plan, PlanStatus};
use crate::model::{BlockKind, BlockSet};
use crate::search::{Candidate, CandidateState, Step, Work};

/// One plan that is reported, with the name that tells it from the others.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Run {
    /// Shown wherever there are several.
    pub name: String,
    /// What was found.
    pub plan: Plan,
}

impl Run {
    /// A plan by a name.
    pub fn new(name: impl Into<String>, plan: Plan) -> Self {
        Self { name: name.into(), plan }
    }

    /// Plans by names that may be the same: those that come again get a number.
    pub fn all(plans: impl IntoIterator<Item = (String, Plan)>) -> Vec<Self> {
        let mut runs: Vec<Self> = Vec::new();
        for (name, plan) in plans {
            let is_free = |name: &str| runs.iter().all(|run| run.name != name);
            let numbered = (2..).map(|number| format!("{name} ({number})"));
            let name = std::iter::once(name.clone()).chain(numbered).find(|name| is_free(name)).unwrap_or_default();
            runs.push(Self { name, plan });
        }
        runs
    }

    /// Share of the parameters removed and perplexity, from the whole model on.
    pub(super) fn points(&self) -> Vec<(f64, f64)> {
        let steps = self.plan.steps.iter().map(|step| (step.ratio_removed, step.perplexity));
        std::iter::once((0.0, self.plan.dense.perplexity)).chain(steps).collect()
    }

    /// The last point of those.
    pub(super) fn end(&self) -> (f64, f64) {
        let last = self.plan.steps.last().map(|step| (step.ratio_removed, step.perplexity));
        last.unwrap_or((0.0, self.plan.dense.perplexity))
    }

    /// Blocks of the whole model. A damaged file may have any number of layers.
    pub(super) fn blocks(&self) -> usize {
        let model = &self.plan.model;
        model.layers.saturating_mul(BlockKind::ALL.len()).saturating_sub(model.absent.len())
    }

    /// What the first steps removed, all of them if there are fewer.
    pub(super) fn removed_after(&self, steps: usize) -> BlockSet {
        self.plan.steps.iter().take(steps).flat_map(|step| step.removed.blocks()).collect()
    }

    /// What all steps removed.
    pub(super) fn removed(&self) -> BlockSet {
        self.removed_after(self.plan.steps.len())
    }

    /// Wall time of all steps, in seconds.
    pub(super) fn seconds(&self) -> f64 {
        // The sum of nothing would be -0.
        self.plan.steps.iter().fold(0.0, |seconds, step| seconds + step.seconds)
    }

    /// Arithmetic of all steps.
    pub(super) fn work(&self) -> Work {
        self.plan.steps.iter().fold(Work::default(), |work, step| work + step.work)
    }

    /// How far it has come, if that is not its end.
    pub(super) fn unfinished(&self) -> Option<&'static str> {
        match self.plan.status {
            PlanStatus::Finished => None,
            PlanStatus::Stopped => Some("The search was stopped before its end: this is what it had found."),
            PlanStatus::Searching => Some("The search has not come to its end: this is what it had found."),
        }
    }
}

/// What is known of a candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Score {
    /// What the strategy measures.
    Exact(f64),
    /// No less than this.
    AtLeast(f64),
    /// Nothing.
    Unknown,
}

impl Score {
    pub fn of(candidate: &Candidate) -> Self {
        match (candidate.value.or(candidate.perplexity), candidate.at_least) {
            (Some(value), _) => Self::Exact(value),
            (None, Some(bound)) => Self::AtLeast(bound),
            (None, None) => Self::Unknown,
        }
    }

    /// What it is at least.
    pub fn number(self) -> Option<f64> {
        match self {
            Self::Exact(value) | Self::AtLeast(value) => Some(value).filter(|value| value.is_finite()),
            Self::Unknown => None,
        }
    }
}

/// The candidates of a step, the best one first: those that were scored, those of which a bound is known, the others. Equals
/// keep their order.
pub(super) fn ranked(step: &Step) -> Vec<&Candidate> {
    let mut candidates: Vec<_> = step.candidates.iter().collect();
    let place = |candidate: &Candidate| match (Score::of(candidate), candidate.state) {
        (Score::Exact(value), CandidateState::Complete) => (0, value),
        (Score::Exact(value), _) => (1, value),
        (Score::AtLeast(bound), _) => (2, bound),
        (Score::Unknown, _) => (3, 0.0),
    };
    candidates.sort_by(|one, other| {
        let ((kind, value), (other_kind, other)) = (place(one), place(other));
        kind.cmp(&other_kind).then(value.total_cmp(&other))
    });
    candidates
}
