//! Mistral: Llama, in which all layers may see a sliding window only (7B v0.1 does, later ones do not).

use super::*;

pub(super) static FAMILY: Family = Family {
    name: "mistral",
    class: "MistralForCausalLM",
    config_class: "MistralConfig",
    package: "mistral",
    tensors: LLAMA_TENSORS,
    spec,
    ..super::FAMILY
};

pub(super) const DEFAULTS: Defaults = Defaults { kv_heads: Some(8), max_positions: 131_072, ..super::DEFAULTS };

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    let mut spec = decoder(family, settings, &DEFAULTS)?;
    let window = sliding_window(settings, Some(4096))?;
    if let Some(types) = layer_types(settings, spec.layers.len())?
        && types.iter().any(|slides| *slides != window.is_some())
    {
        let supported = "all layers slide, by the size of sliding_window, or none";
        return Err(settings.unsupported(LAYER_TYPES, "another list".to_string(), supported));
    }
    spec.set_sliding_window(window, |_| true);
    Ok(spec)
}
