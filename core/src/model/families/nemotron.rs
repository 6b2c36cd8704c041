//! Nemotron and Minitron: layer norms stored less 1, half of a head turned, and a feed-forward network without a gate, by the
//! square of what is positive.

use super::*;

pub(super) static FAMILY: Family = Family {
    name: "nemotron",
    class: "NemotronForCausalLM",
    config_class: "NemotronConfig",
    package: "nemotron",
    gguf: whole_width(biased(
        gguf("nemotron", &DEFAULTS, |spec| json!({"attention_bias": spec.biases().0.qkv, "mlp_bias": spec.biases().1})),
        Biases::Any,
    )),
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
        UP,
        DOWN,
    ],
    spec,
    ..super::FAMILY
};

const DEFAULTS: Defaults = Defaults {
    norm_eps_key: key("norm_eps", "attention.layer_norm_epsilon"),
    max_positions: 4096,
    rotated: Some(0.5),
    activation: (HIDDEN_ACT, &["relu2"], Activation::ReluSquared),
    gated: false,
    ..LAYER_NORM_DEFAULTS
};

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    let mut spec = decoder(family, settings, &DEFAULTS)?;
    spec.set_bias(attention_bias(settings, ATTENTION_BIAS, false)?, mlp_bias(settings, MLP_BIAS, false)?);
    Ok(spec)
}
