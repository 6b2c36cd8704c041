//! `plan.json`: everything a search found, enough to export, evaluate, plot and resume from.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ExportError, JsonPlace};
use crate::gpu::DeviceInfo;
use crate::model::{BlockSet, Checkpoint, KvCache, ModelSpec};
use crate::search::{
    BlockTypes, Candidate, CandidateState, Dense, Objective, Step, Target, Unit, Units, lowest, null_is_infinite,
};
use crate::text::Windows;

/// The value of [`Plan::format`] that this version writes.
pub const PLAN_FORMAT: &str = "blockpruner-plan/2";
/// The one before, which it reads: of finished searches for the lowest perplexity.
const PLAN_FORMAT_1: &str = "blockpruner-plan/1";
/// How the format of a saved search begins.
const STATE_FORMATS: &str = "blockpruner-state/";

/// A pruning, finished or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// [`PLAN_FORMAT`].
    pub format: String,
    /// How far it has come. What there is of it is whole.
    #[serde(default)]
    pub status: PlanStatus,
    /// The command that made it, if one did: of a search that was resumed, the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// What was pruned.
    pub model: PlanModel,
    /// On which text the loss was measured.
    pub calibration: PlanCalibration,
    /// How was searched.
    pub settings: PlanSettings,
    /// On which device.
    pub device: DeviceInfo,
    /// What must be the same for a resumed search.
    pub fingerprint: Fingerprint,
    /// The model as it came.
    pub dense: Dense,
    /// What was removed, in order, with every score.
    pub steps: Vec<Step>,
    /// The step that would have come next: it goes beyond the perplexity that the target allows, and nothing of it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beyond: Option<Step>,
    /// What all steps did to a text that the search has not seen, if that was measured.
    #[serde(default, rename = "evaluation", skip_serializing_if = "Option::is_none")]
    pub held_out: Option<HeldOut>,
}

/// How far the search of a [`Plan`] has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlanStatus {
    /// It goes on, or was killed.
    Searching,
    /// It was stopped, and can be gone on with.
    Stopped,
    /// It has come to its target.
    #[default]
    Finished,
}

/// The model of a [`Plan`], or of an evaluation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanModel {
    /// As the user named it.
    pub name: String,
    /// Model family, for example `llama`.
    pub family: String,
    /// Layers of the original model; blocks are numbered by them.
    pub layers: usize,
    /// All parameters of the checkpoint, a tied head counted once.
    pub parameters: u64,
    /// Blocks that were gone before this pruning.
    #[serde(default)]
    pub absent: BlockSet,
    /// The KV cache of the model as it came; that of the pruned one stands in the steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_cache: Option<KvCache>,
    /// Bytes of the weight files of the model as it came, if it were written as the pruned one is, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

impl PlanModel {
    /// Of a model that is open.
    pub(crate) fn of(checkpoint: &Checkpoint) -> Self {
        let spec = &checkpoint.spec;
        Self {
            name: checkpoint.name.clone(),
            family: spec.family.to_string(),
            layers: spec.layers.len(),
            parameters: spec.parameters(),
            absent: spec.absent.clone(),
            kv_cache: Some(spec.kv_cache(&BlockSet::new())),
            bytes: None,
        }
    }
}

/// The calibration text of a [`Plan`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanCalibration {
    /// File, or `builtin:sample`.
    pub source: String,
    /// Field of the rows of a JSON or JSONL file.
    #[serde(default)]
    pub field: Option<String>,
    /// Rows joined into the text.
    pub rows: usize,
    /// Tokens of the whole text.
    pub tokens: usize,
    /// Windows that were scored.
    pub windows: usize,
    /// Tokens a window.
    pub window: usize,
    /// How many rows were asked for, if not all.
    #[serde(default)]
    pub samples: Option<usize>,
    /// Seed that drew the rows, if they were drawn.
    #[serde(default)]
    pub seed: Option<u64>,
}

/// Perplexities on a text that a search has not seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    /// What the text is called.
    pub text: String,
    /// Tokens a window.
    pub window: usize,
    /// Windows that were scored.
    pub windows: usize,
    /// Windows times window.
    pub tokens: usize,
    /// Of the whole model; infinite (null in a file) if it overflows.
    #[serde(deserialize_with = "null_is_infinite")]
    pub dense_perplexity: f64,
    /// Without the blocks that were removed.
    #[serde(deserialize_with = "null_is_infinite")]
    pub perplexity: f64,
}

