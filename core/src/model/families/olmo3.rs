//! OLMo 3: OLMo 2 with a sliding window in three layers of four, which turn by a rotary embedding without scaling.

use super::*;

pub(super) static FAMILY: Family = Family {
    name: "olmo3",
    class: "Olmo3ForCausalLM",
    config_class: "Olmo3Config",
    package: "olmo3",
    gguf: None,
    tensors: olmo2::POST_NORM_TENSORS,
    spec,
};

const DEFAULTS: Defaults = Defaults { rope_theta: 500_000.0, ..olmo2::DEFAULTS };

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    let mut spec = olmo2::post_norm(family, settings, &DEFAULTS, Over::Row)?;
    let window = sliding_window(settings, Some(4096))?;
    let slides = slide_by_type(&mut spec, settings, window, |layer| (layer + 1) % 4 != 0)?;
    gemma3::set_ropes_by_type(&mut spec, settings, &DEFAULTS, (DEFAULTS.rope_theta, None), &slides)?;
    Ok(spec)
}
