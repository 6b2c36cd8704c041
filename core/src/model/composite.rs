//! Models of images and text, of which the text model is read: its settings stand in `text_config`, and its tensors under
//! names of their own. For text alone the whole computes what its text model does, but for the head, which is the whole's: a
//! matrix, without what some families have beside it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::error::ModelError;
use super::families::{HEADS, HIDDEN_SIZE, INNER, LAYERS};
use super::keys::Keys;
use super::spec::{Head, ModelSpec};
use crate::weights::{Renamed, Weights, WeightsError};

/// A kind of such models.
pub(super) struct Composite {
    /// The `model_type` of Hugging Face.
    pub name: &'static str,
    /// That of its text model, if the settings do not say.
    text: &'static str,
    /// `tie_word_embeddings` if the whole's settings do not say; None: what the text model's do.
    tied: Option<bool>,
}

/// Those whose text model reads text as it would alone.
pub(super) static ALL: &[Composite] = &[
    Composite { name: "gemma3", text: "gemma3_text", tied: Some(true) },
    Composite { name: "mistral3", text: "mistral", tied: Some(true) },
    Composite { name: "llava", text: "llama", tied: None },
];

const TEXT: &str = "text_config";
const TYPE: &str = "model_type";

/// The sizes that the configuration classes of transformers 5 assume, which published files leave out of `text_config`.
const SIZES: [&str; 5] = [HIDDEN_SIZE.hf, INNER.hf, LAYERS.hf, HEADS.hf, "vocab_size"];
const ASSUMED: [(&str, [usize; 5]); 4] = [
    ("llama", [4096, 11_008, 32, 32, 32_000]),
    ("mistral", [4096, 14_336, 32, 32, 32_000]),
    ("qwen2", [4096, 22_016, 32, 32, 151_936]),
    ("gemma3_text", [2304, 9216, 26, 8, 262_208]),
];

/// The settings of a text model, of this type if they do not say, with the sizes that its class assumes.
fn completed(text: &Map<String, Value>, model_type: &str) -> Map<String, Value> {
    let mut text = text.clone();
    text.entry(TYPE).or_insert(model_type.into());
    let assumed = ASSUMED.iter().find(|(name, _)| text.get(TYPE).is_some_and(|found| found == name));
    for (key, size) in assumed.into_iter().flat_map(|(_, sizes)| SIZES.into_iter().zip(sizes)) {
        text.entry(key).or_insert((*size).into());
    }
    text
}

/// How the names of a text model's tensors begin: as published, its own; and as transformers 5 writes them, without what its own
/// begin with.
const WHOLE: &str = "language_model.";
const WITHOUT_BASE: &str = "model.language_model.";

/// The names in the files by those of the text model alone.
pub type StoredNames = BTreeMap<String, String>;

impl Composite {
    /// The kind of a model by its config.json, if it is one.
    pub fn of(config: &Map<String, Value>) -> Option<&'static Self> {
        ALL.iter().find(|composite| config.get(TYPE).is_some_and(|name| name == composite.name))
    }

    /// The text model, from the settings of the whole; `read` reads those of a text model.
    pub fn spec(
        &self,
        whole: &Keys<'_>,
        read: impl Fn(Keys<'_>) -> Result<ModelSpec, ModelError>,
    ) -> Result<ModelSpec, ModelError> {
        let text = whole.object(TEXT)?.ok_or_else(|| whole.missing(TEXT, "the settings of the text model"))?;
        let mut spec = read(Keys { path: "text_config.", map: &completed(text, self.text), ..*whole })?;
        if let Some(block) = spec.absent.iter().next() {
            let supported = "such models must have all blocks of their text model";
            return Err(whole.unsupported(TEXT, format!("without block {block}"), supported));
        }
        const TIED: &str = "tie_word_embeddings";
        let tied = match (whole.flag(TIED)?, self.tied) {
            (Some(tied), Some(_)) => tied,
            (None, Some(default)) => default,
            (tied, None) => tied.unwrap_or(false) || spec.head.tied,
        };
        spec.head = Head { tied, bias: false, unit_rows: false, scale: 1.0, soft_cap: None };
        if spec.bos_token_id.is_none() {
            spec.bos_token_id = whole.token_ids("bos_token_id")?.first().copied();
        }
        if spec.eos_token_ids.is_empty() {
            spec.eos_token_ids = whole.token_ids("eos_token_id")?;
        }
        Ok(spec)
    }
}

