//! Mistral: Llama, in which all layers may see a sliding window only (7B v0.1 does, later ones do not).
//!
//! GGUF files of most are Llama's, and say nothing of a window; those of the text models of Mistral 3 have a name of their own.

use super::*;

pub(super) static FAMILY: Family = Family {
    name: "mistral",
    class: "MistralForCausalLM",
    config_class: "MistralConfig",
    package: "mistral",
    gguf: biased(
        gguf_with(
            "mistral3",
            &DEFAULTS,
            &[SLIDING_WINDOW],
            |spec| json!({"sliding_window": spec.layers[0].attention.sliding_window}),
        ),
        Biases::Any,
    ),
    tensors: INTERLEAVED_TENSORS,
    spec,
    ..super::FAMILY
};

pub(super) const DEFAULTS: Defaults = Defaults { kv_heads: Some(8), max_positions: 131_072, ..super::DEFAULTS };

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    let mut spec = decoder(family, settings, &DEFAULTS)?;
    let window = sliding_window(settings, Some(4096))?;
    if let Some(types) = settings.layer_types(spec.layers.len())?
        && types.iter().any(|slides| *slides != window.is_some())
    {
        let supported = "all layers slide, by the size of sliding_window, or none";
        return Err(settings.unsupported(LAYER_TYPES, "another list".to_string(), supported));
    }
    spec.set_sliding_window(window, |_| true);
    Ok(spec)
}
