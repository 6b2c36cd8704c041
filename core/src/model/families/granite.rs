//! Granite: Llama with multipliers of the embedding, the scores, what a block adds, and the logits.

use super::*;

pub(super) static FAMILY: Family = Family {
    name: "granite",
    class: "GraniteForCausalLM",
    config_class: "GraniteConfig",
    package: "granite",
    gguf: biased(gguf_with("granite", &DEFAULTS, KEYS, config), Biases::Any),
    tensors: INTERLEAVED_TENSORS,
    spec,
    ..super::FAMILY
};

const EMBEDDING_MULTIPLIER: Key = key("embedding_multiplier", "embedding_scale");
const ATTENTION_MULTIPLIER: Key = key("attention_multiplier", "attention.scale");
const RESIDUAL_MULTIPLIER: Key = key("residual_multiplier", "residual_scale");
const LOGITS_SCALING: Key = key("logits_scaling", "logit_scale");
const KEYS: &[Key] = &[EMBEDDING_MULTIPLIER, ATTENTION_MULTIPLIER, RESIDUAL_MULTIPLIER, LOGITS_SCALING];
/// In GGUF files of this family, whether anything is turned by its position.
const TURNS: Key = key("", "rope.scaling.finetuned");

fn config(spec: &ModelSpec) -> Value {
    let attention = &spec.layers[0].attention;
    let number = |number: f32| shortest(f64::from(number));
    json!({
        "attention_bias": spec.biases().0.qkv, "mlp_bias": spec.biases().1,
        "embedding_multiplier": number(spec.embedding.scale), "attention_multiplier": number(attention.scale),
        "residual_multiplier": number(attention.branch.scale), "logits_scaling": number(1.0 / spec.head.scale),
    })
}

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    let mut spec = decoder(family, settings, &DEFAULTS)?;
    spec.set_bias(attention_bias(settings, ATTENTION_BIAS, false)?, mlp_bias(settings, MLP_BIAS, false)?);
    if settings.flag(TURNS)? == Some(false) {
        let supported = "queries and keys must be turned by their position";
        return Err(settings.unsupported(TURNS, "false".to_string(), supported));
    }
    let number = |key: Key| Ok::<_, ModelError>(settings.positive(key)?.unwrap_or(1.0) as f32);
    spec.embedding.scale = number(EMBEDDING_MULTIPLIER)?;
    let (scale, residual) = (settings.positive(ATTENTION_MULTIPLIER)?, number(RESIDUAL_MULTIPLIER)?);
    // What is left out is 1 in config.json, and the usual scale in GGUF.
    if let Some(scale) = scale.or(settings.has_defaults().then_some(1.0)) {
        spec.each_attention(|_, attention| attention.scale = scale as f32);
    }
    spec.each_branch(|branch| branch.scale = residual);
    spec.head.scale = 1.0 / stated(settings, LOGITS_SCALING, 1.0)? as f32;
    Ok(spec)
}