impl ModelSpec {
    /// The tensors of a whole, those of its text model under the names that they have alone, and what the files call these.
    pub(super) fn of_composite(&self, weights: Weights) -> Result<(Weights, StoredNames), WeightsError> {
        let embedding = self.embedding_name();
        let (base, _) = embedding.split_once('.').unwrap_or_default();
        let alone = |name: &str| match (name.strip_prefix(WHOLE), name.strip_prefix(WITHOUT_BASE)) {
            (Some(name), _) => Some(name.to_string()),
            (_, Some(rest)) => Some(format!("{base}.{rest}")),
            _ => None,
        };
        let stored = weights.all_names().filter_map(|name| Some((alone(name)?, name.to_string()))).collect();
        Ok((weights.renamed(|name| alone(name).map(Renamed::only))?, stored))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use serde_json::json;

    use super::*;

    fn read(whole: Value, text: Value) -> Result<ModelSpec, ModelError> {
        let mut text_config = json!({
            "model_type": "llama", "hidden_size": 48, "intermediate_size": 100, "num_hidden_layers": 4,
            "num_attention_heads": 6, "vocab_size": 300,
        });
        text_config.as_object_mut().unwrap().extend(text.as_object().unwrap().clone());
        let mut config = json!({"model_type": "llava", "text_config": text_config});
        config.as_object_mut().unwrap().extend(whole.as_object().unwrap().clone());
        ModelSpec::from_config(config.as_object().unwrap())
    }

    #[test]
    fn the_text_model_is_read() {
        let spec = read(json!({"eos_token_id": 7}), json!({"bos_token_id": 1})).unwrap();
        assert_eq!((spec.family.name, spec.hidden_size, spec.layers.len()), ("llama", 48, 4));
        assert_eq!((spec.bos_token_id, spec.eos_token_ids.as_slice()), (Some(1), &[7][..]));
    }

    /// As in google/gemma-3-4b-it and llava-hf/llava-1.5-7b-hf.
    #[test]
    fn sizes_left_out_are_those_of_the_class() {
        let text = json!({
            "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024,
        });
        let config = json!({"model_type": "gemma3", "text_config": text});
        let spec = ModelSpec::from_config(config.as_object().unwrap()).unwrap();
        let attention = &spec.layers[0].attention;
        assert_eq!((spec.vocab_size, attention.heads, attention.kv_heads, attention.head_dim), (262_208, 8, 4, 256));
        assert!(spec.head.tied && spec.layers.len() == 34);
        let text = json!({"model_type": "llama", "vocab_size": 32064, "rms_norm_eps": 1e-5});
        let config = json!({"model_type": "llava", "text_config": text});
        let spec = ModelSpec::from_config(config.as_object().unwrap()).unwrap();
        assert_eq!((spec.vocab_size, spec.hidden_size, spec.layers[31].dense().inner), (32_064, 4096, 11_008));
        assert!(!spec.head.tied);
    }

    #[test]
    fn the_whole_says_whether_the_head_is_tied() {
        let tied = |whole, text| read(whole, text).unwrap().head.tied;
        let (yes, no) = (|| json!({"tie_word_embeddings": true}), || json!({"tie_word_embeddings": false}));
        assert!(!tied(json!({}), json!({})) && tied(yes(), json!({})) && tied(json!({}), yes()) && tied(no(), yes()));
        for name in ["mistral3", "gemma3"] {
            let whole = |mut keys: Value| {
                keys["model_type"] = name.into();
                keys
            };
            assert!(tied(whole(json!({})), no()) && !tied(whole(no()), yes()), "{name}");
        }
    }

    /// Transformers 5.23 has no scale, cap or bias beside the matrix of a whole's head.
    #[test]
    fn the_head_is_a_matrix() {
        for (text, keys) in [
            ("granite", json!({"logits_scaling": 8.0})),
            ("gemma2", json!({"sliding_window": 16})),
            ("cohere2", json!({"logit_scale": 0.5})),
            ("phi", json!({})),
        ] {
            let mut text_config = keys;
            text_config["model_type"] = text.into();
            text_config["num_key_value_heads"] = 2.into();
            let spec = read(json!({}), text_config).unwrap();
            let head = Head { tied: spec.head.tied, bias: false, unit_rows: false, scale: 1.0, soft_cap: None };
            assert_eq!((spec.family.name, spec.head), (text, head));
        }
    }

    #[test]
    fn the_text_models_type_may_be_left_out() {
        for (name, family) in [("gemma3", "gemma3_text"), ("mistral3", "mistral"), ("llava", "llama")] {
            let config = json!({"model_type": name, "text_config": {"num_hidden_layers": 2}});
            assert_eq!(ModelSpec::from_config(config.as_object().unwrap()).unwrap().family.name, family);
        }
    }

    /// What the whole's settings say of it is not looked at, as in transformers.
    #[test]
    fn the_text_model_must_look_back_only() {
        let error = read(json!({}), json!({"is_causal": false})).unwrap_err().to_string();
        assert!(error.contains("`text_config.is_causal`") && error.contains("before it"), "{error}");
        assert!(read(json!({"is_causal": false}), json!({})).is_ok());
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        for (whole, text, parts) in [
            (json!({"text_config": null}), json!({}), ["`text_config`", "missing"]),
            (json!({}), json!({"model_type": "qwen2_5_vl_text"}), ["`text_config.model_type`", "qwen2_5_vl_text"]),
            (json!({}), json!({"hidden_act": "gelu"}), ["`text_config.hidden_act`", "silu"]),
            (json!({}), json!({"drop_mlp_list": [1]}), ["`text_config`", "mlp:1"]),
            (json!({"quantization_config": {"quant_method": "awq"}}), json!({}), ["`quantization_config`", "awq"]),
            (json!({}), json!({"quantization_config": {}}), ["`text_config.quantization_config`", "bf16"]),
            (
                json!({"model_type": "idefics3"}),
                json!({}),
                ["`model_type`", "the text models of gemma3, mistral3, llava"],
            ),
        ] {
            let error = read(whole.clone(), text.clone()).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{whole} {text}: {error}");
        }
    }
}
