//! Falcon: layer norms, a feed-forward network without a gate, and Q, K and V in one tensor, each group of query heads before
//! the key and value head that it shares: in the 7B all heads share one, in the "new decoder architecture" there are several.
//!
//! Its layers are parallel, x += attention(norm(x)) + feed_forward(norm(x)), unless a key says otherwise. In the 7B, both blocks
//! read the same norm, which stays until both are gone; in the new architecture, each has its own and goes with it.
//!
//! With `alibi` (Falcon-RW) nothing is turned: the positions of keys bias their scores, in bf16 and before scaling, as
//! transformers computes it for models of any type.

use super::*;

pub(super) static FAMILY: Family =
    Family { tensors: &tensors(("input_layernorm", "attn_norm"), "input_layernorm"), ..FALCON };
static TWO_NORMS: Family = Family { tensors: &tensors(("ln_attn", OWN_NORM), "ln_mlp"), ..FALCON };
static SEQUENTIAL: Family =
    Family { tensors: &tensors(("input_layernorm", "attn_norm"), "post_attention_layernorm"), ..FALCON };

const FALCON: Family = Family {
    name: "falcon",
    class: "FalconForCausalLM",
    config_class: "FalconConfig",
    package: "falcon",
    gguf: biased(gguf("falcon", &DEFAULTS, config), Biases::None),
    layers: "transformer.h",
    spec,
    ..super::FAMILY
};

/// By the names of the norm before attention, and the Hugging Face name of the other one.
const fn tensors(attention_norm: (&'static str, &'static str), feed_forward_norm: &'static str) -> [Tensor; 11] {
    const QKV: &str = "self_attention.query_key_value";
    [
        tensor(Role::Embedding, "transformer.word_embeddings", "token_embd"),
        tensor(Role::FinalNorm, "transformer.ln_f", "output_norm"),
        HEAD,
        tensor(Role::AttentionNorm, attention_norm.0, attention_norm.1),
        tensor(Role::Query, QKV, "attn_qkv").grouped(),
        tensor(Role::Key, QKV, "attn_qkv").grouped(),
        tensor(Role::Value, QKV, "attn_qkv").grouped(),
        tensor(Role::AttentionOut, "self_attention.dense", "attn_output"),
        tensor(Role::FeedForwardNorm, feed_forward_norm, "attn_norm"),
        tensor(Role::Up, "mlp.dense_h_to_4h", "ffn_up"),
        tensor(Role::Down, "mlp.dense_4h_to_h", "ffn_down"),
    ]
}

const DEFAULTS: Defaults = Defaults {
    kv_heads_key: key("num_kv_heads", "attention.head_count_kv"),
    inner_key: key("ffn_hidden_size", "feed_forward_length"),
    inner_of_hidden: Some(4),
    norm_eps_key: key("layer_norm_epsilon", "attention.layer_norm_epsilon"),
    tied: true,
    activation: (key("activation", ""), &["gelu"], Activation::Gelu),
    gated: false,
    ..LAYER_NORM_DEFAULTS
};

/// The GGUF name of the norm before attention where that is not the one of both blocks.
const OWN_NORM: &str = "attn_norm_2";

const OLD_SIZE: Key = key("n_embed", "");
const ALIBI: Key = key("alibi", "");
const NEW_ARCHITECTURE: Key = key("new_decoder_architecture", "");
const MULTI_QUERY: Key = key("multi_query", "");
const PARALLEL_LAYERS: Key = key("parallel_attn", "");
const NORMS: Key = key("num_ln_in_parallel_attn", "");
const BIAS: Key = key("bias", "");

fn config(spec: &ModelSpec) -> Value {
    let norms = if spec.family.shared_norms().is_empty() { 2 } else { 1 };
    let new = norms == 2 || spec.layers[0].attention.kv_heads != 1;
    json!({
        "new_decoder_architecture": new, "multi_query": !new, "parallel_attn": true, "alibi": false,
        "num_ln_in_parallel_attn": norms, "bias": spec.biases().1,
    })
}

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    // Heads and norms tell which it is in GGUF files: all heads share one key head, or groups of them do.
    let own_norm = settings.first_layer_holds(OWN_NORM);
    let new = match own_norm {
        Some(own_norm) => own_norm || settings.size(DEFAULTS.kv_heads_key, most::HEADS)? != Some(1),
        None => settings.flag(NEW_ARCHITECTURE)?.unwrap_or(false),
    };
    // To transformers, a null is false.
    let flag = |key: Key| Ok::<_, ModelError>(settings.flag(key)?.unwrap_or(!settings.is_null(key)));
    let one = !new && flag(MULTI_QUERY)?;
    // The older key counts.
    let hidden_size_key = if settings.size(OLD_SIZE, most::WIDTH)?.is_some() { OLD_SIZE } else { HIDDEN_SIZE };
    let own = Defaults { hidden_size_key, ..DEFAULTS };
    let defaults = match (new || own_norm.is_some(), one) {
        (true, _) => own,
        (false, true) => Defaults { kv_heads_key: NO_KEY, kv_heads: Some(1), ..own },
        // Without sharing, the number of key heads has no meaning in config.json.
        (false, false) => Defaults { kv_heads_key: NO_KEY, ..own },
    };
    let mut spec = decoder(family, settings, &defaults)?;
    let bias = every_bias(settings, BIAS, false)?;
    spec.set_bias(AttentionBias { qkv: bias, out: bias }, bias);
    if settings.flag(ALIBI)?.unwrap_or(false) {
        spec.set_alibi(Alibi::Rounded);
    }
    let norms = settings.size(NORMS, 2)?.unwrap_or(if own_norm == Some(false) { 1 } else { 2 });
    match (flag(PARALLEL_LAYERS)?, new) {
        (true, _) => {
            spec.set_parallel();
            if new && norms == 2 {
                spec.family = &TWO_NORMS;
            }
        }
        (false, false) => spec.family = &SEQUENTIAL,
        (false, true) => {
            let supported = "layers of the new decoder architecture must be parallel";
            return Err(settings.unsupported(PARALLEL_LAYERS, "false".to_string(), supported));
        }
    }
    Ok(spec)
}
