//! GLM-4 (0414): norms on both sides of its blocks, gate and up in one tensor, and half of a head turned, in pairs of
//! neighbouring elements, which are put into the order of halves when they are loaded.
//!
//! x += post_norm(attention(norm(x))), x += post_norm(feed_forward(norm(x))): a block goes with the norms on both sides.

use super::*;

pub(super) static FAMILY: Family = Family {
    name: "glm4",
    class: "Glm4ForCausalLM",
    config_class: "Glm4Config",
    package: "glm4",
    gguf: gguf("glm4", &DEFAULTS, |spec| json!({"attention_bias": spec.biases().0.qkv})),
    tensors: &[
        EMBEDDING,
        FINAL_NORM,
        HEAD,
        ATTENTION_NORM,
        QUERY.interleaved(Container::HuggingFace),
        KEY.interleaved(Container::HuggingFace),
        VALUE,
        ATTENTION_OUT,
        tensor(Role::AttentionPostNorm, "post_self_attn_layernorm", "post_attention_norm"),
        FEED_FORWARD_NORM,
        tensor(Role::Gate, "mlp.gate_up_proj", "ffn_up"),
        tensor(Role::Up, "mlp.gate_up_proj", "ffn_up"),
        DOWN,
        tensor(Role::FeedForwardPostNorm, "post_mlp_layernorm", "post_ffw_norm"),
    ],
    spec,
    ..super::FAMILY
};

const DEFAULTS: Defaults = Defaults {
    kv_heads: Some(2),
    head_dim: Some(128),
    norm_eps: 1.5625e-7,
    max_positions: 131_072,
    rotated: Some(0.5),
    ..super::DEFAULTS
};

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    let mut spec = decoder(family, settings, &DEFAULTS)?;
    let qkv = qkv_bias(settings, ATTENTION_BIAS, true)?;
    spec.set_bias(AttentionBias { qkv, out: false }, false);
    spec.each_branch(|branch| branch.post_norm = branch.norm);
    Ok(spec)
}
