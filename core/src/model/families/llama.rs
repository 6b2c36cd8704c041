//! Llama, and everything published under its name.
//!
//! x += attention(norm(x)), x += feed_forward(norm(x)): a block goes with the norm before it.

use super::*;

pub(super) static FAMILY: Family = LLAMA;
pub(super) const LLAMA: Family = Family {
    name: "llama",
    class: "LlamaForCausalLM",
    config_class: "LlamaConfig",
    package: "llama",
    gguf: biased(
        gguf("llama", &DEFAULTS, |spec| json!({"attention_bias": spec.biases().0.qkv, "mlp_bias": spec.biases().1})),
        Biases::Any,
    ),
    tensors: INTERLEAVED_TENSORS,
    spec,
    ..super::FAMILY
};

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    let mut spec = decoder(family, settings, &DEFAULTS)?;
    spec.set_bias(attention_bias(settings, ATTENTION_BIAS, false)?, mlp_bias(settings, MLP_BIAS, false)?);
    Ok(spec)
}
