//! OLMo 2: Llama with norms after its blocks instead of before, and a norm over the whole rows of Q and K.
//!
//! x += norm(attention(x)), x += norm(feed_forward(x)): a block goes with the norm after it.

use super::*;

pub(super) static FAMILY: Family = Family {
    name: "olmo2",
    class: "Olmo2ForCausalLM",
    config_class: "Olmo2Config",
    package: "olmo2",
    gguf: whole_width(gguf("olmo2", &DEFAULTS, |spec| json!({"attention_bias": spec.biases().0.qkv}))),
    tensors: POST_NORM_TENSORS,
    spec,
    ..super::FAMILY
};

/// Those of families that have norms only after their blocks and on Q and K.
pub(super) const POST_NORM_TENSORS: &[Tensor] = &[
    EMBEDDING,
    FINAL_NORM,
    HEAD,
    QUERY,
    KEY,
    VALUE,
    QUERY_NORM,
    KEY_NORM,
    ATTENTION_OUT,
    tensor(Role::AttentionPostNorm, "post_attention_layernorm", "post_attention_norm"),
    GATE,
    UP,
    DOWN,
    tensor(Role::FeedForwardPostNorm, "post_feedforward_layernorm", "post_ffw_norm"),
];

pub(super) const DEFAULTS: Defaults = Defaults { norm_eps: 1e-5, ..super::DEFAULTS };

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    post_norm(family, settings, &DEFAULTS, Over::Row)
}

/// What families with norms after their blocks have in common.
pub(super) fn post_norm(
    family: &'static Family,
    settings: &dyn Settings,
    defaults: &Defaults,
    over: Over,
) -> Result<ModelSpec, ModelError> {
    let mut spec = decoder(family, settings, defaults)?;
    spec.set_bias(attention_bias(settings, ATTENTION_BIAS, false)?, false);
    spec.each_branch(|branch| branch.post_norm = branch.norm.take());
    spec.set_qk_norm(over);
    Ok(spec)
}