impl HeldOut {
    /// Of a text, by the perplexities of the whole model and of the pruned one.
    pub fn new(text: &Windows, dense_perplexity: f64, perplexity: f64) -> Self {
        Self {
            text: text.source.clone(),
            window: text.window,
            windows: text.count,
            tokens: text.ids.len(),
            dense_perplexity,
            perplexity,
        }
    }
}

/// The search settings of a [`Plan`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanSettings {
    /// What a step removed.
    #[serde(default)]
    pub units: Units,
    /// Which blocks were candidates.
    pub block_types: BlockTypes,
    /// What the search went on to; None in plans from before there was a choice: [`Self::remove`] units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// How many units were to be removed; of another target, how many are.
    pub remove: usize,
    /// What the bytes in the plan are for: a format, and a type if one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_as: Option<String>,
    /// What was measured of them.
    #[serde(default)]
    pub objective: Objective,
    /// Name of the strategy, which says how candidates were scored.
    pub strategy: String,
    /// What its draws began from, if it draws.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy_seed: Option<u64>,
    /// Whether the result may differ from the published loop's.
    pub approximate: bool,
}

impl PlanSettings {
    /// What of the settings must be the same for a resumed search. The number of units is not part of it: fewer are the
    /// beginning of more.
    pub(super) fn fingerprint(&self) -> String {
        let Self { units, block_types, objective, strategy, strategy_seed, .. } = self;
        let seed = strategy_seed.map_or(String::new(), |seed| format!(", strategy seed {seed}"));
        let candidates = match units {
            Units::Blocks => format!("block types {block_types}"),
            Units::Pairs | Units::Layers => format!("units {units}"),
        };
        format!("{candidates}, objective {objective}, strategy {strategy}{seed}")
    }
}

/// What decides the outcome of a search. Only with the same one can a search be resumed and end as if never stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Hash of the checkpoint.
    pub weights: String,
    /// Hash of the tokenizer.
    pub tokenizer: String,
    /// Hash of the calibration token ids and the window.
    pub token_ids: String,
    /// The search settings.
    pub settings: String,
    /// Adapter, backend and driver.
    pub device: String,
    /// Kernels and their version.
    pub kernels: String,
}

/// The first thing in which two fingerprints differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FingerprintDifference {
    /// Field of [`Fingerprint`].
    pub field: &'static str,
    /// Its value in the saved plan.
    pub saved: String,
    /// Its value now.
    pub current: String,
}

impl fmt::Display for FingerprintDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.field {
            "weights" => "the model's weights",
            "tokenizer" => "the tokenizer",
            "token_ids" => "the calibration tokens",
            "settings" => "the search settings",
            "device" => "the device",
            _ => "the kernels",
        };
        let Self { field, saved, current } = self;
        write!(f, "{what} ({field}) are not those of the saved search: it had `{saved}`, now it is `{current}`")
    }
}

impl Fingerprint {
    /// The first field in which a saved fingerprint (`self`) differs from the present one.
    pub fn first_difference(&self, current: &Self) -> Option<FingerprintDifference> {
        let fields = [
            ("weights", &self.weights, &current.weights),
            ("tokenizer", &self.tokenizer, &current.tokenizer),
            ("token_ids", &self.token_ids, &current.token_ids),
            ("settings", &self.settings, &current.settings),
            ("device", &self.device, &current.device),
            ("kernels", &self.kernels, &current.kernels),
        ];
        fields.into_iter().find(|(_, saved, current)| saved != current).map(|(field, saved, current)| {
            FingerprintDifference { field, saved: saved.clone(), current: current.clone() }
        })
    }
}

/// The one key that every version of the format has.
#[derive(Deserialize)]
struct Header {
    format: Option<serde_json::Value>,
}

/// What to do about a plan that cannot be used.
const WRITE_IT_AGAIN: &str = "write it again with `blockpruner prune`";

