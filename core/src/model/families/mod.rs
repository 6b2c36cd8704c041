//! The model families, one file each, and what they have in common.
//!
//! A family's file says which of Llama's settings and tensors it takes over and what it does in another way. Settings mean
//! what they mean to Hugging Face transformers; what would change the result and is not built is refused by name.

mod baichuan;
mod cohere2;
pub(crate) mod deci;
mod ernie4_5;
pub(crate) mod exaone4;
mod falcon;
mod gemma;
mod gemma2;
mod gemma3;
mod glm4;
mod gpt2;
mod gpt_neox;
mod granite;
mod llama;
mod ministral;
mod mistral;
mod nemotron;
mod olmo2;
mod olmo3;
mod opt;
mod phi;
mod phi3;
mod qwen2;
mod qwen3;
mod seed_oss;
mod smollm3;
mod stablelm;
mod starcoder2;

use serde_json::{Value, json};

use super::config::most;
use super::error::{ModelError, shown};
use super::family::{Biases, Container, Family, Gguf, Role, Tensor, tensor};
use super::gguf::shortest;
use super::rope::{self, RopeRequest, RopeScaling, RopeSpec};
use super::settings::{Key, Settings, key};
use super::spec::{
    Activation, Alibi, Attention, AttentionBias, Branch, Dense, Embedding, FeedForward, Head, Layer, LearnedPositions,
    ModelSpec, Norm, NormKind, Over, Positions, QkNorm,
};

/// All families that are supported, from near to far.
pub static ALL: &[&Family] = &[
    &llama::FAMILY,
    &qwen2::FAMILY,
    &mistral::FAMILY,
    &ministral::FAMILY,
    &qwen3::FAMILY,
    &smollm3::FAMILY,
    &granite::FAMILY,
    &seed_oss::FAMILY,
    &ernie4_5::FAMILY,
    &gemma::FAMILY,
    &gemma2::FAMILY,
    &gemma3::FAMILY,
    &phi3::FAMILY,
    &olmo2::FAMILY,
    &olmo3::FAMILY,
    &glm4::FAMILY,
    &exaone4::FAMILY,
    &starcoder2::FAMILY,
    &nemotron::FAMILY,
    &stablelm::FAMILY,
    &cohere2::FAMILY,
    &phi::FAMILY,
    &gpt_neox::FAMILY,
    &falcon::FAMILY,
    &gpt2::FAMILY,
    &opt::FAMILY,
    &baichuan::FAMILY,
];

/// What only GGUF files are called, beside those: such a model is read as one of these.
pub(super) static ONLY_GGUF: &[&Family] = &[&deci::FAMILY];

/// A family of [`ALL`], by its name.
pub(crate) fn named(name: &str) -> Option<&'static Family> {
    ALL.iter().copied().find(|family| family.name == name)
}

/// What a family's file need not say.
const FAMILY: Family = Family {
    name: "",
    class: "",
    config_class: "",
    package: "",
    key_names: &[],
    layers: "model.layers",
    gguf: None,
    tensors: LLAMA_TENSORS,
    spec: |family, settings| decoder(family, settings, &DEFAULTS),
};

/// How GGUF files hold a family that has an architecture of its own.
const fn gguf(
    architecture: &'static str,
    defaults: &'static Defaults,
    config: fn(&ModelSpec) -> Value,
) -> Option<Gguf> {
    gguf_with(architecture, defaults, &[], config)
}

/// The same of a family whose files state settings that not all families have.
const fn gguf_with(
    architecture: &'static str,
    defaults: &'static Defaults,
    keys: &'static [Key],
    config: fn(&ModelSpec) -> Value,
) -> Option<Gguf> {
    let (biases, whole_width) = (Biases::Queries, false);
    Some(Gguf { architecture, marked_by: None, by_layer: false, defaults, biases, whole_width, keys, config })
}

/// The same with other biases than those of Q, K and V.
const fn biased(gguf: Option<Gguf>, biases: Biases) -> Option<Gguf> {
    match gguf {
        Some(gguf) => Some(Gguf { biases, ..gguf }),
        None => None,
    }
}

