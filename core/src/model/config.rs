//! A Hugging Face config.json as a [`ModelSpec`].
//!
//! Keys mean what they mean to transformers; what would change the result and is not built here is refused by name.

use serde_json::{Map, Value};

use super::error::{ModelError, shown};
use super::keys::Keys;
use super::rope::RopeSpec;
use super::spec::{Biases, Family, ModelSpec};
use super::{BlockId, BlockKind, BlockSet, llama, qwen2};

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
    /// Reads the keys of a config.json. Errors name the key, what it is and what it should be.
    pub fn from_config(config: &Map<String, Value>) -> Result<Self, ModelError> {
        Self::from_config_file("config.json", config)
    }

    /// The same, with the file's name for error messages.
    pub(crate) fn from_config_file(file: &str, config: &Map<String, Value>) -> Result<Self, ModelError> {
        let keys = Keys::new(file, config);
        let family = family(&keys)?;
        refuse_unbuilt(&keys)?;
        let defaults = family.defaults();
        let hidden_size = keys.required_size("hidden_size", most::WIDTH)?;
        let layers = keys.required_size("num_hidden_layers", most::LAYERS)?;
        let max_positions = keys.size("max_position_embeddings", most::POSITIONS)?.unwrap_or(defaults.max_positions);
        let (heads, kv_heads, head_dim) = heads(&keys, hidden_size, defaults.kv_heads)?;
        let Biases { qkv, o, mlp } = match family {
            Family::Llama => llama::biases(&keys)?,
            Family::Qwen2 => qwen2::BIASES,
        };
        if family == Family::Qwen2 {
            qwen2::refuse_sliding_window(&keys, layers, max_positions)?;
        }
        Ok(Self {
            family,
            hidden_size,
            intermediate_size: keys.required_size("intermediate_size", most::WIDTH)?,
            layers,
            heads,
            kv_heads,
            head_dim,
            vocab_size: keys.required_size("vocab_size", most::VOCABULARY)?,
            rms_norm_eps: keys.positive("rms_norm_eps")?.unwrap_or(defaults.rms_norm_eps) as f32,
            rope: RopeSpec::from_config(&keys, head_dim, max_positions, defaults.rope_theta)?,
            tied_embeddings: keys.flag("tie_word_embeddings")?.unwrap_or(defaults.tied),
            max_positions,
            qkv_bias: qkv,
            o_bias: o,
            mlp_bias: mlp,
            absent: absent(&keys, layers)?,
            bos_token_id: keys.token_ids("bos_token_id")?.first().copied(),
            eos_token_ids: keys.token_ids("eos_token_id")?,
        })
    }
}

fn family(keys: &Keys) -> Result<Family, ModelError> {
    let supported =
        "supported are llama and qwen2, and pruned folders of either (blockpruner_llama, blockpruner_qwen2)";
    let Some(name) = keys.text("model_type")? else {
        return Err(keys.missing("model_type", format!("the name of an architecture; {supported}")));
    };
    let plain = name.strip_prefix(PRUNED_TYPE_PREFIX).unwrap_or(name);
    let family = Family::ALL.into_iter().find(|family| family.as_str() == plain);
    family.ok_or_else(|| keys.unsupported("model_type", format!("{name:?}"), supported))
}

/// Keys that change the arithmetic or the storage in ways that are not built here.
fn refuse_unbuilt(keys: &Keys) -> Result<(), ModelError> {
    if let Some(act) = keys.text("hidden_act")?
        && !["silu", "swish"].contains(&act)
    {
        return Err(keys.unsupported("hidden_act", format!("{act:?}"), "the feed-forward activation must be silu"));
    }
    if let Some(quantization) = keys.get("quantization_config") {
        let method = quantization.get("quant_method").unwrap_or(quantization);
        return Err(keys.unsupported(
            "quantization_config",
            shown(method),
            "take the checkpoint in bf16, f16 or f32, or a GGUF file of it",
        ));
    }
    Ok(())
}

/// Query heads, key/value heads and the width of a head.
fn heads(keys: &Keys, hidden_size: usize, default_kv: Option<usize>) -> Result<(usize, usize, usize), ModelError> {
    let heads = keys.required_size("num_attention_heads", most::HEADS)?;
    // A null means as many as heads; what a missing key means depends on the family.
    let left_out = if keys.map.contains_key("num_key_value_heads") { None } else { default_kv };
    let kv_heads = keys.size("num_key_value_heads", most::HEADS)?.or(left_out).unwrap_or(heads);
    if heads % kv_heads != 0 {
        return Err(keys.contradiction(
            "num_key_value_heads",
            kv_heads.to_string(),
            format!("a divisor of num_attention_heads, {heads}"),
        ));
    }
    let head_dim = match keys.size("head_dim", most::HEAD_DIM)? {
        Some(head_dim) => head_dim,
        None if hidden_size % heads == 0 && hidden_size / heads <= most::HEAD_DIM => hidden_size / heads,
        None => {
            return Err(keys.contradiction(
                "hidden_size",
                hidden_size.to_string(),
                format!("a multiple of num_attention_heads, {heads}, or a key head_dim (at most {})", most::HEAD_DIM),
            ));
        }
    };
    if head_dim % 2 != 0 {
        return Err(keys.contradiction(
            "head_dim",
            head_dim.to_string(),
            "an even number, because rotary embedding turns pairs (hidden_size / num_attention_heads where not given)",
        ));
    }
    Ok((heads, kv_heads, head_dim))
}

/// Blocks that the configuration says are gone: `drop_attn_list` and `drop_mlp_list` (LLM-Drop's keys, written here too),
/// or `per_layer_config` with `skip` (transformers' heterogeneous configurations). Where both stand they must agree.
fn absent(keys: &Keys, layers: usize) -> Result<BlockSet, ModelError> {
    let mut dropped = BlockSet::new();
    for (key, kind) in [("drop_attn_list", BlockKind::Mha), ("drop_mlp_list", BlockKind::Mlp)] {
        for value in keys.list(key)?.unwrap_or_default() {
            let layer = value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n < layers);
            let layer =
                layer.ok_or_else(|| keys.wrong(key, value, format!("layer indices from 0 to {}", layers - 1)))?;
            dropped.insert(BlockId { kind, layer });
        }
    }
    let Some(per_layer) = keys.object("per_layer_config")?.filter(|map| !map.is_empty()) else { return Ok(dropped) };
    let skipped = skipped(keys, per_layer, layers)?;
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

fn skipped(keys: &Keys, per_layer: &Map<String, Value>, layers: usize) -> Result<BlockSet, ModelError> {
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
                let kind = match block.as_str() {
                    Some("attention" | "self_attn") => BlockKind::Mha,
                    Some("mlp") => BlockKind::Mlp,
                    _ => return Err(keys.wrong(&key, block, "`skip` of \"attention\" or \"mlp\"")),
                };
                skipped.insert(BlockId { kind, layer: index });
            }
        }
    }
    Ok(skipped)
}
