//! EXAONE 4: norms after its blocks and over each head of Q and K. Where windows slide, the layers between, with full
//! attention, turn nothing by its position.

use super::*;

pub(super) static FAMILY: Family = Family {
    name: "exaone4",
    class: "Exaone4ForCausalLM",
    config_class: "Exaone4Config",
    package: "exaone4",
    tensors: olmo2::POST_NORM_TENSORS,
    spec,
    ..super::FAMILY
};

const DEFAULTS: Defaults = Defaults { kv_heads: Some(32), ..olmo2::DEFAULTS };

const PATTERN: Key = key("sliding_window_pattern", "");

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    let mut spec = olmo2::post_norm(family, settings, &DEFAULTS, Over::Head)?;
    spec.set_bias(AttentionBias::default(), false);
    let window = sliding_window(settings, Some(4096))?;
    // Where the layers' types are listed, the pattern is not looked at, and may be a text.
    let pattern = match settings.list(LAYER_TYPES)? {
        Some(_) => 4,
        None => settings.size(PATTERN, most::LAYERS)?.unwrap_or(4),
    };
    let slides = slide_by_type(&mut spec, settings, window, |layer| (layer + 1) % pattern != 0)?;
    if window.is_some() {
        spec.each_attention(|layer, attention| {
            attention.positions = if slides[layer] { Positions::Rope(0) } else { Positions::None };
        });
    }
    Ok(spec)
}