impl Plan {
    /// Reads and checks a plan. `file` is the name used in errors.
    ///
    /// # Errors
    /// [`ExportError::Plan`] with the place in the document if it is not a plan of this format or contradicts itself
    /// (see [`Plan::check`]).
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, ExportError> {
        let error = |place: String, problem: String, advice| ExportError::Plan {
            file: file.to_string(),
            place: JsonPlace(place),
            problem,
            advice,
        };
        // The format first: of another version, a missing key would be a misleading message.
        let header: Header = serde_json::from_slice(bytes)
            .map_err(|e| error(String::new(), e.to_string(), "check that the file is a complete plan.json"))?;
        let older = match header.format {
            Some(serde_json::Value::String(format)) if format == PLAN_FORMAT => false,
            Some(serde_json::Value::String(format)) if format == PLAN_FORMAT_1 => true,
            Some(serde_json::Value::String(format)) if format.starts_with(STATE_FORMATS) => {
                let problem = format!("it is a search that was saved to be resumed (`{format}`)");
                return Err(error(String::new(), problem, "give the plan.json of its folder"));
            }
            Some(other) => {
                let problem = format!("found {other}, expected \"{PLAN_FORMAT}\"");
                return Err(error("format".into(), problem, "use the version of blockpruner that wrote it"));
            }
            None => {
                let problem = format!("the key `format` is missing, expected \"{PLAN_FORMAT}\"");
                return Err(error(String::new(), problem, "give a plan.json written by `blockpruner prune`"));
            }
        };
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let mut plan: Self = serde_path_to_error::deserialize(&mut json)
            .map_err(|e| error(e.path().to_string(), e.inner().to_string(), WRITE_IT_AGAIN))?;
        if older {
            plan.bring_up_to_date();
        }
        plan.check().map_err(|(place, problem)| error(place, problem, WRITE_IT_AGAIN))?;
        Ok(plan)
    }

    /// Adds what the format before this did not have.
    fn bring_up_to_date(&mut self) {
        self.format = PLAN_FORMAT.into();
        self.fingerprint.settings = self.settings.fingerprint();
        for step in &mut self.steps {
            step.value = step.perplexity;
            step.candidates.iter_mut().for_each(|candidate| candidate.value = candidate.perplexity);
        }
    }

    /// The document, indented, with a final newline. Numbers that are not finite become null.
    pub fn to_json(&self) -> String {
        // Strings, numbers and string keys only: there is nothing that serialising could refuse.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Reads and checks a plan file.
    ///
    /// # Errors
    /// A file that cannot be read, and those of [`Plan::parse`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read(path: &std::path::Path) -> Result<Self, ExportError> {
        Self::parse(&path.display().to_string(), &super::sink::read_file(path)?)
    }

    /// Writes the plan file, whole or not at all.
    ///
    /// # Errors
    /// [`ExportError::Write`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn write(&self, path: &std::path::Path) -> Result<(), ExportError> {
        super::write_atomically(path, self.to_json().as_bytes())
    }

    /// What was removed, first removed first.
    pub fn order(&self) -> Vec<Unit> {
        self.steps.iter().map(|step| step.removed).collect()
    }

    /// The blocks removed by the first `step` steps; none for step 0, the dense model. Blocks that were absent before
    /// are not among them.
    ///
    /// # Errors
    /// [`ExportError::NoSuchStep`].
    pub fn removed_after(&self, step: usize) -> Result<BlockSet, ExportError> {
        let steps = self.steps.get(..step).ok_or(ExportError::NoSuchStep { step, steps: self.steps.len() })?;
        Ok(steps.iter().flat_map(|step| step.removed.blocks()).collect())
    }

    /// Whether the plan was made for this model: same family, size and blocks. It may be another copy of it, or one in
    /// another type.
    ///
    /// # Errors
    /// [`ExportError::OtherModel`], which names the first thing that differs.
    pub fn check_model(&self, spec: &ModelSpec) -> Result<(), ExportError> {
        let model = &self.model;
        let facts = [
            ("family", model.family.clone(), spec.family.to_string()),
            ("number of layers", model.layers.to_string(), spec.layers.len().to_string()),
            ("number of parameters", model.parameters.to_string(), spec.parameters().to_string()),
            ("set of absent blocks", format!("[{}]", model.absent), format!("[{}]", spec.absent)),
        ];
        match facts.into_iter().find(|(_, plan, model)| plan != model) {
            Some((key, plan, model)) => Err(ExportError::OtherModel { key, plan, model }),
            None => Ok(()),
        }
    }

    /// Whether the plan agrees with itself: steps numbered from 1, each removing what is there, every candidate listed in
    /// the order in which the first of equals wins, with what its state promises, the removed one the first of the lowest; as many steps as
    /// its status says.
    ///
    /// # Errors
    /// The place in the document and what is wrong there.
    pub fn check(&self) -> Result<(), (String, String)> {
        let model = &self.model;
        if let Some(block) = model.absent.iter().find(|block| block.layer >= model.layers) {
            return Err(("model.absent".into(), format!("{block} is beyond the {} layers", model.layers)));
        }
        let searched = self.searched();
        searched.check(&self.steps)?;
        let steps = self.steps.len();
        if let Some(beyond) = &self.beyond {
            let all: Vec<Step> = self.steps.iter().chain([beyond]).cloned().collect();
            // What is before it is right.
            let named = |place: String| place.replacen(&format!("steps[{steps}]"), "beyond", 1);
            searched.check(&all).map_err(|(place, problem)| (named(place), problem))?;
        }
        let PlanSettings { remove, .. } = &self.settings;
        if steps > *remove {
            return Err(("settings.remove".into(), format!("found {remove}, but there are {steps} steps")));
        }
        if self.status == PlanStatus::Finished && steps < *remove {
            return Err(("status".into(), format!("found finished, but {steps} of {remove} steps are there")));
        }
        Ok(())
    }

    fn searched(&self) -> Searched<'_> {
        let PlanModel { layers, parameters, ref absent, .. } = self.model;
        let PlanSettings { units, block_types, .. } = self.settings;
        Searched { layers, parameters, absent, units, block_types }
    }
}