/// The same with heads that are together as wide as the states.
const fn whole_width(gguf: Option<Gguf>) -> Option<Gguf> {
    match gguf {
        Some(gguf) => Some(Gguf { whole_width: true, ..gguf }),
        None => None,
    }
}

pub(super) const HIDDEN_SIZE: Key = key("hidden_size", "embedding_length");
pub(super) const INNER: Key = key("intermediate_size", "feed_forward_length");
pub(crate) const LAYERS: Key = key("num_hidden_layers", "block_count");
pub(super) const HEADS: Key = key("num_attention_heads", "attention.head_count");
pub(super) const KV_HEADS: Key = key("num_key_value_heads", "attention.head_count_kv");
pub(super) const HEAD_DIM: Key = key("head_dim", "attention.key_length");
pub(super) const POSITIONS: Key = key("max_position_embeddings", "context_length");
pub(super) const NORM_EPS: Key = key("rms_norm_eps", "attention.layer_norm_rms_epsilon");
pub(super) const EXPERTS: Key = key("num_local_experts", "expert_count");
const ATTENTION_BIAS: Key = key("attention_bias", "");
const MLP_BIAS: Key = key("mlp_bias", "");
const HIDDEN_ACT: Key = key("hidden_act", "");
const SLIDING_WINDOW: Key = key("sliding_window", "attention.sliding_window");
const USE_SLIDING_WINDOW: Key = key("use_sliding_window", "");
/// In GGUF a list, or the number of layers after which one does not slide.
pub(crate) const LAYER_TYPES: Key = key("layer_types", "attention.sliding_window_pattern");
/// The number of layers after which one does not slide.
const PATTERN: Key = key("sliding_window_pattern", LAYER_TYPES.gguf);
/// The same of families whose configurations do not say.
const FIXED_PATTERN: Key = key("", LAYER_TYPES.gguf);
const CAUSAL: Key = key("is_causal", "attention.causal");
const BIDIRECTIONAL: Key = key("use_bidirectional_attention", "");
const TIED: Key = key("tie_word_embeddings", "");
/// A setting that a family has no key for.
const NO_KEY: Key = key("", "");

/// Llama's tensors, which most families have.
const EMBEDDING: Tensor = tensor(Role::Embedding, "model.embed_tokens", "token_embd");
const FINAL_NORM: Tensor = tensor(Role::FinalNorm, "model.norm", "output_norm");
const HEAD: Tensor = tensor(Role::Head, "lm_head", "output");
const ATTENTION_NORM: Tensor = tensor(Role::AttentionNorm, "input_layernorm", "attn_norm");
const QUERY: Tensor = tensor(Role::Query, "self_attn.q_proj", "attn_q");
const KEY: Tensor = tensor(Role::Key, "self_attn.k_proj", "attn_k");
const VALUE: Tensor = tensor(Role::Value, "self_attn.v_proj", "attn_v");
const QUERY_NORM: Tensor = tensor(Role::QueryNorm, "self_attn.q_norm", "attn_q_norm");
const KEY_NORM: Tensor = tensor(Role::KeyNorm, "self_attn.k_norm", "attn_k_norm");
const ATTENTION_OUT: Tensor = tensor(Role::AttentionOut, "self_attn.o_proj", "attn_output");
const FEED_FORWARD_NORM: Tensor = tensor(Role::FeedForwardNorm, "post_attention_layernorm", "ffn_norm");
const GATE: Tensor = tensor(Role::Gate, "mlp.gate_proj", "ffn_gate");
const UP: Tensor = tensor(Role::Up, "mlp.up_proj", "ffn_up");
const DOWN: Tensor = tensor(Role::Down, "mlp.down_proj", "ffn_down");

