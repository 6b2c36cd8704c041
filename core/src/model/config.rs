//! A Hugging Face config.json as a [`ModelSpec`].
//!
//! Keys mean what they mean to transformers; what would change the result and is not built here is refused by name.

use serde_json::{Map, Value};

use super::block_configs;
use super::composite::{self, Composite};
use super::error::{ModelError, shown};
use super::families::{self, EXPERTS, LAYER_TYPES};
use super::family::{Family, Role};
use super::folder::{INDEX, SINGLE};
use super::keys::Keys;
use super::rope::{RopeRequest, RopeSpec};
use super::settings::{Key, Settings};
use super::spec::{FeedForward, ModelSpec};
use super::{BlockId, BlockKind, BlockSet};

/// Prefix of the `model_type` of the pruned folders written here.
pub const PRUNED_TYPE_PREFIX: &str = "blockpruner_";

/// Sizes beyond any model that a damaged or hostile file may claim; with them no product of sizes overflows.
pub(super) mod most {
    pub const WIDTH: usize = 1 << 20;
    pub const LAYERS: usize = 1 << 12;
    pub const HEADS: usize = 1 << 12;
    pub const HEAD_DIM: usize = 1 << 12;
    pub const VOCABULARY: usize = 1 << 24;
    pub const POSITIONS: usize = 1 << 30;
}

impl ModelSpec {
    /// Reads the keys of a config.json.
    ///
    /// # Errors
    /// [`ModelError::MissingKey`], [`ModelError::Key`] and [`ModelError::Unsupported`].
    pub fn from_config(config: &Map<String, Value>) -> Result<Self, ModelError> {
        Self::from_config_file("config.json", config)
    }

    /// The same, with the file's name for error messages.
    pub(crate) fn from_config_file(file: &str, config: &Map<String, Value>) -> Result<Self, ModelError> {
        let llama = block_configs::as_llama(file, config)?;
        let config = llama.as_ref().unwrap_or(config);
        let keys = Keys::new(file, config);
        refuse_other_weights(&keys)?;
        match Composite::of(config) {
            None => Self::from_keys(keys),
            Some(composite) => {
                refuse_quantised(&keys)?;
                composite.spec(&keys, Self::from_keys)
            }
        }
    }

    /// The same for a text model by itself, or as a part of a whole.
    fn from_keys(keys: Keys<'_>) -> Result<Self, ModelError> {
        let family = family(&keys)?;
        let keys = Keys { aliases: family.key_names, ..keys };
        refuse_quantised(&keys)?;
        let spec = (family.spec)(family, &keys)?;
        spec.refuse_experts(|found, supported| Settings::unsupported(&keys, EXPERTS, found, supported))?;
        Ok(spec)
    }

    /// Refuses layers whose feed-forward block is a choice of networks.
    pub(super) fn refuse_experts(&self, refuse: impl Fn(String, &str) -> ModelError) -> Result<(), ModelError> {
        let experts = self.layers.iter().find_map(|layer| match layer.feed_forward {
            FeedForward::Experts { count } => Some(count),
            FeedForward::Dense(_) => None,
        });
        match experts {
            None => Ok(()),
            Some(count) => Err(refuse(count.to_string(), "only dense models, with one feed-forward network a layer")),
        }
    }
}

/// Transformers takes the weights from the file that a key names, if one does.
fn refuse_other_weights(keys: &Keys) -> Result<(), ModelError> {
    const KEY: &str = "transformers_weights";
    match keys.text(KEY)? {
        Some(name) if ![SINGLE, INDEX].contains(&name) => Err(keys.unsupported(
            KEY,
            format!("{name:?}"),
            format!("the weights must be called {SINGLE}, or be shards"),
        )),
        _ => Ok(()),
    }
}

