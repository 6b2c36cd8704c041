//! Phi-1, 1.5 and 2: layer norms, biases everywhere, in the head too, a part of a head turned, and a feed-forward network
//! without a gate.
//!
//! Its layers are parallel, x += attention(norm(x)) + feed_forward(norm(x)): both blocks read the same norm, which stays until
//! both are gone.

use super::*;

pub(super) static FAMILY: Family = Family {
    name: "phi",
    class: "PhiForCausalLM",
    config_class: "PhiConfig",
    package: "phi",
    gguf: biased(gguf("phi2", &DEFAULTS, |_| json!({})), Biases::All),
    tensors: &[
        EMBEDDING,
        tensor(Role::FinalNorm, "model.final_layernorm", "output_norm"),
        HEAD,
        ATTENTION_NORM,
        QUERY,
        KEY,
        VALUE,
        tensor(Role::AttentionOut, "self_attn.dense", "attn_output"),
        SHARED_NORM,
        tensor(Role::Up, "mlp.fc1", "ffn_up"),
        tensor(Role::Down, "mlp.fc2", "ffn_down"),
    ],
    spec,
    ..super::FAMILY
};

const DEFAULTS: Defaults = Defaults {
    rotated: Some(0.5),
    activation: (HIDDEN_ACT, &["gelu_new"], Activation::GeluTanh),
    gated: false,
    ..LAYER_NORM_DEFAULTS
};

const QK_NORM: Key = key("qk_layernorm", "");

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    refuse_if_set(settings, QK_NORM, "queries and keys must not be normed")?;
    let mut spec = decoder(family, settings, &DEFAULTS)?;
    if spec.head.tied {
        let supported = "the head, which has a bias, must have a weight of its own";
        return Err(settings.unsupported(TIED, "true".to_string(), supported));
    }
    spec.set_bias(AttentionBias { qkv: true, out: true }, true);
    spec.head.bias = true;
    spec.set_parallel();
    Ok(spec)
}
