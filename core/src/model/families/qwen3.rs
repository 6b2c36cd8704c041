//! Qwen3: Llama with a norm over each head of Q and K, and the sliding windows of Qwen2.

use super::*;

pub(super) static FAMILY: Family = Family {
    name: "qwen3",
    class: "Qwen3ForCausalLM",
    config_class: "Qwen3Config",
    package: "qwen3",
    gguf: gguf("qwen3", &DEFAULTS, |spec| json!({"attention_bias": spec.biases().0.qkv, "use_sliding_window": false})),
    tensors: &[
        EMBEDDING,
        FINAL_NORM,
        HEAD,
        ATTENTION_NORM,
        QUERY,
        KEY,
        VALUE,
        QUERY_NORM,
        KEY_NORM,
        ATTENTION_OUT,
        FEED_FORWARD_NORM,
        GATE,
        UP,
        DOWN,
    ],
    spec,
    ..super::FAMILY
};

const DEFAULTS: Defaults =
    Defaults { kv_heads: Some(32), head_dim: Some(128), max_positions: 32_768, ..super::DEFAULTS };

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    let mut spec = decoder(family, settings, &DEFAULTS)?;
    spec.set_bias(attention_bias(settings, ATTENTION_BIAS, false)?, false);
    spec.set_qk_norm(Over::Head);
    qwen2::slide_upper_layers(&mut spec, settings)?;
    Ok(spec)
}
