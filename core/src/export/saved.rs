//! An unfinished search as it is kept between two runs: `state/search.json`, or what a page stores.

use serde::{Deserialize, Serialize};

use super::{Fingerprint, FingerprintDifference};
use crate::model::{BlockSet, ModelSpec};
use crate::search::{SearchOptions, SearchState};

/// The value of `format` that this version reads and writes.
const STATE_FORMAT: &str = "blockpruner-state/1";

/// A search that can be gone on with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedSearch {
    format: String,
    /// What the search belongs to.
    pub fingerprint: Fingerprint,
    /// How far it has come.
    pub search: SearchState,
}

/// Why a saved search cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// Not a saved search, or one that does not fit the model and the settings.
    #[error("not a usable saved search: {problem}")]
    Damaged {
        /// What is wrong with it.
        problem: String,
    },
    /// It belongs to another model, text, device or to other settings.
    #[error("{0}")]
    Different(FingerprintDifference),
}

impl SavedSearch {
    /// A search to be saved.
    pub fn new(fingerprint: Fingerprint, search: SearchState) -> Self {
        Self { format: STATE_FORMAT.into(), fingerprint, search }
    }

    /// The document, on one line.
    pub fn to_json(&self) -> String {
        // Strings, numbers and string keys only: there is nothing that serialising could refuse.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The search in a saved document, if it belongs to the present model, text, settings and device.
    pub fn resume(
        json: &[u8],
        fingerprint: &Fingerprint,
        spec: &ModelSpec,
        options: &SearchOptions,
    ) -> Result<SearchState, ResumeError> {
        let damaged = |problem: String| ResumeError::Damaged { problem };
        let saved: Self = serde_json::from_slice(json).map_err(|error| damaged(error.to_string()))?;
        if saved.format != STATE_FORMAT {
            return Err(damaged(format!("its format is `{}`, expected `{STATE_FORMAT}`", saved.format)));
        }
        if let Some(difference) = saved.fingerprint.first_difference(fingerprint) {
            return Err(ResumeError::Different(difference));
        }
        check(&saved.search, spec, options).map_err(damaged)?;
        Ok(saved.search)
    }
}

/// Whether a saved search names only blocks that the model has, each once.
fn check(search: &SearchState, spec: &ModelSpec, options: &SearchOptions) -> Result<(), String> {
    let mut open: BlockSet = options.candidates(spec).collect();
    for step in &search.steps {
        if !open.remove(step.removed) {
            return Err(format!("step {} removes {}, which is no candidate there", step.step, step.removed));
        }
    }
    for candidate in &search.candidates {
        if !open.remove(candidate.block) {
            return Err(format!("{} is no candidate of the step under way", candidate.block));
        }
    }
    if search.steps.len() > options.remove || (search.dense.is_none() && !search.steps.is_empty()) {
        return Err("its steps do not fit the settings".into());
    }
    Ok(())
}
