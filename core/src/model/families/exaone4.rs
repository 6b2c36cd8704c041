//! EXAONE 4: norms after its blocks and over each head of Q and K. Where windows slide, the layers between, with full
//! attention, turn nothing by its position.

use super::*;

pub(super) static FAMILY: Family = Family {
    name: "exaone4",
    class: "Exaone4ForCausalLM",
    config_class: "Exaone4Config",
    package: "exaone4",
    gguf: whole_width(gguf_with("exaone4", &DEFAULTS, &[SLIDING_WINDOW], windows)),
    tensors: olmo2::POST_NORM_TENSORS,
    spec,
    ..super::FAMILY
};

const DEFAULTS: Defaults = Defaults { kv_heads: Some(32), ..olmo2::DEFAULTS };

/// llama.cpp computes windows, and turns some layers only, in a model of so many layers: the 32B.
pub(crate) const WINDOWED: usize = 64;

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    let mut spec = olmo2::post_norm(family, settings, &DEFAULTS, Over::Head)?;
    spec.set_bias(AttentionBias::default(), false);
    let window = sliding_window(settings, Some(4096))?;
    let slides = match window {
        Some(_) => slide_but_every(&mut spec, settings, window, (PATTERN, 4))?,
        None => slide_by_type(&mut spec, settings, window, |_| false)?,
    };
    if window.is_some() {
        spec.each_attention(|layer, attention| {
            attention.positions = if slides[layer] { Positions::Rope(0) } else { Positions::None };
        });
    }
    Ok(spec)
}
