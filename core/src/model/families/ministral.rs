//! Ministral (8B 2410): Mistral, in which layers with full attention may stand between those with a sliding window.

use super::*;

pub(super) static FAMILY: Family = Family {
    name: "ministral",
    class: "MinistralForCausalLM",
    config_class: "MinistralConfig",
    package: "ministral",
    tensors: LLAMA_TENSORS,
    spec,
    ..super::FAMILY
};

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    let mut spec = decoder(family, settings, &mistral::DEFAULTS)?;
    let window = sliding_window(settings, Some(4096))?;
    slide_by_type(&mut spec, settings, window, |_| window.is_some())?;
    Ok(spec)
}
