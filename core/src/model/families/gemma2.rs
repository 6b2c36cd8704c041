//! Gemma 2: Gemma with norms after its blocks, too, capped scores and logits, and a sliding window in every other layer.
//!
//! x += post_norm(attention(norm(x))), x += post_norm(feed_forward(norm(x))): a block goes with the norms on both sides.

use super::*;

pub(super) static FAMILY: Family = Family {
    name: "gemma2",
    class: "Gemma2ForCausalLM",
    config_class: "Gemma2Config",
    package: "gemma2",
    gguf: gguf_with("gemma2", &DEFAULTS, &[SCORE_CAP, LOGIT_CAP, SLIDING_WINDOW], config),
    tensors: &[
        EMBEDDING,
        FINAL_NORM.plus_one(),
        HEAD,
        ATTENTION_NORM.plus_one(),
        QUERY,
        KEY,
        VALUE,
        ATTENTION_OUT,
        ATTENTION_POST_NORM,
        FEED_FORWARD_NORM,
        GATE,
        UP,
        DOWN,
        FEED_FORWARD_POST_NORM,
    ],
    spec,
    ..super::FAMILY
};

pub(super) const ATTENTION_POST_NORM: Tensor =
    tensor(Role::AttentionPostNorm, "post_attention_layernorm", "post_attention_norm").plus_one();
pub(super) const FEED_FORWARD_NORM: Tensor =
    tensor(Role::FeedForwardNorm, "pre_feedforward_layernorm", "ffn_norm").plus_one();
pub(super) const FEED_FORWARD_POST_NORM: Tensor =
    tensor(Role::FeedForwardPostNorm, "post_feedforward_layernorm", "post_ffw_norm").plus_one();

pub(super) const DEFAULTS: Defaults = Defaults {
    kv_heads: Some(4),
    head_dim: Some(256),
    max_positions: 8192,
    tied: true,
    activation: (key("hidden_activation", ""), &["gelu_pytorch_tanh"], Activation::GeluTanh),
    ..super::DEFAULTS
};

/// Layers of the 27B, whose files do not say either that its scores are scaled by another width.
const LARGEST: usize = 46;

fn config(spec: &ModelSpec) -> Value {
    let mut config = windows(spec);
    write_sandwich(&mut config, spec);
    config["attn_logit_softcapping"] = json!(spec.layers[0].attention.soft_cap);
    config
}

/// The keys of [`sandwich`].
pub(super) fn write_sandwich(config: &mut Value, spec: &ModelSpec) {
    config["attention_bias"] = json!(spec.biases().0.qkv);
    config["final_logit_softcapping"] = json!(spec.head.soft_cap);
    config["query_pre_attn_scalar"] = json!(f64::from(spec.layers[0].attention.scale).powi(-2).round() as u64);
}

const QUERY_SCALAR: Key = key("query_pre_attn_scalar", "");
const SCORE_CAP: Key = key("attn_logit_softcapping", "attn_logit_softcapping");
pub(super) const LOGIT_CAP: Key = key("final_logit_softcapping", "final_logit_softcapping");

fn spec(family: &'static Family, settings: &dyn Settings) -> Result<ModelSpec, ModelError> {
    let mut spec = sandwich(family, settings, &DEFAULTS, LARGEST)?;
    let cap = soft_cap(settings, SCORE_CAP, Some(50.0))?;
    spec.each_attention(|_, attention| attention.soft_cap = cap);
    spec.head.soft_cap = soft_cap(settings, LOGIT_CAP, Some(30.0))?;
    // GGUF files may leave the window out, too.
    let assumed = (!settings.has_defaults() && !settings.is_null(SLIDING_WINDOW)).then_some(4096);
    let window = sliding_window(settings, Some(4096))?.or(assumed);
    slide_but_every(&mut spec, settings, window, (FIXED_PATTERN, 2))?;
    Ok(spec)
}

/// What Gemma 2 and 3 have in common; `largest` is how many layers the largest of them has.
pub(super) fn sandwich(
    family: &'static Family,
    settings: &dyn Settings,
    defaults: &Defaults,
    largest: usize,
) -> Result<ModelSpec, ModelError> {
    refuse_bidirectional(settings)?;
    let mut spec = decoder(family, settings, defaults)?;
    spec.set_bias(attention_bias(settings, ATTENTION_BIAS, false)?, false);
    spec.each_branch(|branch| branch.post_norm = branch.norm);
    spec.embedding.scale = (spec.hidden_size as f32).sqrt();
    let Attention { heads, head_dim, .. } = spec.layers[0].attention;
    let assumed = match settings.has_defaults() {
        true => 256.0,
        false if spec.layers.len() == largest => (spec.hidden_size / heads) as f64,
        false => head_dim as f64,
    };
    let scalar = settings.positive(QUERY_SCALAR)?.unwrap_or(assumed);
    spec.each_attention(|_, attention| attention.scale = scalar.powf(-0.5) as f32);
    spec.head.soft_cap = soft_cap(settings, LOGIT_CAP, None)?;
    Ok(spec)
}

/// A null is no cap.
fn soft_cap(settings: &dyn Settings, key: Key, default: Option<f64>) -> Result<Option<f32>, ModelError> {
    let default = default.filter(|_| !settings.is_null(key));
    Ok(settings.positive(key)?.or(default).map(|cap| cap as f32))
}
