//! Phi-3 and Phi-4: Llama with Q, K and V in one tensor, gate and up in another, and optionally a part of a head turned.
//!
//! A text that outgrows the positions of the first training is turned anew as a whole, as transformers does when generating.

use super::*;

pub(super) static FAMILY: Family = Family {
    name: "phi3",
    class: "Phi3ForCausalLM",
    config_class: "Phi3Config",
    package: "phi3",
    gguf: gguf_with("phi3", &DEFAULTS, &[SLIDING_WINDOW], config),
    tensors: &[
        EMBEDDING,
        FINAL_NORM,
        HEAD,
        ATTENTION_NORM,
        tensor(Role::Query, "self_attn.qkv_proj", "attn_qkv"),
        tensor(Role::Key, "self_attn.qkv_proj", "attn_qkv"),
        tensor(Role::Value, "self_attn.qkv_proj", "attn_qkv"),
        ATTENTION_OUT,
        FEED_FORWARD_NORM,
        tensor(Role::Gate, "mlp.gate_up_proj", "ffn_up"),
        tensor(Role::Up, "mlp.gate_up_proj", "ffn_up"),
        DOWN,
    ],
    spec,
    ..super::FAMILY
};

const DEFAULTS: Defaults = Defaults {
    norm_eps: 1e-5,
    max_positions: 4096,
    rotated: Some(1.0),
    original_max_positions: Some(4096),
    ..super::DEFAULTS
};

const SCALING: Key = key("rope_scaling", "rope.scaling.type");

fn config(spec: &ModelSpec) -> Value {
    let original = match spec.ropes[0].scaling {
        RopeScaling::LongRope { original_max_positions, .. } => original_max_positions,
        _ => spec.max_positions,
    };
    let window = spec.layers[0].attention.sliding_window;
    json!({"original_max_position_embeddings": original, "sliding_window": window})
}

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    let mut spec = decoder(family, settings, &DEFAULTS)?;
    // In this family's config.json that means longrope.
    if let RopeScaling::Yarn { .. } = spec.ropes[0].scaling {
        let supported = "frequencies may be scaled by tensors of factors, or by one factor for all";
        return Err(settings.unsupported(SCALING, "\"yarn\"".to_string(), supported));
    }
    spec.restarts_after = spec.ropes[0].longrope_switch();
    let window = sliding_window(settings, None)?;
    spec.set_sliding_window(window, |_| true);
    Ok(spec)
}
