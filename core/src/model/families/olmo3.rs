//! OLMo 3: OLMo 2 with a sliding window in three layers of four, which turn by a rotary embedding without scaling.

use super::*;

pub(super) static FAMILY: Family = Family {
    name: "olmo3",
    class: "Olmo3ForCausalLM",
    config_class: "Olmo3Config",
    package: "olmo3",
    tensors: olmo2::POST_NORM_TENSORS,
    spec,
    ..super::FAMILY
};

const DEFAULTS: Defaults = Defaults { rope_theta: 500_000.0, sliding_rope: Some((500_000.0, None)), ..olmo2::DEFAULTS };

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    let mut spec = olmo2::post_norm(family, settings, &DEFAULTS, Over::Row)?;
    let window = sliding_window(settings, Some(4096))?;
    let slides = slide_by_type(&mut spec, settings, window, |layer| (layer + 1) % 4 != 0)?;
    spec.turn_by_type(&slides);
    Ok(spec)
}
