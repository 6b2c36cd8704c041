//! Cohere2 (Command R7B): layer norms without a bias, scaled logits, and heads that are turned, in pairs of neighbouring
//! elements, in the layers that slide only.
//!
//! Its layers are parallel, x += attention(norm(x)) + feed_forward(norm(x)): both blocks read the same norm, which stays until
//! both are gone.

use super::*;

pub(super) static FAMILY: Family = Family {
    name: "cohere2",
    class: "Cohere2ForCausalLM",
    config_class: "Cohere2Config",
    package: "cohere2",
    gguf: gguf_with("cohere2", &DEFAULTS, &[LOGIT_SCALE, SLIDING_WINDOW], config),
    tensors: &llama_tensors(interleaved(Container::HuggingFace), SHARED_NORM),
    spec,
    ..super::FAMILY
};

const DEFAULTS: Defaults =
    Defaults { norm: (NormKind::Layer, false), max_positions: 8192, tied: true, ..LAYER_NORM_DEFAULTS };

const LOGIT_SCALE: Key = key("logit_scale", "logit_scale");

fn config(spec: &ModelSpec) -> Value {
    let mut config = windows(spec);
    config["attention_bias"] = json!(spec.biases().0.qkv);
    config[LOGIT_SCALE.hf] = json!(shortest(f64::from(spec.head.scale)));
    config
}

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    let mut spec = decoder(family, settings, &DEFAULTS)?;
    spec.set_bias(attention_bias(settings, ATTENTION_BIAS, false)?, false);
    spec.head.scale = stated(settings, LOGIT_SCALE, 0.0625)? as f32;
    let window = sliding_window(settings, Some(4096))?;
    if window.is_none() && !settings.has_defaults() {
        return Err(settings.missing(SLIDING_WINDOW, "the window of the layers that slide"));
    }
    let slides = slide_but_every(&mut spec, settings, window, (PATTERN, 4))?;
    spec.each_attention(|layer, attention| {
        attention.positions = if slides[layer] { Positions::Rope(0) } else { Positions::None };
    });
    spec.set_parallel();
    Ok(spec)
}