/// Those of a family that has just them, though Q, K and V or the norm of the feed-forward block may be kept in another way.
const fn llama_tensors([query, key, value]: [Tensor; 3], feed_forward_norm: Tensor) -> [Tensor; 12] {
    [EMBEDDING, FINAL_NORM, HEAD, ATTENTION_NORM, query, key, value, ATTENTION_OUT, feed_forward_norm, GATE, UP, DOWN]
}

/// Q, K and V, with the rows of Q and K in a container as for turning neighbouring elements.
const fn interleaved(container: Container) -> [Tensor; 3] {
    [QUERY.interleaved(container), KEY.interleaved(container), VALUE]
}

const LLAMA_TENSORS: &[Tensor] = &llama_tensors([QUERY, KEY, VALUE], FEED_FORWARD_NORM);

/// The same, with the rows of Q and K in GGUF files as Llama's.
const INTERLEAVED_TENSORS: &[Tensor] = &llama_tensors(interleaved(Container::Gguf), FEED_FORWARD_NORM);

/// The norm that the feed-forward block of a parallel layer reads, too.
const SHARED_NORM: Tensor = tensor(Role::FeedForwardNorm, ATTENTION_NORM.hf, ATTENTION_NORM.gguf);

/// What a family's configuration class assumes for keys that are left out, and how it calls those that families call
/// differently.
#[derive(Clone, Copy)]
pub(crate) struct Defaults {
    hidden_size_key: Key,
    pub kv_heads_key: Key,
    /// None: as many as heads.
    kv_heads: Option<usize>,
    /// None: the hidden size over the heads.
    pub head_dim: Option<usize>,
    pub inner_key: Key,
    /// So many times the hidden size; None: the key has to be there.
    inner_of_hidden: Option<usize>,
    pub norm_eps_key: Key,
    norm_eps: f64,
    /// What a norm divides by, and whether it has a bias.
    norm: (NormKind, bool),
    max_positions: usize,
    tied: bool,
    rope_theta: f64,
    /// The share of a head that is turned, if a configuration may say.
    pub rotated: Option<f64>,
    /// What it calls the base and the share.
    rope_keys: [&'static str; 2],
    /// The base for layers that slide, and the key that may give it, where they turn by another rotary embedding.
    sliding_rope: Option<(f64, Option<Key>)>,
    /// Where positions are vectors that are added to the embedding, instead of turning queries and keys: the table's rows before
    /// the first.
    learned_positions: Option<usize>,
    /// `original_max_position_embeddings`, if there is always one.
    original_max_positions: Option<usize>,
    /// Which key names the activation, and the names that it may have beside those that it has everywhere, its usual one first.
    pub activation: (Key, &'static [&'static str], Activation),
    /// Whether that gates another product.
    gated: bool,
}

/// Those of `LlamaConfig`.
const DEFAULTS: Defaults = Defaults {
    hidden_size_key: HIDDEN_SIZE,
    kv_heads_key: KV_HEADS,
    kv_heads: None,
    head_dim: None,
    inner_key: INNER,
    inner_of_hidden: None,
    norm_eps_key: NORM_EPS,
    norm_eps: 1e-6,
    norm: (NormKind::Rms, false),
    max_positions: 2048,
    tied: false,
    rope_theta: 10_000.0,
    rotated: None,
    rope_keys: rope::KEYS,
    sliding_rope: None,
    learned_positions: None,
    original_max_positions: None,
    activation: (HIDDEN_ACT, &["silu", "swish"], Activation::Silu),
    gated: true,
};

/// Those of families with layer norms.
const LAYER_NORM_DEFAULTS: Defaults = Defaults {
    norm_eps: 1e-5,
    norm_eps_key: key("layer_norm_eps", "attention.layer_norm_epsilon"),
    norm: (NormKind::Layer, true),
    ..DEFAULTS
};

