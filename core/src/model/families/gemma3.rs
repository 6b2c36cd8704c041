//! Gemma 3, text only: Gemma 2 with a norm over each head of Q and K instead of capped scores, and full attention in every
//! sixth layer, which turns by another rotary embedding than the layers that slide.

use super::*;

pub(super) static FAMILY: Family = Family {
    name: "gemma3_text",
    class: "Gemma3ForCausalLM",
    config_class: "Gemma3TextConfig",
    package: "gemma3",
    gguf: gguf_with("gemma3", &DEFAULTS, &[gemma2::LOGIT_CAP, SLIDING_WINDOW], config),
    tensors: &[
        EMBEDDING,
        FINAL_NORM.plus_one(),
        HEAD,
        ATTENTION_NORM.plus_one(),
        QUERY,
        KEY,
        VALUE,
        QUERY_NORM.plus_one(),
        KEY_NORM.plus_one(),
        ATTENTION_OUT,
        gemma2::ATTENTION_POST_NORM,
        gemma2::FEED_FORWARD_NORM,
        GATE,
        UP,
        DOWN,
        gemma2::FEED_FORWARD_POST_NORM,
    ],
    spec,
    ..super::FAMILY
};

const DEFAULTS: Defaults = Defaults {
    max_positions: 131_072,
    rope_theta: 1e6,
    sliding_rope: Some((10_000.0, Some(SLIDING_THETA))),
    ..gemma2::DEFAULTS
};

const SLIDING_THETA: Key = key("rope_local_base_freq", "");
/// Layers of the 27B.
const LARGEST: usize = 62;

fn config(spec: &ModelSpec) -> Value {
    let mut config = windows(spec);
    gemma2::write_sandwich(&mut config, spec);
    config[SLIDING_THETA.hf] = json!(spec.ropes[1].theta);
    config
}

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    let mut spec = gemma2::sandwich(family, settings, &DEFAULTS, LARGEST)?;
    spec.set_qk_norm(Over::Head);
    let window = sliding_window(settings, Some(4096))?;
    let slides = slide_but_every(&mut spec, settings, window, (PATTERN, 6))?;
    spec.turn_by_type(&slides);
    Ok(spec)
}