/// What the steps of a search have to fit.
pub(super) struct Searched<'a> {
    pub layers: usize,
    pub parameters: u64,
    pub absent: &'a BlockSet,
    pub units: Units,
    pub block_types: BlockTypes,
}

impl Searched<'_> {
    /// As [`Plan::check`].
    pub fn check(&self, steps: &[Step]) -> Result<(), (String, String)> {
        let mut gone = self.absent.clone();
        let mut params_before = self.parameters;
        for (index, step) in steps.iter().enumerate() {
            let at = |field: &str| format!("steps[{index}].{field}");
            if step.step != index + 1 {
                return Err((at("step"), format!("found {}, expected {}", step.step, index + 1)));
            }
            self.check_removed(step, &gone).map_err(|problem| (at("removed"), problem))?;
            if step.params_left >= params_before {
                let problem = format!("{} is not below the {params_before} parameters before", step.params_left);
                return Err((at("params_left"), problem));
            }
            if !(0.0..=1.0).contains(&step.ratio_removed) {
                return Err((at("ratio_removed"), format!("{} is not between 0 and 1", step.ratio_removed)));
            }
            self.check_candidates(step, &gone).map_err(|(inner, problem)| (at(&inner), problem))?;
            gone.extend(step.removed.blocks());
            params_before = step.params_left;
        }
        Ok(())
    }

    fn check_removed(&self, step: &Step, gone: &BlockSet) -> Result<(), String> {
        for block in step.removed.blocks() {
            if block.layer >= self.layers {
                return Err(format!("{block} is beyond the {} layers of the model", self.layers));
            }
            if gone.contains(block) {
                return Err(format!("{block} was gone before"));
            }
            if !self.block_types.has(block.kind) {
                return Err(format!("{block} is not among the block types of the settings"));
            }
        }
        Ok(())
    }

    fn check_candidates(&self, step: &Step, gone: &BlockSet) -> Result<(), (String, String)> {
        let mut listed = step.candidates.iter().enumerate();
        // Compared one by one, because the number of layers in a damaged file may be anything.
        for expected in self.units.of(self.block_types, self.layers, gone) {
            match listed.next() {
                Some((_, candidate)) if candidate.unit == expected => {}
                Some((at, candidate)) => {
                    let problem = format!("found {}, expected {expected}", candidate.unit);
                    return Err((format!("candidates[{at}].block"), problem));
                }
                None => return Err(("candidates".into(), format!("{expected} is missing"))),
            }
        }
        if let Some((at, extra)) = listed.next() {
            return Err((format!("candidates[{at}]"), format!("{} was no candidate any more", extra.unit)));
        }
        for (at, candidate) in step.candidates.iter().enumerate() {
            check_promise(candidate).map_err(|problem| (format!("candidates[{at}]"), problem))?;
        }
        check_lowest(step)
    }
}

/// Whether a candidate has what its state promises.
pub(super) fn check_promise(candidate: &Candidate) -> Result<(), String> {
    let missing = match candidate.state {
        CandidateState::Complete if candidate.value.is_none() => "a complete score has a value",
        CandidateState::Bounded if candidate.at_least.is_none() => "a bounded score has a lower bound",
        _ => return Ok(()),
    };
    Err(format!("{missing}, {} has none", candidate.unit))
}