/// A model as Llama is, without biases, from the settings that all families have.
fn decoder(family: &'static Family, settings: &dyn Settings, defaults: &Defaults) -> Result<ModelSpec, ModelError> {
    // To transformers, a null is false here.
    if settings.is_null(CAUSAL) {
        return Err(settings.unsupported(CAUSAL, "null".to_string(), LOOKS_BACK));
    }
    refuse_if_unset(settings, CAUSAL, LOOKS_BACK)?;
    check_activation(settings, defaults)?;
    let hidden_size = settings.required_size(defaults.hidden_size_key, most::WIDTH)?;
    let layers = settings.required_size(LAYERS, most::LAYERS)?;
    let max_positions = match settings.has_defaults() {
        true => settings.size(POSITIONS, most::POSITIONS)?.unwrap_or(defaults.max_positions),
        false => settings.required_size(POSITIONS, most::POSITIONS)?,
    };
    let eps = stated(settings, defaults.norm_eps_key, defaults.norm_eps)?;
    let (heads, kv_heads, head_dim) = heads(settings, hidden_size, defaults)?;
    let (kind, bias) = defaults.norm;
    let norm = Norm { kind, eps: eps as f32, bias };
    let branch = Branch { norm: Some(norm), post_norm: None, scale: 1.0 };
    let attention = Attention {
        branch,
        heads,
        kv_heads,
        head_dim,
        bias: AttentionBias::default(),
        qk_norm: None,
        positions: if defaults.learned_positions.is_some() { Positions::None } else { Positions::Rope(0) },
        scale: 1.0 / (head_dim as f32).sqrt(),
        soft_cap: None,
        sliding_window: None,
    };
    let inner = match (settings.size(defaults.inner_key, most::WIDTH)?, defaults.inner_of_hidden) {
        (Some(inner), _) => inner,
        (None, Some(times)) if settings.has_defaults() => times * hidden_size,
        (None, _) => settings.required_size(defaults.inner_key, most::WIDTH)?,
    };
    let (.., activation) = defaults.activation;
    let feed_forward = match settings.count(EXPERTS)?.unwrap_or(0) {
        0 => FeedForward::Dense(Dense { branch, inner, activation, gated: defaults.gated, bias: false }),
        count => FeedForward::Experts { count },
    };
    let (bos_token_id, eos_token_ids) = settings.special_tokens()?;
    Ok(ModelSpec {
        family,
        hidden_size,
        vocab_size: settings.vocab_size()?,
        max_positions,
        embedding: Embedding {
            scale: 1.0,
            positions: defaults.learned_positions.map(|offset| LearnedPositions { offset }),
        },
        layers: vec![Layer { attention, feed_forward, parallel: false }; layers],
        final_norm: norm,
        head: Head {
            tied: settings.is_tied(defaults.tied)?,
            bias: false,
            unit_rows: false,
            scale: 1.0,
            soft_cap: None,
        },
        ropes: ropes(settings, defaults, head_dim, max_positions)?,
        restarts_after: None,
        absent: settings.absent(family, layers)?,
        bos_token_id,
        eos_token_ids,
    })
}

/// The rotary embedding of all layers, or those of layers with full and with sliding attention.
fn ropes(
    settings: &dyn Settings,
    defaults: &Defaults,
    head_dim: usize,
    max_positions: usize,
) -> Result<Vec<RopeSpec>, ModelError> {
    let (theta, rotated) = (defaults.rope_theta, defaults.rotated);
    let original_max_positions = defaults.original_max_positions;
    let full =
        RopeRequest { head_dim, max_positions, theta, rotated, keys: defaults.rope_keys, original_max_positions };
    Ok(match defaults.sliding_rope {
        _ if defaults.learned_positions.is_some() => Vec::new(),
        None => vec![settings.rope(&full)?],
        Some((theta, key)) => settings.ropes_by_layer_type(&full, &RopeRequest { theta, ..full }, key)?.into(),
    })
}

/// What transformers calls activations: the same by several names.
const ACTIVATIONS: [(&[&str], Activation); 4] = [
    (&["gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate", "gelu_python_tanh"], Activation::GeluTanh),
    (&["gelu", "gelu_python"], Activation::Gelu),
    (&["relu"], Activation::Relu),
    (&["silu", "swish"], Activation::Silu),
];

