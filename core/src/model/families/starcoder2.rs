//! StarCoder2: Llama with layer norms, biases everywhere, and a feed-forward network without a gate.

use super::*;

pub(super) static FAMILY: Family = Family {
    name: "starcoder2",
    class: "Starcoder2ForCausalLM",
    config_class: "Starcoder2Config",
    package: "starcoder2",
    gguf: biased(
        gguf_with("starcoder2", &DEFAULTS, &[SLIDING_WINDOW], |spec| {
            let window = spec.layers[0].attention.sliding_window;
            json!({"use_bias": spec.biases().1, "sliding_window": window})
        }),
        Biases::All,
    ),
    tensors: &[
        EMBEDDING,
        FINAL_NORM,
        HEAD,
        ATTENTION_NORM,
        QUERY,
        KEY,
        VALUE,
        ATTENTION_OUT,
        FEED_FORWARD_NORM,
        tensor(Role::Up, "mlp.c_fc", "ffn_up"),
        tensor(Role::Down, "mlp.c_proj", "ffn_down"),
    ],
    spec,
    ..super::FAMILY
};

const DEFAULTS: Defaults = Defaults {
    kv_heads: Some(2),
    norm_eps_key: key("norm_epsilon", "attention.layer_norm_epsilon"),
    max_positions: 4096,
    tied: true,
    activation: (HIDDEN_ACT, &["gelu_pytorch_tanh"], Activation::GeluTanh),
    gated: false,
    ..LAYER_NORM_DEFAULTS
};

const BIAS: Key = key("use_bias", "");

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    let mut spec = decoder(family, settings, &DEFAULTS)?;
    let bias = every_bias(settings, BIAS, true)?;
    spec.set_bias(AttentionBias { qkv: bias, out: bias }, bias);
    let window = sliding_window(settings, None)?;
    spec.set_sliding_window(window, |_| true);
    Ok(spec)
}
