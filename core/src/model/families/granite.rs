//! Granite: Llama with multipliers of the embedding, the scores, what a block adds, and the logits.

use super::*;

pub(super) static FAMILY: Family = Family {
    name: "granite",
    class: "GraniteForCausalLM",
    config_class: "GraniteConfig",
    package: "granite",
    tensors: LLAMA_TENSORS,
    spec,
    ..super::FAMILY
};

const EMBEDDING_MULTIPLIER: Key = key("embedding_multiplier", "embedding_scale");
const ATTENTION_MULTIPLIER: Key = key("attention_multiplier", "attention.scale");
const RESIDUAL_MULTIPLIER: Key = key("residual_multiplier", "residual_scale");
const LOGITS_SCALING: Key = key("logits_scaling", "logit_scale");

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    let mut spec = decoder(family, settings, &DEFAULTS)?;
    spec.set_bias(attention_bias(settings, ATTENTION_BIAS, false)?, mlp_bias(settings, MLP_BIAS, false)?);
    let number = |key: Key| Ok::<_, ModelError>(settings.positive(key)?.unwrap_or(1.0) as f32);
    spec.embedding.scale = number(EMBEDDING_MULTIPLIER)?;
    let (scale, residual) = (number(ATTENTION_MULTIPLIER)?, number(RESIDUAL_MULTIPLIER)?);
    spec.each_attention(|_, attention| attention.scale = scale);
    spec.each_branch(|branch| branch.scale = residual);
    spec.head.scale = 1.0 / number(LOGITS_SCALING)?;
    Ok(spec)
}
