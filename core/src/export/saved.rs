//! An unfinished search as it is kept between two runs: `state/search.json`, or what a page stores.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::plan::{Searched, check_promise};
use super::{Fingerprint, FingerprintDifference, Plan};
use crate::digest::hex;
use crate::model::ModelSpec;
use crate::search::{SearchOptions, SearchState};

/// The value of `format` that this version reads and writes.
const STATE_FORMAT: &str = "blockpruner-state/3";

/// How the format of a plan begins.
const PLAN_FORMATS: &str = "blockpruner-plan/";
const PLAN_FILE: &str = "plan.json";

/// A search that can be gone on with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedSearch {
    format: String,
    /// SHA-256 of the rest, in hexadecimal.
    digest: String,
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
        let digest = digest(&fingerprint, &search);
        Self { format: STATE_FORMAT.into(), digest, fingerprint, search }
    }

    /// The document, on one line.
    pub fn to_json(&self) -> String {
        // Strings, numbers and string keys only: there is nothing that serialising could refuse.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The search in a saved document, or what a plan.json holds of one, if it belongs to the present model, text, settings and
    /// device. It may have more steps than the settings ask for.
    ///
    /// # Errors
    /// What is wrong with the document, or the first difference.
    pub fn resume(
        json: &[u8],
        fingerprint: &Fingerprint,
        spec: &ModelSpec,
        options: &SearchOptions,
    ) -> Result<SearchState, ResumeError> {
        let damaged = |problem: String| ResumeError::Damaged { problem };
        let saved = Self::parse(json).map_err(damaged)?;
        if let Some(difference) = saved.fingerprint.first_difference(fingerprint) {
            return Err(ResumeError::Different(difference));
        }
        check(&saved.search, spec, options).map_err(damaged)?;
        Ok(saved.search)
    }

    fn parse(json: &[u8]) -> Result<Self, String> {
        let unreadable = |error: serde_json::Error| error.to_string();
        let Versioned { format } = serde_json::from_slice(json).map_err(unreadable)?;
        if format.starts_with(PLAN_FORMATS) {
            let Plan { fingerprint, dense, mut steps, beyond, .. } =
                Plan::parse(PLAN_FILE, json).map_err(|error| error.to_string())?;
            steps.extend(beyond);
            return Ok(Self::new(fingerprint, SearchState { dense: Some(dense), steps, ..SearchState::default() }));
        }
        if format != STATE_FORMAT {
            return Err(format!(
                "its format is `{format}`, this version reads `{STATE_FORMAT}`; it can be finished by the version that \
                 saved it"
            ));
        }
        let saved: Self = serde_json::from_slice(json).map_err(unreadable)?;
        match saved.digest == digest(&saved.fingerprint, &saved.search) {
            true => Ok(saved),
            false => Err("it is not what was saved, its digest says; the disk may be failing".into()),
        }
    }
}

/// The part of the document that every version has.
#[derive(Deserialize)]
struct Versioned {
    format: String,
}

/// Of what was read, not of how it was written: spaces are of no consequence.
fn digest(fingerprint: &Fingerprint, search: &SearchState) -> String {
    // As in `to_json`, nothing can be refused.
    let content = serde_json::to_vec(&(fingerprint, search)).unwrap_or_default();
    hex(Sha256::digest(content))
}

