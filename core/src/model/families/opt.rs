//! OPT: layer norms, biases, a vector for each position instead of turning, and a feed-forward network without a gate, whose
//! projections are in the layer itself.

use super::*;

pub(super) static FAMILY: Family = Family {
    name: "opt",
    class: "OPTForCausalLM",
    config_class: "OPTConfig",
    package: "opt",
    layers: "model.decoder.layers",
    tensors: &[
        tensor(Role::Embedding, "model.decoder.embed_tokens", ""),
        tensor(Role::Positions, "model.decoder.embed_positions", ""),
        tensor(Role::FinalNorm, "model.decoder.final_layer_norm", ""),
        HEAD,
        tensor(Role::AttentionNorm, "self_attn_layer_norm", ""),
        QUERY,
        KEY,
        VALUE,
        tensor(Role::AttentionOut, "self_attn.out_proj", ""),
        tensor(Role::FeedForwardNorm, "final_layer_norm", ""),
        tensor(Role::Up, "fc1", ""),
        tensor(Role::Down, "fc2", ""),
    ],
    spec,
    ..super::FAMILY
};

const DEFAULTS: Defaults = Defaults {
    kv_heads_key: NO_KEY,
    inner_key: key("ffn_dim", ""),
    norm_eps_key: NO_KEY,
    tied: true,
    // The first rows were meant for padding.
    learned_positions: Some(2),
    activation: (key("activation_function", ""), &["relu"], Activation::Relu),
    gated: false,
    ..LAYER_NORM_DEFAULTS
};

const NORM_BEFORE: Key = key("do_layer_norm_before", "");
const NO_FINAL_NORM: Key = key("_remove_final_layer_norm", "");
const NORM_WEIGHTS: Key = key("layer_norm_elementwise_affine", "");
const EMBEDDING_SIZE: Key = key("word_embed_proj_dim", "");
const BIAS: Key = key("enable_bias", "");

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    refuse_if_unset(
        settings,
        NORM_BEFORE,
        "norms must stand before the blocks that they belong to (as in all but opt-350m)",
    )?;
    refuse_if_set(settings, NO_FINAL_NORM, "there must be a norm after the last layer")?;
    refuse_if_unset(settings, NORM_WEIGHTS, "norms must have weights")?;
    let mut spec = decoder(family, settings, &with_activation(settings, &DEFAULTS)?)?;
    let size = settings.size(EMBEDDING_SIZE, most::WIDTH)?;
    if let Some(size) = size.filter(|size| *size != spec.hidden_size) {
        let supported = format!("the embedding must be as wide as the layers, {}", spec.hidden_size);
        return Err(settings.unsupported(EMBEDDING_SIZE, size.to_string(), &supported));
    }
    spec.set_bias(attention_bias(settings, BIAS, true)?, mlp_bias(settings, BIAS, true)?);
    Ok(spec)
}
