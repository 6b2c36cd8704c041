//! SmolLM3: Llama, in which every fourth layer turns nothing by its position. Where windows slide, those layers do.

use super::*;

pub(super) static FAMILY: Family = Family {
    name: "smollm3",
    class: "SmolLM3ForCausalLM",
    config_class: "SmolLM3Config",
    package: "smollm3",
    gguf: gguf("smollm3", &DEFAULTS, config),
    tensors: INTERLEAVED_TENSORS,
    spec,
    ..super::FAMILY
};

const DEFAULTS: Defaults =
    Defaults { kv_heads: Some(4), max_positions: 32_768, tied: true, rope_theta: 2e6, ..super::DEFAULTS };

const NO_ROPE_LAYERS: Key = key("no_rope_layers", "");
const NO_ROPE_INTERVAL: Key = key("no_rope_layer_interval", "");

fn config(spec: &ModelSpec) -> Value {
    let turns = |layer: &Layer| (layer.attention.positions != Positions::None) as u8;
    json!({
        "attention_bias": spec.biases().0.qkv, "mlp_bias": spec.biases().1, "use_sliding_window": false,
        "no_rope_layers": spec.layers.iter().map(turns).collect::<Vec<_>>(),
    })
}

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    let mut spec = decoder(family, settings, &DEFAULTS)?;
    spec.set_bias(attention_bias(settings, ATTENTION_BIAS, false)?, mlp_bias(settings, MLP_BIAS, false)?);
    let turns = turning_layers(settings, spec.layers.len())?;
    spec.each_attention(|layer, attention| {
        attention.positions = if turns[layer] { Positions::Rope(0) } else { Positions::None };
    });
    if settings.has_defaults() {
        let window = sliding_window(settings, None)?;
        // Without a list of types: layers that are listed slide in any case.
        let slide = window.is_some() && settings.flag(USE_SLIDING_WINDOW)?.unwrap_or(false);
        slide_by_type(&mut spec, settings, window, |layer| slide && !turns[layer])?;
    }
    Ok(spec)
}

/// The layers that turn: despite its name, `no_rope_layers` says 1 for those that do.
fn turning_layers(settings: &dyn Settings, layers: usize) -> Result<Vec<bool>, ModelError> {
    let Some(list) = settings.list(NO_ROPE_LAYERS)? else {
        let interval = settings.size(NO_ROPE_INTERVAL, most::LAYERS)?.unwrap_or(4);
        return Ok((1..=layers).map(|layer| layer % interval != 0).collect());
    };
    let expected = || format!("a list of 0 and 1 for each of the {layers} layers");
    if list.len() < layers {
        return Err(settings.wrong(NO_ROPE_LAYERS, format!("a list of {}", list.len()), expected()));
    }
    let turns = |value: &serde_json::Value| match value.as_u64() {
        Some(number @ 0..=1) => Ok(number == 1),
        _ => Err(settings.wrong(NO_ROPE_LAYERS, shown(value), expected())),
    };
    list.iter().take(layers).map(turns).collect()
}
