//! Qwen2 and Qwen2.5: Llama with a bias on Q, K and V, and optionally sliding windows in the upper layers.

use super::*;

pub(super) static FAMILY: Family = QWEN2;
pub(super) const QWEN2: Family = Family {
    name: "qwen2",
    class: "Qwen2ForCausalLM",
    config_class: "Qwen2Config",
    package: "qwen2",
    gguf: gguf("qwen2", &DEFAULTS, |_| json!({"use_sliding_window": false})),
    tensors: LLAMA_TENSORS,
    spec,
    ..super::FAMILY
};

const DEFAULTS: Defaults = Defaults { kv_heads: Some(32), max_positions: 32_768, ..super::DEFAULTS };

const MAX_WINDOW_LAYERS: Key = key("max_window_layers", "");

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    let mut spec = decoder(family, settings, &DEFAULTS)?;
    // No key changes that.
    spec.set_bias(AttentionBias { qkv: true, out: false }, false);
    slide_upper_layers(&mut spec, settings)?;
    Ok(spec)
}

/// The layers from `max_window_layers` on slide where `use_sliding_window` says so.
pub(super) fn slide_upper_layers(spec: &mut ModelSpec, settings: &dyn Settings) -> Result<(), ModelError> {
    if !settings.has_defaults() {
        return Ok(());
    }
    let slides = settings.flag(USE_SLIDING_WINDOW)?.unwrap_or(false);
    if !slides && settings.layer_types(spec.layers.len())?.is_some_and(|types| types.contains(&true)) {
        let supported = "a layer slides only where use_sliding_window is true";
        return Err(settings.unsupported(LAYER_TYPES, "a list with \"sliding_attention\"".to_string(), supported));
    }
    let window = if slides { sliding_window(settings, Some(4096))? } else { None };
    let first = settings.count(MAX_WINDOW_LAYERS)?.unwrap_or(28);
    slide_by_type(spec, settings, window, |layer| window.is_some() && layer >= first)?;
    Ok(())
}