fn refuse_quantised(keys: &Keys) -> Result<(), ModelError> {
    let Some(quantization) = keys.get("quantization_config") else { return Ok(()) };
    let method = quantization.get("quant_method").unwrap_or(quantization);
    let advice = "take the checkpoint in bf16, f16 or f32, or a GGUF file of it";
    Err(keys.unsupported("quantization_config", shown(method), advice))
}

fn family(keys: &Keys) -> Result<&'static Family, ModelError> {
    let supported = || {
        let names: Vec<&str> = families::ALL.iter().map(|family| family.name).collect();
        let composites: Vec<&str> = composite::ALL.iter().map(|composite| composite.name).collect();
        format!(
            "supported are {}, the text models of {}, {}, and folders that were pruned here ({PRUNED_TYPE_PREFIX}llama, ..)",
            names.join(", "),
            composites.join(", "),
            block_configs::TYPE
        )
    };
    let Some(name) = keys.text("model_type")? else {
        return Err(keys.missing("model_type", format!("the name of an architecture; {}", supported())));
    };
    let plain = name.strip_prefix(PRUNED_TYPE_PREFIX).unwrap_or(name);
    let family = families::ALL.iter().copied().find(|family| family.name == plain);
    family.ok_or_else(|| keys.unsupported("model_type", format!("{name:?}"), supported()))
}

impl Settings for Keys<'_> {
    fn size(&self, key: Key, most: usize) -> Result<Option<usize>, ModelError> {
        self.size(key.hf, most)
    }

    fn count(&self, key: Key) -> Result<Option<usize>, ModelError> {
        self.count(key.hf)
    }

    fn positive(&self, key: Key) -> Result<Option<f64>, ModelError> {
        self.positive(key.hf)
    }

    fn flag(&self, key: Key) -> Result<Option<bool>, ModelError> {
        self.flag(key.hf)
    }

    fn text(&self, key: Key) -> Result<Option<&str>, ModelError> {
        self.text(key.hf)
    }

    fn list(&self, key: Key) -> Result<Option<&[Value]>, ModelError> {
        self.list(key.hf)
    }

    fn layer_types(&self, layers: usize) -> Result<Option<Vec<bool>>, ModelError> {
        let key = LAYER_TYPES.hf;
        let Some(types) = self.list(key)? else { return Ok(None) };
        if types.len() != layers {
            let expected = format!("one entry for each of the {layers} layers");
            return Err(self.contradiction(key, format!("a list of {}", types.len()), expected));
        }
        let slides = |value: &Value| match value.as_str() {
            Some("full_attention" | "attention") => Ok(false),
            Some("sliding_attention") => Ok(true),
            _ => {
                let supported = "layers must be \"full_attention\" or \"sliding_attention\"";
                Err(self.unsupported(key, shown(value), supported))
            }
        };
        types.iter().map(slides).collect::<Result<_, _>>().map(Some)
    }

    fn first_layer_holds(&self, _: &str) -> Option<bool> {
        None
    }

    fn is_null(&self, key: Key) -> bool {
        self.map.get(self.name(key.hf)).is_some_and(Value::is_null)
    }

    fn has_defaults(&self) -> bool {
        true
    }

    fn wrong(&self, key: Key, found: String, expected: String) -> ModelError {
        self.contradiction(key.hf, found, expected)
    }

    fn missing(&self, key: Key, expected: &str) -> ModelError {
        self.missing(key.hf, expected)
    }

    fn unsupported(&self, key: Key, found: String, supported: &str) -> ModelError {
        self.unsupported(key.hf, found, supported)
    }

    fn has_bias(&self, key: Option<Key>, default: bool, _: &[Role]) -> Result<bool, ModelError> {
        let asked = key.map(|key| self.flag(key.hf)).transpose()?.flatten();
        Ok(asked.unwrap_or(default))
    }

    fn vocab_size(&self) -> Result<usize, ModelError> {
        self.required_size("vocab_size", most::VOCABULARY)
    }

    fn is_tied(&self, default: bool) -> Result<bool, ModelError> {
        Ok(self.flag("tie_word_embeddings")?.unwrap_or(default))
    }

    fn rope(&self, request: &RopeRequest) -> Result<RopeSpec, ModelError> {
        RopeSpec::from_config(self, request)
    }

    fn ropes_by_layer_type(
        &self,
        full: &RopeRequest,
        sliding: &RopeRequest,
        sliding_theta: Option<Key>,
    ) -> Result<[RopeSpec; 2], ModelError> {
        RopeSpec::by_layer_type(self, full, sliding, sliding_theta.map(|key| key.hf))
    }

    fn special_tokens(&self) -> Result<(Option<u32>, Vec<u32>), ModelError> {
        Ok((self.token_ids("bos_token_id")?.first().copied(), self.token_ids("eos_token_id")?))
    }

    fn absent(&self, family: &Family, layers: usize) -> Result<BlockSet, ModelError> {
        absent(self, family, layers)
    }
}

