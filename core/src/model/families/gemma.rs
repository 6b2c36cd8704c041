//! Gemma: Llama with norms that multiply by 1 + w, an embedding times the root of the hidden size, and a gate of GELU.

use super::*;

pub(super) static FAMILY: Family = Family {
    name: "gemma",
    class: "GemmaForCausalLM",
    config_class: "GemmaConfig",
    package: "gemma",
    gguf: gguf("gemma", &DEFAULTS, |spec| json!({"attention_bias": spec.biases().0.qkv})),
    tensors: &[
        EMBEDDING,
        FINAL_NORM.plus_one(),
        HEAD,
        ATTENTION_NORM.plus_one(),
        QUERY,
        KEY,
        VALUE,
        ATTENTION_OUT,
        FEED_FORWARD_NORM.plus_one(),
        GATE,
        UP,
        DOWN,
    ],
    spec,
    ..super::FAMILY
};

/// `gelu` means the approximation, as in transformers.
const DEFAULTS: Defaults = Defaults {
    kv_heads: Some(16),
    head_dim: Some(256),
    max_positions: 8192,
    tied: true,
    activation: (HIDDEN_ACT, &["gelu_pytorch_tanh", "gelu", "gelu_python"], Activation::GeluTanh),
    ..super::DEFAULTS
};

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    refuse_bidirectional(settings)?;
    let mut spec = decoder(family, settings, &DEFAULTS)?;
    spec.set_bias(attention_bias(settings, ATTENTION_BIAS, false)?, false);
    spec.embedding.scale = (spec.hidden_size as f32).sqrt();
    Ok(spec)
}