/// Whether a saved search fits the model and the settings, and has what its candidates' states promise.
fn check(search: &SearchState, spec: &ModelSpec, options: &SearchOptions) -> Result<(), String> {
    if search.dense.is_none() && !(search.steps.is_empty() && search.candidates.is_empty()) {
        return Err("it has candidates, but no score of the dense model".into());
    }
    let searched = Searched {
        layers: spec.layers.len(),
        parameters: spec.parameters(),
        absent: &spec.absent,
        units: options.units_of(spec),
        block_types: options.block_types,
    };
    searched.check(&search.steps).map_err(|(place, problem)| format!("at {place}: {problem}"))?;
    let mut open: BTreeSet<_> = options.candidates(spec, &search.removed()).into_iter().collect();
    for (at, candidate) in search.candidates.iter().enumerate() {
        if !open.remove(&candidate.unit) {
            return Err(format!("at candidates[{at}]: {} is no candidate of the step under way", candidate.unit));
        }
        check_promise(candidate).map_err(|problem| format!("at candidates[{at}]: {problem}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::model::BlockId;
    use crate::search::{BlockTypes, Candidate, CandidateState, Dense, Step, Work};
    use serde_json::{Value, json};

    fn options() -> SearchOptions {
        SearchOptions::remove(2).block_types(BlockTypes::Mlp)
    }

    fn spec() -> ModelSpec {
        let config = json!({
            "model_type": "llama", "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 3,
            "num_attention_heads": 2, "vocab_size": 11,
        });
        ModelSpec::from_config(config.as_object().unwrap()).unwrap()
    }

    fn fingerprint() -> Fingerprint {
        let name = |name: &str| name.to_string();
        Fingerprint {
            weights: name("w"),
            tokenizer: name("t"),
            token_ids: name("i"),
            settings: name("s"),
            device: name("d"),
            kernels: name("k"),
        }
    }

    /// One step is done, one candidate of the second.
    fn saved() -> Value {
        let candidate = |layer, perplexity| Candidate {
            unit: BlockId::mlp(layer).into(),
            value: Some(perplexity),
            perplexity: Some(perplexity),
            at_least: None,
            head_tokens: 0,
            state: CandidateState::Complete,
            reason: None,
        };
        let step = Step {
            step: 1,
            removed: BlockId::mlp(1).into(),
            value: 2.0,
            perplexity: 2.0,
            candidates: vec![candidate(0, 3.0), candidate(1, 2.0), candidate(2, 2.0)],
            work: Work::default(),
            params_left: spec().parameters() - 100,
            ratio_removed: 0.1,
            bytes: None,
            kv_cache: None,
            seconds: 1.0,
        };
        let search = SearchState {
            dense: Some(Dense { perplexity: 1.5, mean_nll: 0.4 }),
            steps: vec![step],
            candidates: vec![candidate(0, 4.0)],
            ..SearchState::default()
        };
        serde_json::to_value(SavedSearch::new(fingerprint(), search)).unwrap()
    }

    fn resume(saved: &Value) -> Result<SearchState, ResumeError> {
        SavedSearch::resume(saved.to_string().as_bytes(), &fingerprint(), &spec(), &options())
    }

    /// The document with the digest of its content, where it can be read at all.
    fn sealed(mut saved: Value) -> Value {
        if let Ok(SavedSearch { fingerprint, search, .. }) = serde_json::from_value(saved.clone()) {
            saved["digest"] = json!(digest(&fingerprint, &search));
        }
        saved
    }

    #[test]
    fn a_saved_search_reads_back() {
        let state = resume(&saved()).unwrap();
        let again = serde_json::to_value(SavedSearch::new(fingerprint(), state)).unwrap();
        assert_eq!(again, saved());
    }

    #[test]
    fn losses_too_large_for_a_perplexity_read_back() {
        let mut search = resume(&saved()).unwrap();
        search.dense = Some(Dense { perplexity: f64::INFINITY, mean_nll: 800.0 });
        let json = SavedSearch::new(fingerprint(), search.clone()).to_json();
        assert!(json.contains(r#""perplexity":null"#));
        let resumed = SavedSearch::resume(json.as_bytes(), &fingerprint(), &spec(), &options()).unwrap();
        assert_eq!(resumed, search);
    }

    #[test]
    fn damage_is_found_before_the_search_goes_on() {
        let cases = [
            (
                "/format",
                json!("blockpruner-state/2"),
                "this version reads `blockpruner-state/3`; it can be finished by",
            ),
            ("/search/dense", Value::Null, "no score of the dense model"),
            ("/search/steps/0/step", json!(2), "steps[0].step: found 2, expected 1"),
            ("/search/steps/0/removed", json!("mha:1"), "steps[0].removed: mha:1 is not among the block types"),
            ("/search/steps/0/removed", json!("mlp:2"), "mlp:1 has the lowest value"),
            ("/search/steps/0/perplexity", json!(2.5), "steps[0].perplexity"),
            ("/search/steps/0/candidates/0/value", Value::Null, "steps[0].candidates[0]: a complete score"),
            ("/search/steps/0/candidates/1/block", json!("mlp:7"), "found mlp:7, expected mlp:1"),
            ("/search/candidates/0/block", json!("mlp:1"), "candidates[0]: mlp:1 is no candidate"),
            ("/search/candidates/0/value", Value::Null, "candidates[0]: a complete score"),
            ("/search/seconds", json!("x"), "invalid type"),
        ];
        for (pointer, value, expected) in cases {
            let mut damaged = saved();
            *damaged.pointer_mut(pointer).unwrap() = value;
            let error = resume(&sealed(damaged)).unwrap_err();
            assert!(matches!(error, ResumeError::Damaged { .. }), "{pointer}: {error}");
            assert!(error.to_string().contains(expected), "{pointer}: {error}");
        }
        let whole = saved().to_string();
        for length in 0..whole.len() {
            let cut = SavedSearch::resume(&whole.as_bytes()[..length], &fingerprint(), &spec(), &options());
            assert!(matches!(cut, Err(ResumeError::Damaged { .. })), "{length}");
        }
        let other = Fingerprint { device: "other".into(), ..fingerprint() };
        let error = SavedSearch::resume(whole.as_bytes(), &other, &spec(), &options()).unwrap_err();
        assert!(matches!(error, ResumeError::Different(_)), "{error}");
    }

    /// A value that still makes sense is not believed if it is not the one that was saved.
    #[test]
    fn every_flipped_bit_is_refused_or_without_consequence() {
        let whole = SavedSearch::new(fingerprint(), resume(&saved()).unwrap());
        let bytes = whole.to_json().into_bytes();
        for (place, bit) in (0..bytes.len()).flat_map(|place| (0..8).map(move |bit| (place, bit))) {
            let mut flipped = bytes.clone();
            flipped[place] ^= 1 << bit;
            match SavedSearch::resume(&flipped, &fingerprint(), &spec(), &options()) {
                // Such as a key whose value is null, or the case of an exponent's E.
                Ok(search) => assert_eq!(search, whole.search, "byte {place}, bit {bit}"),
                Err(ResumeError::Damaged { .. }) => {}
                Err(error) => panic!("byte {place}, bit {bit}: {error}"),
            }
        }
        let older = json!({ "format": "blockpruner-state/2", "fingerprint": {}, "search": {} });
        assert!(resume(&older).unwrap_err().to_string().contains("by the version that saved it"));
    }
}