/// Blocks that the configuration says are gone: `drop_attn_list` and `drop_mlp_list` (LLM-Drop's keys, written here too),
/// or `per_layer_config` with `skip` (transformers' heterogeneous configurations). Where both stand they must agree.
fn absent(keys: &Keys, family: &Family, layers: usize) -> Result<BlockSet, ModelError> {
    let mut dropped = BlockSet::new();
    for (key, kind) in [("drop_attn_list", BlockKind::Mha), ("drop_mlp_list", BlockKind::Mlp)] {
        let list = keys.list(key)?.unwrap_or_default();
        // LLM-Drop saves one boolean for each layer.
        if let Some(flags) =
            list.iter().map(Value::as_bool).collect::<Option<Vec<bool>>>().filter(|list| !list.is_empty())
        {
            if flags.len() != layers {
                let found = format!("a list of {} booleans", flags.len());
                return Err(keys.contradiction(key, found, format!("one for each of the {layers} layers")));
            }
            let gone = flags.iter().enumerate().filter(|(_, gone)| **gone);
            dropped = dropped.union(&gone.map(|(layer, _)| BlockId { kind, layer }).collect());
            continue;
        }
        for value in list {
            let layer = value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n < layers);
            let layer =
                layer.ok_or_else(|| keys.wrong(key, value, format!("layer indices from 0 to {}", layers - 1)))?;
            dropped.insert(BlockId { kind, layer });
        }
    }
    let Some(per_layer) = keys.object("per_layer_config")?.filter(|map| !map.is_empty()) else { return Ok(dropped) };
    let skipped = skipped(keys, family, per_layer, layers)?;
    let lists = ["drop_attn_list", "drop_mlp_list"].iter().any(|key| keys.get(key).is_some());
    if lists && skipped != dropped {
        return Err(keys.contradiction(
            "per_layer_config",
            format!("without [{skipped}]"),
            format!("without the same blocks as drop_attn_list and drop_mlp_list, [{dropped}]"),
        ));
    }
    Ok(skipped)
}

