//! Llama, and everything published under its name.
//!
//! x += attention(norm(x)), x += feed_forward(norm(x)): a block goes with the norm before it.

use serde_json::json;

use super::super::family::{Container, Gguf};
use super::*;

pub(super) static FAMILY: Family = Family {
    name: "llama",
    class: "LlamaForCausalLM",
    config_class: "LlamaConfig",
    package: "llama",
    gguf: Some(Gguf {
        architecture: "llama",
        config: |spec| {
            let layer = &spec.layers[0];
            json!({"attention_bias": layer.attention.bias.qkv, "mlp_bias": layer.dense().bias})
        },
    }),
    tensors: &[
        EMBEDDING,
        FINAL_NORM,
        HEAD,
        ATTENTION_NORM,
        QUERY.interleaved(Container::Gguf),
        KEY.interleaved(Container::Gguf),
        VALUE,
        ATTENTION_OUT,
        FEED_FORWARD_NORM,
        GATE,
        UP,
        DOWN,
    ],
    spec,
    ..super::FAMILY
};

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    let mut spec = decoder(family, settings, &DEFAULTS)?;
    let bias = attention_bias(settings, ATTENTION_BIAS, false)?;
    if bias.qkv != bias.out {
        let found =
            if bias.qkv { "a bias of Q, K or V without one of O" } else { "a bias of O without those of Q, K and V" };
        return Err(settings.unsupported(
            ATTENTION_BIAS,
            found.to_string(),
            "a llama has all four attention biases or none",
        ));
    }
    spec.set_bias(bias, mlp_bias(settings, MLP_BIAS, false)?);
    Ok(spec)
}
