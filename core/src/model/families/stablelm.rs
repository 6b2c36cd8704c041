//! StableLM: Llama with layer norms, and a quarter of a head turned.
//!
//! Its layers may be parallel, x += attention(norm(x)) + feed_forward(norm(x)): then both blocks read the same norm, which
//! stays until both are gone.

use super::*;

pub(super) static FAMILY: Family = STABLELM;
static PARALLEL: Family = Family { tensors: SHARED_NORM_TENSORS, ..STABLELM };

const STABLELM: Family = Family {
    name: "stablelm",
    class: "StableLmForCausalLM",
    config_class: "StableLmConfig",
    package: "stablelm",
    gguf: gguf(
        "stablelm",
        &DEFAULTS,
        |spec| json!({"use_qkv_bias": spec.biases().0.qkv, "use_parallel_residual": spec.layers[0].parallel}),
    ),
    spec,
    ..super::FAMILY
};

const DEFAULTS: Defaults =
    Defaults { kv_heads: Some(32), max_positions: 4096, rotated: Some(0.25), ..LAYER_NORM_DEFAULTS };

const QKV_BIAS: Key = key("use_qkv_bias", "");
const PARALLEL_LAYERS: Key = key("use_parallel_residual", "");
const QK_NORM: Key = key("qk_layernorm", "");

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    refuse_if_set(settings, QK_NORM, "queries and keys must not be normed head by head")?;
    let mut spec = decoder(family, settings, &DEFAULTS)?;
    let qkv = qkv_bias(settings, QKV_BIAS, false)?;
    spec.set_bias(AttentionBias { qkv, out: false }, false);
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
