//! What an evaluation found, as `evaluate --json` prints it and reports read it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::metrics::mean;
use super::{EvalError, Generation, Task};
use crate::export::PlanModel;
use crate::gpu::DeviceInfo;
use crate::model::BlockSet;

/// The value of [`Evaluation::format`] that this version reads and writes.
pub const EVALUATION_FORMAT: &str = "blockpruner-evaluation/1";

/// The accuracy of a model on zero-shot tasks. Shares are from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Evaluation {
    /// [`EVALUATION_FORMAT`].
    pub format: String,
    /// What was evaluated.
    pub model: PlanModel,
    /// Without which blocks, those aside that were absent before. In the file as `mha:4,mlp:3`.
    #[serde(with = "as_text")]
    pub removed: BlockSet,
    /// Which plan removed them, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<EvaluatedPlan>,
    /// On which device.
    pub device: DeviceInfo,
    /// What stood at the front of each text.
    pub bos: Bos,
    /// What was found, task by task.
    pub tasks: BTreeMap<Task, TaskResult>,
    /// Mean over the tasks of BlockPruner's table that are among them ([`TaskResult::in_mean`]); None if none is.
    pub mean: Option<f64>,
    /// How it differs from another evaluation of the same items, if it was compared with one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub differences: BTreeMap<Task, TaskDifference>,
    /// What it writes beside what the whole model writes, if that was wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// Seconds that scoring took.
    pub seconds: f64,
}

/// The plan that removed the blocks of an [`Evaluation`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvaluatedPlan {
    /// The file, as it was given.
    pub file: String,
    /// So many of its steps.
    pub step: usize,
}

/// What stands at the front of each text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bos {
    /// What the tokenizer puts there by itself, as lm-evaluation-harness does from version 0.4.9.2 on.
    #[default]
    Auto,
    /// Nothing, as versions before did, with which BlockPruner's figures were measured.
    Never,
}

impl FromStr for Bos {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "never" => Ok(Self::Never),
            _ => Err("expected auto or never".into()),
        }
    }
}

impl fmt::Display for Bos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Never => "never",
        })
    }
}

/// The result of one task. Standard errors are None for a single item, and where they were not wanted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TaskResult {
    /// The file of its rows, as it was given.
    pub file: String,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// Items that were scored.
    pub items: usize,
    /// Share of the items in which the right choice is the likeliest; for LAMBADA, in which the last word is what the model
    /// would have written.
    pub acc: f64,
    /// Its standard error.
    pub acc_stderr: Option<f64>,
    /// Share in which the right choice has the largest log-likelihood a character. WinoGrande and LAMBADA have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acc_norm: Option<f64>,
    /// Its standard error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acc_norm_stderr: Option<f64>,
    /// exp of the mean negative log-likelihood of the last words, of LAMBADA only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    /// Its standard error, bootstrapped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity_stderr: Option<f64>,
}

impl TaskResult {
    /// What of a task counts in the mean, as in BlockPruner's tables: `acc_norm` of PIQA, HellaSwag, ARC-easy and
    /// ARC-challenge, `acc` of WinoGrande; None for others.
    pub fn in_mean(&self, task: Task) -> Option<f64> {
        match task {
            Task::Piqa | Task::Hellaswag | Task::ArcEasy | Task::ArcChallenge => self.acc_norm,
            Task::Winogrande => Some(self.acc),
            Task::Openbookqa | Task::Lambada => None,
        }
    }
}

/// How a task's result differs from that of another evaluation, over the same items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TaskDifference {
    /// Of the shares of right choices.
    pub acc: Difference,
    /// Of those by log-likelihood a character, where the task has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acc_norm: Option<Difference>,
}

/// This evaluation's mean less the other's, and the standard error of that difference: of the differences item by item.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Positive if this one is better.
    pub difference: f64,
    /// None for a single item.
    pub stderr: Option<f64>,
}

impl Evaluation {
    /// What [`Evaluation::mean`] is of these results.
    pub(crate) fn mean_of(tasks: &BTreeMap<Task, TaskResult>) -> Option<f64> {
        let counted: Vec<f64> = tasks.iter().filter_map(|(task, result)| result.in_mean(*task)).collect();
        (!counted.is_empty()).then(|| mean(&counted))
    }