/// These defaults with the activation that a key names.
fn with_activation(settings: &dyn Settings, defaults: &Defaults) -> Result<Defaults, ModelError> {
    let (key, ..) = defaults.activation;
    let Some(name) = settings.text(key)? else { return Ok(*defaults) };
    let Some((names, function)) = ACTIVATIONS.into_iter().find(|(names, _)| names.contains(&name)) else {
        let known: Vec<&str> = ACTIVATIONS.iter().flat_map(|(names, _)| *names).copied().collect();
        let supported = format!("the feed-forward activation must be one of {}", known.join(", "));
        return Err(settings.unsupported(key, format!("{name:?}"), &supported));
    };
    Ok(Defaults { activation: (key, names, function), ..*defaults })
}

fn check_activation(settings: &dyn Settings, defaults: &Defaults) -> Result<(), ModelError> {
    let (key, names, function) = defaults.activation;
    let same = |name: &str| ACTIVATIONS.iter().any(|(names, other)| *other == function && names.contains(&name));
    match settings.text(key)? {
        Some(name) if !names.contains(&name) && !same(name) => {
            let supported = format!("the feed-forward activation must be {}", names[0]);
            Err(settings.unsupported(key, format!("{name:?}"), &supported))
        }
        _ => Ok(()),
    }
}

/// A number that config.json may leave out, and that a GGUF file has to state.
fn stated(settings: &dyn Settings, key: Key, default: f64) -> Result<f64, ModelError> {
    match settings.positive(key)? {
        Some(number) => Ok(number),
        None if settings.has_defaults() => Ok(default),
        None => Err(settings.missing(key, "a number greater than 0")),
    }
}

/// Query heads, key/value heads and the width of a head.
fn heads(
    settings: &dyn Settings,
    hidden_size: usize,
    defaults: &Defaults,
) -> Result<(usize, usize, usize), ModelError> {
    let heads = settings.required_size(HEADS, most::HEADS)?;
    // A null means as many as heads; what a missing key means depends on the family.
    let assumed = |key, default: Option<usize>| default.filter(|_| settings.has_defaults() && !settings.is_null(key));
    let kv_heads = settings.size(defaults.kv_heads_key, most::HEADS)?;
    let kv_heads = kv_heads.or(assumed(defaults.kv_heads_key, defaults.kv_heads)).unwrap_or(heads);
    if heads % kv_heads != 0 {
        let expected = format!("a divisor of the {heads} heads");
        return Err(settings.wrong(defaults.kv_heads_key, kv_heads.to_string(), expected));
    }
    // Where positions are a table, all heads together are as wide as the states, and config.json has no other width.
    let whole_width = defaults.learned_positions.is_some();
    let is_said = !whole_width || !settings.has_defaults();
    let said = if is_said { settings.size(HEAD_DIM, most::HEAD_DIM)? } else { None };
    let head_dim = match said.or(assumed(HEAD_DIM, defaults.head_dim)) {
        Some(head_dim) => head_dim,
        None if hidden_size.is_multiple_of(heads) && hidden_size / heads <= most::HEAD_DIM => hidden_size / heads,
        None => {
            let expected = format!("a multiple of the {heads} heads, or a width of heads (at most {})", most::HEAD_DIM);
            return Err(settings.wrong(defaults.hidden_size_key, hidden_size.to_string(), expected));
        }
    };
    if whole_width && heads * head_dim != hidden_size {
        let supported = format!("the {heads} heads together must be as wide as the states, {hidden_size}");
        return Err(settings.unsupported(HEAD_DIM, head_dim.to_string(), &supported));
    }
    match said {
        _ if head_dim % 2 == 0 => Ok((heads, kv_heads, head_dim)),
        None => {
            let found = format!("{hidden_size}, and each of the {heads} heads {head_dim} wide");
            Err(settings.unsupported(defaults.hidden_size_key, found, "the width of a head must be even"))
        }
        Some(_) => Err(settings.unsupported(HEAD_DIM, head_dim.to_string(), "the width of a head must be even")),
    }
}

