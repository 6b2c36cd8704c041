//! GPT-NeoX and Pythia: layer norms, biases everywhere, a quarter of a head turned, a feed-forward network without a gate,
//! and Q, K and V in one tensor, head by head.
//!
//! Its layers are parallel, x += attention(norm_1(x)) + feed_forward(norm_2(x)), unless a key says otherwise: each block has a
//! norm of its own and goes with it.

use super::*;

const QKV: &str = "attention.query_key_value";

pub(super) static FAMILY: Family = Family {
    name: "gpt_neox",
    class: "GPTNeoXForCausalLM",
    config_class: "GPTNeoXConfig",
    package: "gpt_neox",
    gguf: biased(gguf_with("gptneox", &DEFAULTS, &[PARALLEL_LAYERS], config), Biases::All),
    layers: "gpt_neox.layers",
    tensors: &[
        tensor(Role::Embedding, "gpt_neox.embed_in", "token_embd"),
        tensor(Role::FinalNorm, "gpt_neox.final_layer_norm", "output_norm"),
        tensor(Role::Head, "embed_out", "output"),
        ATTENTION_NORM,
        tensor(Role::Query, QKV, "attn_qkv").grouped(),
        tensor(Role::Key, QKV, "attn_qkv").grouped(),
        tensor(Role::Value, QKV, "attn_qkv").grouped(),
        tensor(Role::AttentionOut, "attention.dense", "attn_output"),
        FEED_FORWARD_NORM,
        tensor(Role::Up, "mlp.dense_h_to_4h", "ffn_up"),
        tensor(Role::Down, "mlp.dense_4h_to_h", "ffn_down"),
    ],
    spec,
    ..super::FAMILY
};

const DEFAULTS: Defaults = Defaults {
    kv_heads_key: NO_KEY,
    rotated: Some(0.25),
    rope_keys: [THETA, SHARE],
    activation: (HIDDEN_ACT, &["gelu"], Activation::Gelu),
    gated: false,
    ..LAYER_NORM_DEFAULTS
};

const PARALLEL_LAYERS: Key = key("use_parallel_residual", "use_parallel_residual");
const THETA: &str = "rotary_emb_base";
const SHARE: &str = "rotary_pct";

fn config(spec: &ModelSpec) -> Value {
    let (layer, rope) = (&spec.layers[0], &spec.ropes[0]);
    json!({
        "use_parallel_residual": layer.parallel, "attention_bias": layer.attention.bias.qkv,
        SHARE: rope.share(layer.attention.head_dim), THETA: rope.theta,
    })
}

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    let mut spec = decoder(family, settings, &with_activation(settings, &DEFAULTS)?)?;
    spec.set_bias(attention_bias(settings, ATTENTION_BIAS, true)?, true);
    let parallel = settings.flag(PARALLEL_LAYERS)?;
    if parallel.is_none() && !settings.has_defaults() {
        return Err(settings.missing(PARALLEL_LAYERS, "true or false"));
    }
    if parallel.unwrap_or(true) {
        spec.set_parallel();
    }
    Ok(spec)
}