fn skipped(
    keys: &Keys,
    family: &Family,
    per_layer: &Map<String, Value>,
    layers: usize,
) -> Result<BlockSet, ModelError> {
    let mut skipped = BlockSet::new();
    for (layer, overrides) in per_layer {
        let key = format!("per_layer_config.{layer}");
        let index = layer.parse::<usize>().ok().filter(|n| *n < layers);
        let index = index.ok_or_else(|| keys.wrong(&key, overrides, format!("a layer from 0 to {}", layers - 1)))?;
        let overrides = overrides.as_object().ok_or_else(|| keys.wrong(&key, overrides, "an object"))?;
        for (name, value) in overrides {
            let blocks = value.as_array().filter(|_| name == "skip").ok_or_else(|| {
                keys.unsupported(&key, format!("{name:?}: {}", shown(value)), "layers may differ only by a list `skip`")
            })?;
            for block in blocks {
                let is = |kind, name| family.modules(kind).contains(&name);
                let kind = match block.as_str() {
                    Some("attention") => BlockKind::Mha,
                    Some("mlp") => BlockKind::Mlp,
                    Some(name) if is(BlockKind::Mha, name) => BlockKind::Mha,
                    Some(name) if is(BlockKind::Mlp, name) => BlockKind::Mlp,
                    _ => return Err(keys.wrong(&key, block, "`skip` of \"attention\" or \"mlp\"")),
                };
                skipped.insert(BlockId { kind, layer: index });
            }
        }
    }
    Ok(skipped)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::model::family::stored;

    fn base(model_type: &str) -> Map<String, Value> {
        let keys = json!({
            "model_type": model_type, "hidden_size": 48, "intermediate_size": 100, "num_hidden_layers": 4,
            "num_attention_heads": 6, "num_key_value_heads": 2, "vocab_size": 300, "max_position_embeddings": 256,
        });
        keys.as_object().unwrap().clone()
    }

    fn with(model_type: &str, keys: Value) -> Result<ModelSpec, ModelError> {
        let mut config = base(model_type);
        config.extend(keys.as_object().unwrap().clone());
        ModelSpec::from_config(&config)
    }

    fn without(model_type: &str, key: &str) -> Result<ModelSpec, ModelError> {
        let mut config = base(model_type);
        config.shift_remove(key);
        ModelSpec::from_config(&config)
    }

    /// (Q, K and V, O, feed-forward) have a bias.
    fn biases(spec: &ModelSpec) -> (bool, bool, bool) {
        let layer = &spec.layers[0];
        (layer.attention.bias.qkv, layer.attention.bias.out, layer.dense().bias)
    }

    fn kv_heads(spec: &ModelSpec) -> usize {
        spec.layers[0].attention.kv_heads
    }

    #[test]
    fn keys_left_out_mean_what_they_mean_to_transformers() {
        let llama = with("llama", json!({})).unwrap();
        assert_eq!((llama.layers[0].attention.head_dim, kv_heads(&llama), llama.final_norm.eps), (8, 2, 1e-6));
        assert!(!llama.head.tied && biases(&llama) == (false, false, false));
        assert_eq!(kv_heads(&without("llama", "num_key_value_heads").unwrap()), 6);
        assert_eq!(without("llama", "max_position_embeddings").unwrap().max_positions, 2048);

        let qwen2 = with("qwen2", json!({"attention_bias": false})).unwrap();
        assert_eq!(biases(&qwen2), (true, false, false));
        assert_eq!(kv_heads(&with("qwen2", json!({"num_key_value_heads": null})).unwrap()), 6);
        assert_eq!(without("qwen2", "max_position_embeddings").unwrap().max_positions, 32_768);
        // Qwen2Config has 32 key/value heads if the key is left out, which do not divide 6 heads.
        let error = without("qwen2", "num_key_value_heads").unwrap_err().to_string();
        assert!(error.contains("num_key_value_heads` is 32"), "{error}");
    }

    #[test]
    fn biases_heads_and_tokens_are_read() {
        let keys = json!({
            "attention_bias": true, "mlp_bias": true, "head_dim": 16, "tie_word_embeddings": true,
            "bos_token_id": 1, "eos_token_id": [2, 7], "rms_norm_eps": 1e-5,
        });
        let spec = with("llama", keys).unwrap();
        assert!(biases(&spec) == (true, true, true) && spec.head.tied);
        assert_eq!((spec.layers[0].attention.head_dim, spec.final_norm.eps), (16, 1e-5));
        assert_eq!((spec.bos_token_id, spec.eos_token_ids.as_slice()), (Some(1), &[2, 7][..]));
        assert_eq!(stored(&spec.block_tensors(BlockId::mha(0)))[1].1, [96, 48]);
        assert_eq!(with("llama", json!({"bos_token_id": -1})).unwrap().bos_token_id, None);
    }

    #[test]
    fn pruned_folders_have_absent_blocks() {
        let drop = json!({"drop_attn_list": [3, 1], "drop_mlp_list": [0]});
        let spec = with("blockpruner_qwen2", drop.clone()).unwrap();
        assert_eq!((spec.family.name, spec.absent.to_string()), ("qwen2", "mha:1,mha:3,mlp:0".to_string()));
        let mut both = drop;
        both["per_layer_config"] =
            json!({"0": {"skip": ["mlp"]}, "1": {"skip": ["attention"]}, "3": {"skip": ["attention"]}});
        assert_eq!(with("blockpruner_llama", both.clone()).unwrap().absent, spec.absent);
        both["drop_mlp_list"] = json!([]);
        let error = with("blockpruner_llama", both).unwrap_err().to_string();
        assert!(error.contains("per_layer_config") && error.contains("mlp:0"), "{error}");
    }

    #[test]
    fn absent_blocks_may_be_booleans() {
        let drop = json!({"drop_attn_list": [false, true, false, true], "drop_mlp_list": [true, false, false, false]});
        assert_eq!(with("llama", drop).unwrap().absent.to_string(), "mha:1,mha:3,mlp:0");
        assert!(with("llama", json!({"drop_mlp_list": [false, false, false, false]})).unwrap().absent.is_empty());
        for wrong in [json!([true]), json!([true, 1, false, false])] {
            let error = with("llama", json!({"drop_mlp_list": wrong})).unwrap_err().to_string();
            assert!(error.contains("`drop_mlp_list`"), "{error}");
        }
    }

    #[test]
    fn layers_slide_where_the_configuration_says() {
        let slides = json!({"use_sliding_window": true, "sliding_window": 64, "max_window_layers": 2});
        let windows = |family: &str, keys: Value| {
            let spec = with(family, keys).unwrap();
            spec.layers.iter().map(|layer| layer.attention.sliding_window).collect::<Vec<_>>()
        };
        assert_eq!(windows("qwen2", slides.clone()), [None, None, Some(64), Some(64)]);
        for (key, value) in [
            ("use_sliding_window", json!(false)),
            ("sliding_window", json!(null)),
            ("max_window_layers", json!(4)),
            ("layer_types", json!(["full_attention", "full_attention", "full_attention", "full_attention"])),
        ] {
            let mut keys = slides.clone();
            keys[key] = value;
            assert_eq!(windows("qwen2", keys.clone()), [None; 4], "{keys}");
        }
        assert_eq!(windows("llama", slides.clone()), [None; 4], "llama has no sliding windows");
        let longer = json!({"use_sliding_window": true, "sliding_window": 256, "max_window_layers": 2});
        assert_eq!(windows("qwen2", longer), [None, None, Some(256), Some(256)], "a text may be longer");
        let mut keys = slides;
        keys["layer_types"] = json!(["sliding_attention", "full_attention", "full_attention", "chunked_attention"]);
        let error = with("qwen2", keys.clone()).unwrap_err().to_string();
        assert!(error.contains("`layer_types`") && error.contains("chunked_attention"), "{error}");
        keys["layer_types"] = json!(["sliding_attention"]);
        let error = with("qwen2", keys).unwrap_err().to_string();
        assert!(error.contains("a list of 1") && error.contains("4 layers"), "{error}");
    }

    #[test]
    fn mixtures_of_experts_are_refused_by_name() {
        let error = with("llama", json!({"num_local_experts": 8})).unwrap_err().to_string();
        assert!(error.contains("`num_local_experts` is 8") && error.contains("dense"), "{error}");
        assert!(with("llama", json!({"num_local_experts": 0})).is_ok());
    }

    #[test]
    fn wrong_keys_are_named_with_what_was_expected() {
        let cases = [
            (json!({"model_type": "mamba"}), ["`model_type`", "\"mamba\"", "llama, qwen2"]),
            (json!({"model_type": null}), ["`model_type`", "missing", "llama, qwen2"]),
            (json!({"model_type": 7}), ["`model_type`", "is 7", "a string"]),
            (json!({"hidden_act": "gelu"}), ["`hidden_act`", "\"gelu\"", "silu"]),
            (json!({"hidden_size": 0}), ["`hidden_size`", "is 0", "from 1 to"]),
            (json!({"hidden_size": "48"}), ["`hidden_size`", "\"48\"", "a whole number"]),
            (json!({"hidden_size": 47}), ["`hidden_size`", "is 47", "multiple of the 6 heads"]),
            (json!({"hidden_size": 1e30}), ["`hidden_size`", "1e+30", "from 1 to"]),
            (json!({"vocab_size": 18446744073709551615u64}), ["`vocab_size`", "18446744073709551615", "from 1 to"]),
            (json!({"num_hidden_layers": -1}), ["`num_hidden_layers`", "is -1", "from 1 to"]),
            (json!({"intermediate_size": [100, 50]}), ["`intermediate_size`", "[100,50]", "a whole number"]),
            (json!({"num_key_value_heads": 4}), ["`num_key_value_heads`", "is 4", "divisor of the 6 heads"]),
            (json!({"head_dim": 7}), ["`head_dim`", "is 7", "even"]),
            (json!({"rms_norm_eps": 0}), ["`rms_norm_eps`", "is 0", "greater than 0"]),
            (json!({"tie_word_embeddings": "yes"}), ["`tie_word_embeddings`", "\"yes\"", "true or false"]),
            (json!({"eos_token_id": "</s>"}), ["`eos_token_id`", "</s>", "token id"]),
            (
                json!({"quantization_config": {"quant_method": "gptq", "bits": 4}}),
                ["`quantization_config`", "\"gptq\"", "bf16"],
            ),
            (json!({"drop_attn_list": [4]}), ["`drop_attn_list`", "is 4", "0 to 3"]),
            (json!({"drop_mlp_list": ["1"]}), ["`drop_mlp_list`", "\"1\"", "layer indices"]),
            (json!({"per_layer_config": {"9": {}}}), ["`per_layer_config.9`", "{}", "0 to 3"]),
            (
                json!({"per_layer_config": {"1": {"intermediate_size": 8}}}),
                ["`per_layer_config.1`", "intermediate_size", "skip"],
            ),
        ];
        for (keys, parts) in cases {
            let error = with("llama", keys.clone()).unwrap_err().to_string();
            for part in ["config.json: "].iter().chain(&parts) {
                assert!(error.contains(part), "{keys}: `{error}` does not say `{part}`");
            }
        }
        for key in ["model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size"] {
            let error = without("llama", key).unwrap_err().to_string();
            assert!(error.contains(&format!("`{key}` is missing")), "{error}");
        }
    }

    #[test]
    fn the_largest_sizes_do_not_overflow() {
        let mut keys = Map::new();
        for (key, most) in [
            ("hidden_size", most::WIDTH),
            ("intermediate_size", most::WIDTH),
            ("num_hidden_layers", most::LAYERS),
            ("num_attention_heads", most::HEADS),
            ("num_key_value_heads", most::HEADS),
            ("head_dim", most::HEAD_DIM),
            ("vocab_size", most::VOCABULARY),
        ] {
            keys.insert(key.to_string(), json!(most));
        }
        let spec = with("llama", Value::Object(keys)).unwrap();
        let (width, inner) = (most::WIDTH as u64, (most::HEADS * most::HEAD_DIM) as u64);
        assert_eq!(spec.block_parameters(BlockId::mha(0)), width + 4 * width * inner);
        assert!(spec.parameters() > (most::LAYERS as u64) * 4 * width * inner);
    }

    /// Values that configurations hold, and some that they should not.
    fn any_value() -> impl Strategy<Value = Value> {
        let number = prop_oneof![
            (0i64..70).prop_map(|n| json!(n)),
            any::<i64>().prop_map(|n| json!(n)),
            any::<u64>().prop_map(|n| json!(n)),
            any::<f64>().prop_map(|n| json!(n)),
            (0.0..2.0f64).prop_map(|n| json!(n)),
        ];
        let word = prop::sample::select(
            &["llama", "qwen2", "silu", "default", "linear", "dynamic", "yarn", "longrope", "llama3", "é\u{1F600}"][..],
        );
        let leaf = prop_oneof![
            4 => number,
            1 => any::<bool>().prop_map(|b| json!(b)),
            1 => Just(Value::Null),
            2 => word.prop_map(|word| json!(word)),
        ];
        leaf.prop_recursive(3, 24, 8, |inner| {
            let key = prop::sample::select(ROPE_KEYS).prop_map(str::to_string);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
                prop::collection::vec((key, inner), 0..8).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    const ROPE_KEYS: &[&str] = &[
        "rope_type",
        "type",
        "rope_theta",
        "factor",
        "attention_factor",
        "beta_fast",
        "beta_slow",
        "mscale",
        "mscale_all_dim",
        "truncate",
        "short_factor",
        "long_factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
        "partial_rotary_factor",
        "0",
        "skip",
    ];

    const KEYS: &[&str] = &[
        "model_type",
        "hidden_act",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "vocab_size",
        "rms_norm_eps",
        "rope_theta",
        "rope_scaling",
        "rope_parameters",
        "max_position_embeddings",
        "original_max_position_embeddings",
        "partial_rotary_factor",
        "tie_word_embeddings",
        "attention_bias",
        "mlp_bias",
        "use_sliding_window",
        "sliding_window",
        "layer_types",
        "max_window_layers",
        "bos_token_id",
        "eos_token_id",
        "drop_attn_list",
        "drop_mlp_list",
        "per_layer_config",
        "quantization_config",
    ];

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn no_configuration_panics(
            changes in prop::collection::vec((prop::sample::select(KEYS), any_value()), 0..4),
            qwen2: bool,
            window in 1usize..100_000,
        ) {
            let mut config = base(if qwen2 { "qwen2" } else { "llama" });
            config.extend(changes.into_iter().map(|(key, value)| (key.to_string(), value)));
            match ModelSpec::from_config(&config) {
                Err(error) => prop_assert!(error.to_string().starts_with("config.json: "), "{error}"),
                Ok(spec) => {
                    let rope = spec.ropes[0].frequencies(window).unwrap();
                    prop_assert_eq!(rope.inv_freq.len(), spec.layers[0].attention.head_dim / 2);
                    prop_assert!(rope.inv_freq.iter().all(|frequency| frequency.is_finite()));
                    prop_assert!(spec.parameters() > 0 && spec.layers[0].attention.heads % kv_heads(&spec) == 0);
                }
            }
        }

        #[test]
        fn no_rope_panics(
            theta in prop_oneof![0.0..3.0f64, 1e3..1e7f64, any::<f64>()],
            rope_type in prop::sample::select(&["default", "linear", "dynamic", "yarn", "longrope", "llama3"][..]),
            keys in prop::collection::vec((prop::sample::select(ROPE_KEYS), any_value()), 0..6),
            window in 1usize..100_000,
        ) {
            let mut config = base("llama");
            let mut rope = json!({"factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "short_factor": [1, 1, 1, 2], "long_factor": [1, 2, 3, 4.5]});
            for (key, value) in keys {
                rope[key] = value;
            }
            rope["rope_type"] = json!(rope_type);
            rope["rope_theta"] = json!(theta);
            config.insert("rope_scaling".to_string(), rope);
            if let Ok(spec) = ModelSpec::from_config(&config) {
                let found = spec.ropes[0].frequencies(window).unwrap();
                prop_assert!(found.inv_freq.iter().all(|frequency| frequency.is_finite()), "{:?}", spec.ropes);
                prop_assert!(found.attention_scaling.is_finite());
            }
        }
    }
}