/// Whether queries, keys and values have a bias, by a key and its default.
fn qkv_bias(settings: &dyn Settings, key: Key, default: bool) -> Result<bool, ModelError> {
    settings.has_bias(Some(key), default, &[Role::Query, Role::Key, Role::Value])
}

/// Whether the output projection of attention has one.
fn out_bias(settings: &dyn Settings, key: Key, default: bool) -> Result<bool, ModelError> {
    settings.has_bias(Some(key), default, &[Role::AttentionOut])
}

/// Whether all four projections of attention have one.
fn attention_bias(settings: &dyn Settings, key: Key, default: bool) -> Result<AttentionBias, ModelError> {
    let bias = AttentionBias { qkv: qkv_bias(settings, key, default)?, out: out_bias(settings, key, default)? };
    if bias.qkv == bias.out {
        return Ok(bias);
    }
    // Only tensors can say so.
    let (there, missing) = if bias.qkv { ("Q, K or V", "O") } else { ("O", "those of Q, K and V") };
    let found = format!("a bias of {there} without {}{missing}", if bias.qkv { "one of " } else { "" });
    Err(settings.unsupported(key, found, "the family has all four attention biases or none"))
}

/// Whether all projections of attention and of the feed-forward network have one.
fn every_bias(settings: &dyn Settings, key: Key, default: bool) -> Result<bool, ModelError> {
    let (attention, mlp) = (attention_bias(settings, key, default)?.qkv, mlp_bias(settings, key, default)?);
    if attention != mlp {
        let found = format!("one in {} only", if attention { "attention" } else { "the feed-forward network" });
        return Err(settings.unsupported(key, found, "all projections of a layer must have a bias or none"));
    }
    Ok(attention)
}

/// Whether all projections of the feed-forward network have one.
fn mlp_bias(settings: &dyn Settings, key: Key, default: bool) -> Result<bool, ModelError> {
    settings.has_bias(Some(key), default, &[Role::Gate, Role::Up, Role::Down])
}

impl ModelSpec {
    /// Those of the first layer's projections, attention's and the feed-forward network's.
    fn biases(&self) -> (AttentionBias, bool) {
        let first = self.layers.first();
        first.map_or_else(Default::default, |layer| (layer.attention.bias, layer.dense().bias))
    }

    fn each_attention(&mut self, mut change: impl FnMut(usize, &mut Attention)) {
        self.layers.iter_mut().enumerate().for_each(|(index, layer)| change(index, &mut layer.attention));
    }

    fn each_dense(&mut self, mut change: impl FnMut(&mut Dense)) {
        for layer in &mut self.layers {
            if let FeedForward::Dense(dense) = &mut layer.feed_forward {
                change(dense);
            }
        }
    }

    fn each_branch(&mut self, mut change: impl FnMut(&mut Branch)) {
        self.each_attention(|_, attention| change(&mut attention.branch));
        self.each_dense(|dense| change(&mut dense.branch));
    }

    fn set_bias(&mut self, bias: AttentionBias, mlp: bool) {
        self.each_attention(|_, attention| attention.bias = bias);
        self.each_dense(|dense| dense.bias = mlp);
    }

    /// Both blocks of a layer read its input.
    fn set_parallel(&mut self) {
        self.layers.iter_mut().for_each(|layer| layer.parallel = true);
    }

    /// Layers that slide turn by the second rotary embedding.
    fn turn_by_type(&mut self, slides: &[bool]) {
        self.each_attention(|layer, attention| attention.positions = Positions::Rope(slides[layer] as usize));
    }

    /// Positions bias the scores instead of turning queries and keys.
    fn set_alibi(&mut self, alibi: Alibi) {
        self.ropes.clear();
        self.each_attention(|_, attention| attention.positions = Positions::Alibi(alibi));
    }

    /// Queries and keys are normalised before they are turned.
    fn set_qk_norm(&mut self, over: Over) {
        let norm = self.final_norm;
        self.each_attention(|_, attention| attention.qk_norm = Some(QkNorm { norm, over }));
    }

