//! `block_configs`, by which a config.json of the type `nemotron-nas` says which blocks each layer has. vLLM, SGLang and MLX know
//! such models, NVIDIA's Nemotron-NAS (DeciLM) among them: Llama, in which a layer may lack its attention or its feed-forward block.
//!
//! Keys are meant as these three read them (`nemotron_nas.py` of vLLM 0.33 and SGLang 0.5.23, `nemotron-nas.py` of mlx-lm 0.32).
//! GGUF files call the same models `deci`: `families/deci.rs`.

use serde_json::{Map, Value, json};

use super::config::most;
use super::error::{ModelError, shown};
use super::families::{self, HEADS, HIDDEN_SIZE, INNER, KV_HEADS, LAYERS};
use super::keys::Keys;
use super::rope::RopeScaling;
use super::spec::{AttentionBias, FeedForward, ModelSpec};
use super::{BlockId, BlockKind, BlockSet};

/// The `model_type`.
pub(crate) const TYPE: &str = "nemotron-nas";
/// What `architectures` names.
pub(crate) const CLASS: &str = "DeciLMForCausalLM";
/// The list, with an entry for each layer.
pub(crate) const KEY: &str = "block_configs";

const NO_OP: &str = "no_op";
const LINEAR: &str = "replace_with_linear";
/// Query heads that share a key head.
const GROUP: &str = "n_heads_in_group";
/// The width of a feed-forward block, as 3/2 of its share of `hidden_size`.
const MULTIPLE: &str = "ffn_mult";
/// Of which training left weights away; they are zero then.
const SPARSE: &str = "sparsify";

/// Widths of feed-forward blocks are rounded up to a multiple of this.
const WIDTHS: usize = 256;

/// The width that a number stands for.
fn width(multiple: f64, hidden_size: usize) -> usize {
    ((2.0 * multiple * hidden_size as f64 / 3.0) as usize).next_multiple_of(WIDTHS)
}

/// The number for a width, of which MLX reads six decimals; None if there is none.
fn multiple(inner: usize, hidden_size: usize) -> Option<f64> {
    let exact = 1.5 * inner as f64 / hidden_size as f64;
    let multiple = (exact * 1e6).round() / 1e6;
    (width(multiple, hidden_size) == inner).then_some(multiple)
}

/// A model as one whose layers may lack a block, whatever its own family; or why it cannot be one. It is a Llama with biases
/// everywhere in attention if there is one, because readers expect all or none, and with feed-forward blocks of a width that they
/// know: what the model does not have is zero.
pub(crate) fn of_spec(spec: &ModelSpec) -> Result<ModelSpec, String> {
    let llama = families::named("llama");
    let Some((family, target)) = llama.zip(families::deci::of_spec(spec)) else {
        return Err(format!("DeciLM computes what Llama does, and {} does more", spec.family));
    };
    let mut target = ModelSpec { family, ..target };
    for layer in &mut target.layers {
        let biased = layer.attention.bias.qkv || layer.attention.bias.out;
        layer.attention.bias = AttentionBias { qkv: biased, out: biased };
        if let FeedForward::Dense(dense) = &mut layer.feed_forward {
            dense.inner = dense.inner.next_multiple_of(WIDTHS);
        }
    }
    let Some(layer) = target.layers.first() else { return Err("it has no layers".to_string()) };
    let (hidden, inner, heads) = (target.hidden_size, layer.dense().inner, layer.attention.heads);
    if multiple(inner, hidden).is_none() {
        return Err(format!("`{MULTIPLE}` has too few digits for feed-forward blocks that are {inner} wide"));
    }
    if !hidden.is_multiple_of(heads) {
        return Err(format!("its width of {hidden} is no multiple of its {heads} heads, as readers expect"));
    }
    match target.ropes.first().map(|rope| &rope.scaling) {
        Some(RopeScaling::Default | RopeScaling::Linear { .. } | RopeScaling::Llama3 { .. }) => Ok(target),
        scaling => {
            let name = scaling.map_or("other", RopeScaling::name);
            Err(format!("readers do not agree about its rotary embedding, of the type {name}"))
        }
    }
}

/// The list of a model, which [`of_spec`] has made, without some blocks.
pub(crate) fn written(target: &ModelSpec, gone: &BlockSet) -> Value {
    let layers = target.layers.iter().enumerate().map(|(number, layer)| {
        let (attention, inner) = (&layer.attention, layer.dense().inner);
        let group = (!gone.contains(BlockId::mha(number))).then_some(attention.heads / attention.kv_heads);
        let multiple = multiple(inner, target.hidden_size).filter(|_| !gone.contains(BlockId::mlp(number)));
        json!({
            "attention": { NO_OP: group.is_none(), LINEAR: false, GROUP: group },
            "ffn": { NO_OP: multiple.is_none(), LINEAR: false, MULTIPLE: multiple },
        })
    });
    layers.collect()
}

