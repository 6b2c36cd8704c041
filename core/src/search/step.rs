//! What one step of the search found, as it stands in `plan.json`.

use serde::{Deserialize, Serialize};

use super::{Reason, Unit};
use crate::model::KvCache;

/// How far the scoring of a candidate went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CandidateState {
    /// Every token was scored or, by another objective than the perplexity, measured.
    Complete,
    /// Dropped by an exact bound: it could not win any more.
    Bounded,
    /// Dropped by an approximate race.
    Raced,
    /// Its loss was not finite.
    Rejected,
}

/// One candidate of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// What was left out, besides what was removed before.
    #[serde(rename = "block")]
    pub unit: Unit,
    /// What the objective measures of it, on every token. The lowest wins.
    #[serde(default)]
    pub value: Option<f64>,
    /// Perplexity without it, if that was measured on every token: of what goes, always.
    pub perplexity: Option<f64>,
    /// A lower bound of that perplexity, if it was dropped early.
    pub at_least: Option<f64>,
    /// How far the scoring went.
    pub state: CandidateState,
    /// Tokens that went through the head for it; one that saw a part of the vocabulary counts as that part.
    #[serde(default)]
    pub head_tokens: u64,
    /// Why it was rejected or dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

/// The candidate of lowest value among those that were scored completely; of equals, the first.
pub(crate) fn lowest<'a>(candidates: impl IntoIterator<Item = &'a Candidate>) -> Option<&'a Candidate> {
    let mut best: Option<(&Candidate, f64)> = None;
    for candidate in candidates {
        if let (CandidateState::Complete, Some(value)) = (candidate.state, candidate.value)
            && best.is_none_or(|(_, lowest)| value < lowest)
        {
            best = Some((candidate, value));
        }
    }
    best.map(|(candidate, _)| candidate)
}

/// Arithmetic done, in units that do not depend on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Tokens times blocks that were run.
    pub block_tokens: u64,
    /// Tokens that went through the head.
    pub head_tokens: u64,
}

impl std::ops::Add for Work {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl std::ops::AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        self.block_tokens += other.block_tokens;
        self.head_tokens += other.head_tokens;
    }
}

/// What was removed and how it was chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// 1-based.
    pub step: usize,
    /// The candidate of lowest value, removed from here on.
    pub removed: Unit,
    /// That candidate's value: of the perplexity, where it is measured in every step, that without all blocks removed so far.
    #[serde(default)]
    pub value: f64,
    /// Perplexity of the model without all blocks removed so far.
    pub perplexity: f64,
    /// Every candidate, in the order in which the first of equals wins.
    pub candidates: Vec<Candidate>,
    /// Arithmetic done for this step.
    pub work: Work,
    /// Parameters left, a tied head counted once.
    pub params_left: u64,
    /// Share of all parameters removed so far, 0 to 1.
    pub ratio_removed: f64,
    /// Bytes of the weight files after it, at most, as [`super::SearchOptions::sizes`] foresees them. In plans only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The KV cache after it. In plans only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_cache: Option<KvCache>,
    /// Wall time of this step.
    pub seconds: f64,
}