    /// Reads an evaluation. `file` is the name used in errors.
    ///
    /// # Errors
    /// [`EvalError::Document`] for what is no evaluation of this format.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, EvalError> {
        let error = |problem: String, advice| EvalError::Document { file: file.into(), problem, advice };
        const WRITE_IT_AGAIN: &str = "write it again with `blockpruner evaluate --json`";
        // The format first: of another version, a missing key would be a misleading message.
        let header: Header = serde_json::from_slice(bytes).map_err(|e| error(e.to_string(), WRITE_IT_AGAIN))?;
        match header.format {
            Some(serde_json::Value::String(format)) if format == EVALUATION_FORMAT => {}
            Some(other) => {
                let problem = format!("its format is {other}, expected \"{EVALUATION_FORMAT}\"");
                return Err(error(problem, "use the version of blockpruner that wrote it"));
            }
            None => {
                let problem = format!("the key `format` is missing, expected \"{EVALUATION_FORMAT}\"");
                return Err(error(problem, "give what `blockpruner evaluate --json` printed"));
            }
        }
        let mut json = serde_json::Deserializer::from_slice(bytes);
        serde_path_to_error::deserialize(&mut json)
            .map_err(|e| error(format!("at {}: {}", e.path(), e.inner()), WRITE_IT_AGAIN))
    }

    /// The document, indented, with a final newline.
    pub fn to_json(&self) -> String {
        // Strings, numbers and string keys only: there is nothing that serialising could refuse.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// The one key that every version of the format has.
#[derive(Deserialize)]
struct Header {
    format: Option<serde_json::Value>,
}

/// A set of blocks as it is printed.
mod as_text {
    use super::*;

    pub fn serialize<S: Serializer>(blocks: &BlockSet, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(blocks)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BlockSet, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn sample() -> Evaluation {
        let result = |acc_norm: Option<f64>, perplexity: Option<f64>| TaskResult {
            file: "rows.jsonl".into(),
            sha256: "00".into(),
            items: 3,
            acc: 1.0 / 3.0,
            acc_stderr: Some(0.25),
            acc_norm,
            acc_norm_stderr: acc_norm,
            perplexity,
            perplexity_stderr: perplexity,
        };
        let difference = Difference { difference: -0.5, stderr: Some(0.1) };
        Evaluation {
            format: EVALUATION_FORMAT.into(),
            model: PlanModel {
                name: "m".into(),
                family: "llama".into(),
                layers: 12,
                parameters: 7,
                absent: BlockSet::new(),
                kv_cache: None,
                bytes: None,
            },
            removed: "mha:4,mlp:3".parse().unwrap(),
            plan: Some(EvaluatedPlan { file: "plan.json".into(), step: 2 }),
            device: DeviceInfo {
                name: "llvmpipe".into(),
                backend: "vulkan".into(),
                driver: "Mesa".into(),
                tier: "baseline".into(),
                kernel: "tile".into(),
            },
            bos: Bos::Never,
            tasks: [
                (Task::Piqa, result(Some(0.5), None)),
                (Task::Winogrande, result(None, None)),
                (Task::Lambada, result(None, Some(12.5))),
            ]
            .into(),
            mean: Some(0.4),
            differences: [(Task::Piqa, TaskDifference { acc: difference, acc_norm: Some(difference) })].into(),
            generation: None,
            seconds: 1.5,
        }
    }

    #[test]
    fn keys_are_those_of_the_format() {
        let value: Value = serde_json::from_str(&sample().to_json()).unwrap();
        let keys = |v: &Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(keys(&value), "format model removed plan device bos tasks mean differences seconds");
        assert_eq!(keys(&value["tasks"]), "piqa winogrande lambada");
        assert_eq!(keys(&value["tasks"]["piqa"]), "file sha256 items acc acc_stderr acc_norm acc_norm_stderr");
        assert_eq!(keys(&value["tasks"]["winogrande"]), "file sha256 items acc acc_stderr");
        let lambada = "file sha256 items acc acc_stderr perplexity perplexity_stderr";
        assert_eq!(keys(&value["tasks"]["lambada"]), lambada);
        assert_eq!((&value["removed"], &value["bos"]), (&json!("mha:4,mlp:3"), &json!("never")));
        assert_eq!(value["differences"]["piqa"]["acc"], json!({ "difference": -0.5, "stderr": 0.1 }));
    }

    #[test]
    fn evaluations_are_read_as_they_were_written() {
        let full = sample();
        let dense = Evaluation { removed: BlockSet::new(), plan: None, differences: BTreeMap::new(), ..sample() };
        for evaluation in [full, dense] {
            assert_eq!(Evaluation::parse("e.json", evaluation.to_json().as_bytes()).unwrap(), evaluation);
        }
    }

    #[test]
    fn what_is_no_evaluation_is_refused() {
        let message = |text: &str| Evaluation::parse("e.json", text.as_bytes()).unwrap_err().to_string();
        let mut value: Value = serde_json::from_str(&sample().to_json()).unwrap();
        value["tasks"]["piqa"]["acc"] = json!("high");
        assert!(message(&value.to_string()).contains("at tasks.piqa.acc"), "{}", message(&value.to_string()));
        value["format"] = json!("blockpruner-evaluation/9");
        assert!(message(&value.to_string()).contains("blockpruner-evaluation/9"));
        for (text, expected) in
            [("{}", "`format` is missing"), ("{", "EOF"), (r#"{"format":"blockpruner-plan/2"}"#, "plan/2")]
        {
            let message = message(text);
            assert!(
                message.starts_with("e.json: not a usable evaluation: ") && message.contains(expected),
                "{message}"
            );
        }
    }
}
