//! GPT-2: layer norms, biases everywhere, a vector for each position instead of turning, a feed-forward network without a gate,
//! and Q, K and V in one tensor. Matrices are stored by columns (the `Conv1D` of transformers).

use super::*;

const QKV: &str = "attn.c_attn";

pub(super) static FAMILY: Family = Family {
    name: "gpt2",
    class: "GPT2LMHeadModel",
    config_class: "GPT2Config",
    package: "gpt2",
    // llama.cpp's converter asks for that key, which nobody else reads.
    gguf: biased(gguf("gpt2", &DEFAULTS, |spec| json!({"n_ctx": spec.max_positions})), Biases::All),
    key_names: &[
        (HIDDEN_SIZE.hf, "n_embd"),
        (POSITIONS.hf, "n_positions"),
        (HEADS.hf, "n_head"),
        (LAYERS.hf, "n_layer"),
    ],
    layers: "transformer.h",
    tensors: &[
        tensor(Role::Embedding, "transformer.wte", "token_embd"),
        tensor(Role::Positions, "transformer.wpe", "position_embd"),
        tensor(Role::FinalNorm, "transformer.ln_f", "output_norm"),
        HEAD,
        tensor(Role::AttentionNorm, "ln_1", "attn_norm"),
        tensor(Role::Query, QKV, "attn_qkv").transposed(),
        tensor(Role::Key, QKV, "attn_qkv").transposed(),
        tensor(Role::Value, QKV, "attn_qkv").transposed(),
        tensor(Role::AttentionOut, "attn.c_proj", "attn_output").transposed(),
        tensor(Role::FeedForwardNorm, "ln_2", "ffn_norm"),
        tensor(Role::Up, "mlp.c_fc", "ffn_up").transposed(),
        tensor(Role::Down, "mlp.c_proj", "ffn_down").transposed(),
    ],
    spec,
};

const DEFAULTS: Defaults = Defaults {
    kv_heads_key: NO_KEY,
    inner_key: key("n_inner", "feed_forward_length"),
    inner_of_hidden: Some(4),
    norm_eps_key: key("layer_norm_epsilon", "attention.layer_norm_epsilon"),
    max_positions: 1024,
    tied: true,
    learned_positions: Some(0),
    activation: (key("activation_function", ""), &["gelu_new"], Activation::GeluTanh),
    gated: false,
    ..LAYER_NORM_DEFAULTS
};

const CROSS_ATTENTION: Key = key("add_cross_attention", "");
const SCALED: Key = key("scale_attn_weights", "");
const SCALED_BY_LAYER: Key = key("scale_attn_by_inverse_layer_idx", "");

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    refuse_if_set(settings, CROSS_ATTENTION, "there must be no second text that layers attend to")?;
    let mut spec = decoder(family, settings, &with_activation(settings, &DEFAULTS)?)?;
    spec.set_bias(AttentionBias { qkv: true, out: true }, true);
    let scaled = settings.flag(SCALED)?.unwrap_or(true);
    let by_layer = settings.flag(SCALED_BY_LAYER)?.unwrap_or(false);
    spec.each_attention(|layer, attention| {
        let scale = if scaled { attention.scale } else { 1.0 };
        attention.scale = if by_layer { scale / (layer + 1) as f32 } else { scale };
    });
    Ok(spec)
}
