//! Seed-OSS: Llama with a bias on Q, K and V, and one of its own key on the output projection.

use super::*;

pub(super) static FAMILY: Family = SEED_OSS;
pub(super) const SEED_OSS: Family = Family {
    name: "seed_oss",
    class: "SeedOssForCausalLM",
    config_class: "SeedOssConfig",
    package: "seed_oss",
    gguf: gguf("seed_oss", &DEFAULTS, |spec| {
        let (attention, mlp) = spec.biases();
        json!({"attention_bias": attention.qkv, "attention_out_bias": attention.out, "mlp_bias": mlp})
    }),
    tensors: &llama_tensors(
        [QUERY, KEY, VALUE],
        tensor(Role::FeedForwardNorm, FEED_FORWARD_NORM.hf, "post_attention_norm"),
    ),
    spec,
    ..super::FAMILY
};

const DEFAULTS: Defaults =
    Defaults { kv_heads: Some(8), head_dim: Some(128), max_positions: 524_288, ..super::DEFAULTS };

const OUT_BIAS: Key = key("attention_out_bias", "");

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    let mut spec = decoder(family, settings, &DEFAULTS)?;
    let (qkv, out) = (qkv_bias(settings, ATTENTION_BIAS, true)?, out_bias(settings, OUT_BIAS, false)?);
    spec.set_bias(AttentionBias { qkv, out }, mlp_bias(settings, MLP_BIAS, false)?);
    Ok(spec)
}
