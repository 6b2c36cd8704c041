//! Gemma 3, text only: Gemma 2 with a norm over each head of Q and K instead of capped scores, and full attention in every
//! sixth layer, which turns by another rotary embedding than the layers that slide.

use super::*;

pub(super) static FAMILY: Family = Family {
    name: "gemma3_text",
    class: "Gemma3ForCausalLM",
    config_class: "Gemma3TextConfig",
    package: "gemma3",
    gguf: None,
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
};

const DEFAULTS: Defaults = Defaults { max_positions: 131_072, rope_theta: 1e6, ..gemma2::DEFAULTS };

const PATTERN: Key = key("sliding_window_pattern", "");
const SLIDING_THETA: Key = key("rope_local_base_freq", "");

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    let mut spec = gemma2::sandwich(family, settings, &DEFAULTS)?;
    spec.set_qk_norm(Over::Head);
    let window = sliding_window(settings, Some(4096))?;
    let pattern = settings.size(PATTERN, most::LAYERS)?.unwrap_or(6);
    let slides = slide_by_type(&mut spec, settings, window, |layer| (layer + 1) % pattern != 0)?;
    set_ropes_by_type(&mut spec, settings, &DEFAULTS, (10_000.0, Some(SLIDING_THETA)), &slides)?;
    Ok(spec)
}

/// Layers that slide turn by the second rotary embedding, whose base is the default or what a key says.
pub(super) fn set_ropes_by_type(
    spec: &mut ModelSpec,
    settings: &dyn Settings,
    defaults: &Defaults,
    (sliding_theta, sliding_key): (f64, Option<Key>),
    slides: &[bool],
) -> Result<(), ModelError> {
    let head_dim = spec.layers[0].attention.head_dim;
    let full = rope_request(defaults, head_dim, spec.max_positions);
    let sliding = RopeRequest { theta: sliding_theta, ..full };
    spec.ropes = settings.ropes_by_layer_type(&full, &sliding, sliding_key)?.into();
    spec.each_attention(|layer, attention| attention.positions = Positions::Rope(slides[layer] as usize));
    Ok(())
}
