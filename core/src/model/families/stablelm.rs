//! StableLM: Llama with layer norms, and a quarter of a head turned. With `qk_layernorm` (StableLM 2 12B) each head of Q and of K
//! has a layer norm of its own, without a bias.
//!
//! Its layers may be parallel, x += attention(norm(x)) + feed_forward(norm(x)): then both blocks read the same norm, which
//! stays until both are gone.

use super::*;

pub(super) static FAMILY: Family = STABLELM;
static PARALLEL: Family = Family { tensors: &tensors(SHARED_NORM), ..STABLELM };

const STABLELM: Family = Family {
    name: "stablelm",
    class: "StableLmForCausalLM",
    config_class: "StableLmConfig",
    package: "stablelm",
    // llama.cpp's converter writes that key, which nobody needs.
    gguf: gguf_with("stablelm", &DEFAULTS, &[PARALLEL_LAYERS], config),
    tensors: &tensors(FEED_FORWARD_NORM),
    spec,
    ..super::FAMILY
};

const fn tensors(feed_forward_norm: Tensor) -> [Tensor; 14] {
    [
        EMBEDDING,
        FINAL_NORM,
        HEAD,
        ATTENTION_NORM,
        QUERY,
        KEY,
        VALUE,
        tensor(Role::QueryNorm, "self_attn.q_layernorm.norms", QUERY_NORM.gguf).each_head(),
        tensor(Role::KeyNorm, "self_attn.k_layernorm.norms", KEY_NORM.gguf).each_head(),
        ATTENTION_OUT,
        feed_forward_norm,
        GATE,
        UP,
        DOWN,
    ]
}

const DEFAULTS: Defaults =
    Defaults { kv_heads: Some(32), max_positions: 4096, rotated: Some(0.25), ..LAYER_NORM_DEFAULTS };

const QKV_BIAS: Key = key("use_qkv_bias", "");
const PARALLEL_LAYERS: Key = key("use_parallel_residual", "use_parallel_residual");
const QK_NORM: Key = key("qk_layernorm", "");

fn config(spec: &ModelSpec) -> Value {
    let layer = &spec.layers[0];
    json!({
        "use_qkv_bias": layer.attention.bias.qkv, "use_parallel_residual": layer.parallel,
        "qk_layernorm": layer.attention.qk_norm.is_some(),
    })
}

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    let mut spec = decoder(family, settings, &DEFAULTS)?;
    let qkv = qkv_bias(settings, QKV_BIAS, false)?;
    spec.set_bias(AttentionBias { qkv, out: false }, false);
    let normed_heads = match settings.first_layer_holds(QUERY_NORM.gguf) {
        Some(normed) => normed,
        None => settings.flag(QK_NORM)?.unwrap_or(false),
    };
    if normed_heads {
        spec.set_qk_norm(Over::EachHead);
    }
    let parallel = match settings.first_layer_holds(FEED_FORWARD_NORM.gguf) {
        Some(own_norm) => !own_norm,
        None => settings.flag(PARALLEL_LAYERS)?.unwrap_or(false),
    };
    if parallel {
        spec.family = &PARALLEL;
        spec.set_parallel();
    }
    Ok(spec)
}