/// What a model takes more than it had, and readers that cannot run it without some blocks or compute something else, and why.
pub(crate) fn limits(spec: &ModelSpec, target: &ModelSpec, gone: &BlockSet) -> Vec<String> {
    let mut limits = Vec::new();
    let inner = |spec: &ModelSpec| spec.layers.first().map_or(0, |layer| layer.dense().inner);
    let (own, written) = (inner(spec), inner(target));
    if own != written {
        limits.push(format!("feed-forward blocks are written {written} wide instead of {own}, with zeros: readers know multiples of {WIDTHS} only"));
    }
    let mut kept = (0..target.layers.len()).flat_map(|layer| [BlockId::mha(layer), BlockId::mlp(layer)]);
    let first = kept.clone().find(|block| !gone.contains(*block));
    let attention = kept.any(|block| block.kind == BlockKind::Mha && !gone.contains(block));
    match first {
        _ if !attention => limits.push("vLLM, SGLang and MLX do not run it: no attention block is left".to_string()),
        Some(BlockId { kind: BlockKind::Mlp, layer }) => limits.push(format!(
            "vLLM and older SGLang do not run it: they need an attention block first, and mlp:{layer} comes first (keep mha:{layer})"
        )),
        _ => {}
    }
    let Some(layer) = target.layers.first() else { return limits };
    let (heads, head_dim) = (layer.attention.heads, layer.attention.head_dim);
    if layer.attention.query_width() != target.hidden_size {
        let expected = target.hidden_size / heads;
        limits.push(format!("MLX does not load it: its heads are {head_dim} wide, and MLX expects {expected}"));
    }
    if layer.dense().bias {
        limits.push("SGLang computes something else: it ignores biases of feed-forward projections".to_string());
    }
    limits
}

/// A config.json of this type as that of a Llama with lists of the blocks that are gone; None if it is of another type.
///
/// # Errors
/// Layers that differ by more than the blocks that they have, and what else Llama is not.
pub(crate) fn as_llama(file: &str, config: &Map<String, Value>) -> Result<Option<Map<String, Value>>, ModelError> {
    let Some((family, _)) = families::named("llama").zip(config.get("model_type").filter(|name| *name == TYPE)) else {
        return Ok(None);
    };
    let keys = Keys::new(file, config);
    let layers = keys.required_size(LAYERS.hf, most::LAYERS)?;
    let heads = keys.required_size(HEADS.hf, most::HEADS)?;
    let hidden_size = keys.required_size(HIDDEN_SIZE.hf, most::WIDTH)?;
    let list = keys.list(KEY)?.ok_or_else(|| keys.missing(KEY, "a list of one entry for each layer"))?;
    if list.len() != layers {
        let expected = format!("one entry for each of the {layers} layers");
        return Err(keys.contradiction(KEY, format!("a list of {}", list.len()), expected));
    }
    let (mut kv_heads, mut inner) = (None, None);
    let (mut without_attention, mut without_ffn) = (Vec::new(), Vec::new());
    for (layer, entry) in list.iter().enumerate() {
        let name = format!("{KEY}[{layer}]");
        let map = entry.as_object().ok_or_else(|| keys.wrong(&name, entry, "an object"))?;
        let (path, attention, ffn) = (format!("{name}."), format!("{name}.attention."), format!("{name}.ffn."));
        let entry = Keys { path: &path, map, ..keys };
        only(&entry, &["attention", "ffn"])?;
        let attention = part(&entry, "attention", &attention)?;
        match attention.flag(NO_OP)? {
            Some(true) => without_attention.push(layer),
            _ => {
                only(&attention, &[GROUP, SPARSE])?;
                let group = attention.required_size(GROUP, heads)?;
                if heads % group != 0 {
                    let expected = format!("a divisor of the {heads} heads");
                    return Err(attention.contradiction(GROUP, group.to_string(), expected));
                }
                same(&mut kv_heads, heads / group, &attention, GROUP)?;
            }
        }
        let ffn = part(&entry, "ffn", &ffn)?;
        match ffn.flag(NO_OP)? {
            Some(true) => without_ffn.push(layer),
            _ => {
                only(&ffn, &[MULTIPLE, INNER.hf, SPARSE])?;
                let found = match ffn.positive(MULTIPLE)? {
                    Some(multiple) => width(multiple, hidden_size),
                    None => ffn.required_size(INNER.hf, most::WIDTH)?,
                };
                same(&mut inner, found, &ffn, MULTIPLE)?;
            }
        }
    }
    let mut llama = config.clone();
    for key in [KEY, "auto_map"] {
        llama.shift_remove(key);
    }
    llama.insert("model_type".to_string(), json!(family.name));
    llama.insert("architectures".to_string(), json!([family.class]));
    for (key, size) in [(KV_HEADS.hf, kv_heads), (INNER.hf, inner)] {
        if let Some(size) = size {
            llama.insert(key.to_string(), json!(size));
        }
    }
    for (key, layers) in [("drop_attn_list", without_attention), ("drop_mlp_list", without_ffn)] {
        if !layers.is_empty() {
            llama.insert(key.to_string(), json!(layers));
        }
    }
    Ok(Some(llama))
}

/// A part of a layer's entry.
fn part<'a>(entry: &Keys<'a>, name: &str, path: &'a str) -> Result<Keys<'a>, ModelError> {
    let map = entry.object(name)?.ok_or_else(|| entry.missing(name, "an object"))?;
    Ok(Keys { path, map, ..*entry })
}

/// Refuses what asks for more than Llama has.
fn only(keys: &Keys, known: &[&str]) -> Result<(), ModelError> {
    let asks = |(key, value): &(&String, &Value)| {
        !known.contains(&key.as_str()) && !matches!(value, Value::Null | Value::Bool(false))
    };
    match keys.map.iter().find(asks) {
        Some((key, value)) => {
            Err(keys.unsupported(key, shown(value), "a block must be as in Llama, or not there at all"))
        }
        None => Ok(()),
    }
}

/// Blocks of one kind have one size.
fn same(first: &mut Option<usize>, found: usize, keys: &Keys, key: &str) -> Result<(), ModelError> {
    match *first.get_or_insert(found) {
        size if size == found => Ok(()),
        size => {
            let supported = format!("all layers must have the same size, which is {size} in those before");
            Err(keys.unsupported(key, found.to_string(), supported))
        }
    }
}