/// What was removed is the first candidate of the lowest value, and its value and perplexity are the step's.
fn check_lowest(step: &Step) -> Result<(), (String, String)> {
    let Some(best) = lowest(&step.candidates) else {
        return Err(("candidates".into(), "none has a complete score".into()));
    };
    let (removed, unit) = (step.removed, best.unit);
    if unit != removed {
        return Err(("removed".into(), format!("found {removed}, but {unit} has the lowest value")));
    }
    let numbers = [("perplexity", step.perplexity, best.perplexity), ("value", step.value, best.value)];
    match numbers.into_iter().find(|(_, found, candidate)| Some(*found) != *candidate) {
        Some((key, found, candidate)) => {
            let candidate = candidate.unwrap_or(f64::NAN);
            Err((key.into(), format!("found {found}, but that of {unit} is {candidate}")))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::model::BlockId;
    use crate::search::{Reason, Work};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    /// A plan for `layers` layers whose steps take the candidate at the given position.
    fn plan(layers: usize, absent: BlockSet, picks: &[usize]) -> Plan {
        let parameters = 1000 * layers as u64 + 5000;
        let mut plan = Plan {
            format: PLAN_FORMAT.into(),
            status: PlanStatus::Finished,
            command: None,
            model: PlanModel {
                name: "m".into(),
                family: "llama".into(),
                layers,
                parameters,
                absent,
                kv_cache: None,
                bytes: None,
            },
            calibration: PlanCalibration {
                source: "builtin:sample".into(),
                field: None,
                rows: 3,
                tokens: 99,
                windows: 3,
                window: 32,
                samples: Some(3),
                seed: Some(u64::MAX),
            },
            settings: PlanSettings {
                units: Units::Blocks,
                block_types: BlockTypes::Mix,
                target: Some(Target::Units(picks.len())),
                remove: picks.len(),
                written_as: None,
                objective: Objective::Perplexity,
                strategy: "exact".into(),
                strategy_seed: None,
                approximate: false,
            },
            device: DeviceInfo {
                name: "llvmpipe".into(),
                backend: "Vulkan".into(),
                driver: "Mesa".into(),
                tier: "baseline".into(),
                kernel: "columns".into(),
            },
            fingerprint: Fingerprint { weights: "w".into(), ..Fingerprint::default() },
            dense: Dense { perplexity: 12.5, mean_nll: 12.5f64.ln() },
            steps: Vec::new(),
            beyond: None,
            held_out: None,
        };
        let mut gone = plan.model.absent.clone();
        for (index, pick) in picks.iter().enumerate() {
            let PlanSettings { units, block_types, .. } = plan.settings;
            let blocks: Vec<_> = units.of(block_types, layers, &gone).collect();
            let pick = pick % blocks.len();
            let candidates = blocks.iter().enumerate().map(|(at, &block)| candidate(block, at, pick)).collect();
            plan.steps.push(Step {
                step: index + 1,
                removed: blocks[pick],
                value: 13.1,
                perplexity: 13.1,
                candidates,
                work: Work { block_tokens: 7, head_tokens: 8 },
                params_left: parameters - 10 * (index as u64 + 1),
                ratio_removed: 0.1,
                bytes: None,
                kv_cache: None,
                seconds: 1.5,
            });
            gone.extend(blocks[pick].blocks());
        }
        plan
    }

    fn candidate(unit: Unit, at: usize, pick: usize) -> Candidate {
        let candidate = |perplexity, at_least, state, reason| Candidate {
            unit,
            value: perplexity,
            perplexity,
            at_least,
            state,
            head_tokens: 5,
            reason,
        };
        match at % 4 {
            _ if at == pick => candidate(Some(13.1), None, CandidateState::Complete, None),
            0 if at > pick => candidate(Some(13.1), None, CandidateState::Complete, None),
            1 => candidate(None, Some(13.2), CandidateState::Bounded, None),
            2 => candidate(None, None, CandidateState::Rejected, Some(Reason::Other("not finite".into()))),
            _ => candidate(Some(14.0 / 3.0 * 10.0), None, CandidateState::Complete, None),
        }
    }

    fn sample() -> Plan {
        plan(3, BlockSet::from_iter([BlockId::mha(1)]), &[0, 2, 2])
    }

    #[test]
    fn keys_are_those_of_the_format() {
        let value: Value = serde_json::from_str(&sample().to_json()).unwrap();
        let keys = |v: &Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(keys(&value), "format status model calibration settings device fingerprint dense steps");
        assert_eq!(keys(&value["model"]), "name family layers parameters absent");
        assert_eq!(keys(&value["fingerprint"]), "weights tokenizer token_ids settings device kernels");
        assert_eq!(keys(&value["dense"]), "perplexity mean_nll");
        let step = "step removed value perplexity candidates work params_left ratio_removed seconds";
        assert_eq!(keys(&value["steps"][0]), step);
        assert_eq!(keys(&value["steps"][0]["work"]), "block_tokens head_tokens");
        assert_eq!(value["steps"][0]["removed"], json!("mha:0"));
        assert_eq!(value["steps"][0]["candidates"][2]["state"], json!("rejected"));
        assert_eq!(value["settings"]["block_types"], json!("mix"));
    }

    /// A step beyond the target is checked as the next one, and is none of the plan's.
    #[test]
    fn a_step_beyond_stands_beside_the_steps() {
        let mut bounded = plan(3, BlockSet::new(), &[0, 2, 2]);
        bounded.beyond = bounded.steps.pop();
        bounded.settings.remove = 2;
        bounded.settings.target = Some(Target::MaxPerplexity(13.0));
        let json = bounded.to_json();
        assert_eq!(Plan::parse("plan.json", json.as_bytes()).unwrap(), bounded);
        assert_eq!((bounded.order().len(), bounded.removed_after(2).unwrap().len()), (2, 2));
        let mut value: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["settings"]["target"], json!({"max_perplexity": 13.0}));
        value["beyond"]["removed"] = json!("mha:0");
        let error = Plan::parse("plan.json", value.to_string().as_bytes()).unwrap_err().to_string();
        assert!(error.contains("at beyond.removed: mha:0 was gone before"), "{error}");
    }

    #[test]
    fn sets_after_steps() {
        let plan = sample();
        assert!(plan.removed_after(0).unwrap().is_empty());
        assert_eq!(plan.removed_after(2).unwrap(), plan.order()[..2].iter().flat_map(|unit| unit.blocks()).collect());
        assert_eq!(plan.removed_after(3).unwrap().len(), 3);
        let error = plan.removed_after(4).unwrap_err().to_string();
        assert!(error.contains("step 4") && error.contains("has 3 steps"), "{error}");
    }

    #[test]
    fn a_plan_of_another_model_is_refused() {
        let config = serde_json::from_str(include_str!("../../../assets/tiny/config.json")).unwrap();
        let spec = ModelSpec::from_config(&config).unwrap();
        let mut plan = plan(spec.layers.len(), BlockSet::new(), &[]);
        plan.model.parameters = spec.parameters();
        assert!(plan.check_model(&spec).is_ok());
        let pruned = ModelSpec { absent: BlockSet::from_iter([BlockId::mha(1)]), ..spec.clone() };
        let error = plan.check_model(&pruned).unwrap_err().to_string();
        assert!(error.contains("number of parameters"), "{error}");
        plan.model.layers += 1;
        let error = plan.check_model(&spec).unwrap_err().to_string();
        assert!(error.contains("number of layers is 13, that of this model is 12"), "{error}");
    }

    #[test]
    fn numbers_that_are_not_finite_are_null() {
        let mut plan = sample();
        plan.dense.perplexity = f64::INFINITY;
        plan.steps[0].candidates[2].perplexity = Some(f64::NAN);
        let text = plan.to_json();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["dense"]["perplexity"], Value::Null);
        assert_eq!(value["steps"][0]["candidates"][2]["perplexity"], Value::Null);
        let back = Plan::parse("plan.json", text.as_bytes()).unwrap();
        assert_eq!(back.dense.perplexity, f64::INFINITY);
        assert_eq!(back.steps[0].candidates[2].perplexity, None);
    }

    /// The error of a sample plan whose value at `pointer` was replaced, or taken out.
    fn broken(pointer: &str, value: Option<Value>) -> String {
        let mut json: Value = serde_json::from_str(&sample().to_json()).unwrap();
        match value {
            Some(value) => *json.pointer_mut(pointer).unwrap() = value,
            None => {
                let (parent, key) = pointer.rsplit_once('/').unwrap();
                match json.pointer_mut(parent).unwrap() {
                    Value::Object(map) => drop(map.shift_remove(key).unwrap()),
                    Value::Array(list) => drop(list.remove(key.parse().unwrap())),
                    _ => panic!("{pointer} is no element"),
                }
            }
        }
        Plan::parse("plan.json", json.to_string().as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn damage_is_named_with_its_place() {
        for (pointer, value, expected) in [
            ("/format", Some(json!("blockpruner-plan/3")), "at format: found \"blockpruner-plan/3\""),
            ("/format", Some(json!("blockpruner-state/3")), "give the plan.json of its folder"),
            ("/status", Some(json!("done")), "at status: unknown variant `done`"),
            ("/settings/remove", Some(json!(4)), "at status: found finished, but 3 of 4 steps are there"),
            ("/settings/remove", Some(json!(2)), "at settings.remove: found 2, but there are 3 steps"),
            ("/steps/1/value", Some(json!(13.0)), "at steps[1].value: found 13, but that of"),
            (
                "/steps/0/candidates/0/value",
                Some(json!(null)),
                "at steps[0].candidates[0]: a complete score has a value",
            ),
            ("/format", None, "the key `format` is missing"),
            ("/model/layers", Some(json!("three")), "at model.layers: invalid type: string"),
            ("/model/layers", Some(json!(-1)), "at model.layers: invalid value"),
            ("/model/layers", Some(json!(1)), "at model.absent: mha:1 is beyond the 1 layers"),
            ("/model/layers", Some(json!(u64::MAX)), "at steps[0].candidates[2].block: found mlp:0, expected mha:3"),
            ("/calibration/window", None, "at calibration: missing field `window`"),
            ("/settings/block_types", Some(json!("both")), "at settings.block_types: unknown variant `both`"),
            ("/settings/block_types", Some(json!("mlp")), "at steps[0].removed: mha:0 is not among the block types"),
            ("/steps/1/step", Some(json!(3)), "at steps[1].step: found 3, expected 2"),
            ("/steps/1/removed", Some(json!("mha:0")), "at steps[1].removed: mha:0 was gone before"),
            ("/steps/1/removed", Some(json!("mha:1")), "at steps[1].removed: mha:1 was gone before"),
            ("/steps/1/removed", Some(json!("mha:7")), "at steps[1].removed: mha:7 is beyond the 3 layers"),
            ("/steps/1/removed", Some(json!("mlp:2")), "at steps[1].removed: found mlp:2, but mlp:1 has the lowest"),
            (
                "/settings/units",
                Some(json!("pairs")),
                "at steps[0].candidates[0].block: found mha:0, expected mha:0,mlp:0",
            ),
            ("/settings/units", Some(json!("rows")), "at settings.units: unknown variant `rows`"),
            ("/steps/1/removed", Some(json!("mha:0,mlp:2")), "at steps[1].removed: mha:0 was gone before"),
            ("/steps/1/removed", Some(json!("ffn:2")), "at steps[1].removed: `ffn:2` is not a block"),
            ("/steps/1/perplexity", Some(json!(13.0)), "at steps[1].perplexity: found 13, but that of"),
            ("/steps/1/perplexity", Some(json!(null)), "at steps[1].perplexity: invalid type: null"),
            ("/steps/1/params_left", Some(json!(9000)), "at steps[1].params_left: 9000 is not below the"),
            ("/steps/1/ratio_removed", Some(json!(1.5)), "at steps[1].ratio_removed: 1.5 is not between"),
            ("/steps/1/candidates", Some(json!([])), "at steps[1].candidates: mha:2 is missing"),
            ("/steps/1/candidates/1", None, "at steps[1].candidates[1].block: found mlp:1, expected mlp:0"),
            (
                "/steps/0/candidates/0/perplexity",
                Some(json!(null)),
                "at steps[0].perplexity: found 13.1, but that of mha:0",
            ),
            ("/steps/0/candidates/1/at_least", Some(json!(null)), "at steps[0].candidates[1]: a bounded score has"),
            ("/steps/0/candidates/0/state", Some(json!("won")), "at steps[0].candidates[0].state: unknown variant"),
        ] {
            let error = broken(pointer, value);
            assert!(error.starts_with("plan.json: ") && error.contains(expected), "{pointer}: {error}");
        }
    }

    /// As the version before this wrote it.
    #[test]
    fn the_format_before_is_read() {
        let plan = sample();
        let mut json: Value = serde_json::from_str(&plan.to_json()).unwrap();
        json["format"] = json!(PLAN_FORMAT_1);
        json["fingerprint"]["settings"] = json!("remove 3, block types mix, strategy exact");
        json.as_object_mut().unwrap().remove("status");
        json["settings"].as_object_mut().unwrap().remove("objective");
        for step in json["steps"].as_array_mut().unwrap() {
            step.as_object_mut().unwrap().remove("value");
            for candidate in step["candidates"].as_array_mut().unwrap() {
                candidate.as_object_mut().unwrap().remove("value");
            }
        }
        let settings = "block types mix, objective perplexity, strategy exact".to_string();
        let fingerprint = Fingerprint { settings, ..plan.fingerprint.clone() };
        assert_eq!(Plan::parse("plan.json", json.to_string().as_bytes()).unwrap(), Plan { fingerprint, ..plan });
    }

    /// Plans have what is known of their making, and what was not measured is not there.
    #[test]
    fn command_and_evaluation_survive() {
        let mut plan = sample();
        let command = "blockpruner prune --out $'a\\n\"b\"'\n\u{1b}[2J";
        plan.command = Some(command.into());
        let (text, dense_perplexity, perplexity) = ("other \"text\"".into(), 12.25, f64::INFINITY);
        plan.held_out = Some(HeldOut { text, window: 32, windows: 3, tokens: 96, dense_perplexity, perplexity });
        let json = plan.to_json();
        assert!(json.chars().all(|c| c == '\n' || !c.is_control()), "{json}");
        let value: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["command"], json!(command));
        assert_eq!(
            value["evaluation"],
            json!({
                "text": "other \"text\"", "window": 32, "windows": 3, "tokens": 96, "dense_perplexity": 12.25, "perplexity": null,
            })
        );
        assert_eq!(Plan::parse("x", json.as_bytes()).unwrap(), plan);
    }

    /// A later version's swap, for example, would make another set of blocks of the steps.
    #[test]
    fn steps_with_unknown_keys_are_refused() {
        let mut json: Value = serde_json::from_str(&sample().to_json()).unwrap();
        json["steps"][1]["restored"] = json!("mha:0");
        let error = Plan::parse("plan.json", json.to_string().as_bytes()).unwrap_err().to_string();
        assert!(error.contains("at steps[1].restored: unknown field `restored`"), "{error}");
    }

    #[test]
    fn other_documents_are_refused() {
        for text in ["", "{", "[]", "null", r#"{"1": [["mha", 25]]}"#, "\u{0}", &"[".repeat(10_000)] {
            let error = Plan::parse("order.json", text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("order.json: not a usable plan: "), "{error}");
        }
    }

    #[test]
    fn files_are_written_and_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.json");
        sample().write(&path).unwrap();
        assert_eq!(Plan::read(&path).unwrap(), sample());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_first_difference_of_fingerprints_is_named() {
        let saved = sample().fingerprint;
        assert_eq!(saved.first_difference(&saved.clone()), None);
        let mut now = saved.clone();
        now.kernels = "v2".into();
        assert_eq!(saved.first_difference(&now).unwrap().field, "kernels");
        now.token_ids = "other".into();
        let message = saved.first_difference(&now).unwrap().to_string();
        assert!(message.contains("calibration tokens") && message.contains("`other`"), "{message}");
    }

    /// Every pointer into a document.
    fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
        found.push(at.to_string());
        match value {
            Value::Object(map) => map.iter().for_each(|(key, v)| pointers(v, &format!("{at}/{key}"), found)),
            Value::Array(list) => list.iter().enumerate().for_each(|(i, v)| pointers(v, &format!("{at}/{i}"), found)),
            _ => {}
        }
    }

    fn odd_values() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            Just(json!([])),
            Just(json!({})),
            any::<u64>().prop_map(|n| json!(n)),
            any::<i64>().prop_map(|n| json!(n)),
            any::<f64>().prop_map(|n| json!(n)),
            "(mha|mlp):[0-9]{0,20}".prop_map(|s| json!(s)),
            "\\PC{0,10}".prop_map(|s| json!(s)),
        ]
    }

    proptest! {
        #[test]
        fn plans_survive(layers in 1..9usize, picks in proptest::collection::vec(0..99usize, 0..6), nll in 0.0..20.0f64) {
            let mut plan = plan(layers, BlockSet::new(), &picks[..picks.len().min(2 * layers)]);
            plan.dense = Dense { perplexity: nll.exp(), mean_nll: nll };
            let back = Plan::parse("x", plan.to_json().as_bytes()).unwrap();
            prop_assert_eq!(back, plan);
        }

        #[test]
        fn hostile_plans_do_not_panic(which in any::<prop::sample::Index>(), odd in odd_values(), step in any::<usize>()) {
            let mut json: Value = serde_json::from_str(&sample().to_json()).unwrap();
            let mut places = Vec::new();
            pointers(&json, "", &mut places);
            *json.pointer_mut(which.get(&places[..]).as_str()).unwrap() = odd;
            match Plan::parse("x", json.to_string().as_bytes()) {
                Ok(plan) => prop_assert!(plan.check().is_ok() && plan.removed_after(step.max(plan.steps.len() + 1)).is_err()),
                Err(e) => prop_assert!(e.to_string().starts_with("x: not a usable plan: ")),
            }
        }

        #[test]
        fn cut_plans_are_refused(end in 0..2000usize) {
            let text = sample().to_json();
            let end = end.min(text.trim_end().len() - 1);
            prop_assert!(Plan::parse("x", &text.as_bytes()[..end]).is_err());
        }
    }
}
