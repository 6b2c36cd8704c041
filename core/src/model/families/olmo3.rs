//! OLMo 3: OLMo 2 with a sliding window in three layers of four, which turn by a rotary embedding without scaling.

use super::*;

pub(super) static FAMILY: Family = Family {
    name: "olmo3",
    class: "Olmo3ForCausalLM",
    config_class: "Olmo3Config",
    package: "olmo3",
    gguf: Some(Gguf {
        architecture: "olmo2",
        marked_by: Some(SLIDING_WINDOW),
        by_layer: false,
        defaults: &DEFAULTS,
        biases: Biases::Queries,
        whole_width: true,
        keys: &[SLIDING_WINDOW],
        config,
    }),
    tensors: olmo2::POST_NORM_TENSORS,
    spec,
    ..super::FAMILY
};

const DEFAULTS: Defaults = Defaults { rope_theta: 500_000.0, sliding_rope: Some((500_000.0, None)), ..olmo2::DEFAULTS };

fn config(spec: &ModelSpec) -> Value {
    let mut config = windows(spec);
    config["attention_bias"] = json!(spec.biases().0.qkv);
    config
}

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    let mut spec = olmo2::post_norm(family, settings, &DEFAULTS, Over::Row)?;
    let window = sliding_window(settings, Some(4096))?;
    let slides = slide_but_every(&mut spec, settings, window, (FIXED_PATTERN, 4))?;
    spec.turn_by_type(&slides);
    Ok(spec)
}
