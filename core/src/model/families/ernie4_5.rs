//! ERNIE 4.5 (dense): Llama, whose rotary embedding turns neighbouring elements. The rows of Q and K are put into the order
//! of halves when they are loaded, which leaves every score as it is.

use super::*;

pub(super) static FAMILY: Family = Family {
    name: "ernie4_5",
    class: "Ernie4_5ForCausalLM",
    config_class: "Ernie4_5Config",
    package: "ernie4_5",
    gguf: biased(gguf("ernie4_5", &DEFAULTS, |spec| json!({"use_bias": spec.biases().1})), Biases::Attention),
    tensors: &llama_tensors(interleaved(Container::HuggingFace), FEED_FORWARD_NORM),
    spec,
    ..super::FAMILY
};

const DEFAULTS: Defaults = Defaults {
    kv_heads: Some(2),
    head_dim: Some(128),
    norm_eps: 1e-5,
    max_positions: 131_072,
    tied: true,
    rope_theta: 500_000.0,
    ..super::DEFAULTS
};

const BIAS: Key = key("use_bias", "");

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    let mut spec = decoder(family, settings, &DEFAULTS)?;
    let bias = every_bias(settings, BIAS, false)?;
    spec.set_bias(AttentionBias { qkv: bias, out: bias }, bias);
    Ok(spec)
}