    /// Layers for which `slides` see a window only.
    fn set_sliding_window(&mut self, window: Option<usize>, slides: impl Fn(usize) -> bool) {
        let window = window.map(|window| window as u32);
        self.each_attention(|layer, attention| attention.sliding_window = window.filter(|_| slides(layer)));
    }
}

/// The keys that a query of a sliding layer sees; None if none slides, as in a GGUF file that does not say.
fn sliding_window(settings: &dyn Settings, default: Option<usize>) -> Result<Option<usize>, ModelError> {
    if settings.is_null(SLIDING_WINDOW) {
        return Ok(None);
    }
    match settings.size(SLIDING_WINDOW, usize::MAX)?.or(default.filter(|_| settings.has_defaults())) {
        Some(1) => Err(settings.wrong(SLIDING_WINDOW, "1".to_string(), "at least 2 positions".to_string())),
        // No text is longer.
        window => Ok(window.map(|window| window.min(most::POSITIONS))),
    }
}

/// Layers that slide by a list of their types, or else by the family's rule; one that slides needs a window. By a rule, none
/// slides in a GGUF file that states no window.
fn slide_by_type(
    spec: &mut ModelSpec,
    settings: &dyn Settings,
    window: Option<usize>,
    rule: impl Fn(usize) -> bool,
) -> Result<Vec<bool>, ModelError> {
    let layers = spec.layers.len();
    let ruled = window.is_some() || settings.has_defaults();
    let slides = settings.layer_types(layers)?;
    let slides = slides.unwrap_or_else(|| (0..layers).map(|layer| ruled && rule(layer)).collect());
    if window.is_none() && slides.contains(&true) {
        return Err(settings.missing(SLIDING_WINDOW, "the window of the layers that slide"));
    }
    spec.set_sliding_window(window, |layer| slides[layer]);
    Ok(slides)
}

/// Layers that slide by a list of their types, or else all but every so manieth.
fn slide_but_every(
    spec: &mut ModelSpec,
    settings: &dyn Settings,
    window: Option<usize>,
    (pattern, default): (Key, usize),
) -> Result<Vec<bool>, ModelError> {
    // Where the layers' types are listed, the pattern is not looked at, and may be a text.
    let every = match settings.layer_types(spec.layers.len())? {
        Some(_) => default,
        None => settings.size(pattern, most::LAYERS)?.unwrap_or(default),
    };
    slide_by_type(spec, settings, window, |layer| !(layer + 1).is_multiple_of(every))
}

/// What config.json calls layers that slide or do not.
pub(crate) fn layer_types(slide: impl Iterator<Item = bool>) -> Value {
    slide.map(|slides| if slides { "sliding_attention" } else { "full_attention" }).collect()
}

/// What config.json says of windows, and of the layers that have them.
fn windows(spec: &ModelSpec) -> Value {
    let windows = || spec.layers.iter().map(|layer| layer.attention.sliding_window);
    json!({
        "sliding_window": windows().flatten().next(),
        "layer_types": layer_types(windows().map(|window| window.is_some())),
    })
}

const LOOKS_BACK: &str = "a token must see only what stands before it";

fn refuse_bidirectional(settings: &dyn Settings) -> Result<(), ModelError> {
    refuse_if_set(settings, BIDIRECTIONAL, LOOKS_BACK)
}

/// Refuses what is not built where a key asks for it.
fn refuse_if_set(settings: &dyn Settings, key: Key, supported: &str) -> Result<(), ModelError> {
    refuse_flag(settings, key, true, supported)
}

/// Refuses what is not built where a key is false.
fn refuse_if_unset(settings: &dyn Settings, key: Key, supported: &str) -> Result<(), ModelError> {
    refuse_flag(settings, key, false, supported)
}

fn refuse_flag(settings: &dyn Settings, key: Key, refused: bool, supported: &str) -> Result<(), ModelError> {
    match settings.flag(key)? {
        Some(flag) if flag == refused => Err(settings.unsupported(key, flag.to_string(), supported)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
