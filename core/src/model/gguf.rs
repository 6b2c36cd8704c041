//! The metadata of a GGUF file as a [`ModelSpec`], and from that the config.json that such a file does not have.
//!
//! Keys are those of the GGUF specification (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>), meant as
//! llama.cpp reads them.

use serde_json::{Map, Value, json};

use super::config::most;
use super::error::ModelError;
use super::families::{self, EXPERTS, HEAD_DIM, HEADS, HIDDEN_SIZE, KV_HEADS, LAYER_TYPES, LAYERS, POSITIONS};
use super::family::{Family, Role, gguf_layer};
use super::keys::Keys;
use super::rope::{RopeRequest, RopeScaling, RopeSpec};
use super::settings::{Key, Settings};
use super::spec::{Layer, ModelSpec};
use super::{BlockId, BlockKind, BlockSet};
use crate::weights::gguf::{GgufFile, GgufMetadata, MetadataArray, MetadataValue, RopeFactors};
use crate::weights::{FloatType, Weights, gguf};

impl ModelSpec {
    /// Reads the metadata of a GGUF file and, where that does not say, its tensors: the size of the vocabulary, whether
    /// the head is tied, which biases there are.
    pub(crate) fn from_gguf(file: &GgufFile) -> Result<Self, ModelError> {
        let metadata = Metadata::new(file)?;
        let family = metadata.family;
        let spec = (family.spec)(family, &metadata)?;
        metadata.check_rest(&spec)?;
        spec.refuse_experts(|found, supported| Settings::unsupported(&metadata, EXPERTS, found, supported))?;
        Ok(spec)
    }

    /// The tensors of a GGUF file under their Hugging Face names and with their rows in that order; what the family's table
    /// does not have keeps its name.
    pub(crate) fn renamed(&self, weights: Weights) -> Result<Weights, ModelError> {
        Ok(weights.renamed(|name| self.family.hugging_face_names(name, self))?)
    }

    /// The config.json of a model that came without one, for weights stored as `dtype`.
    pub(crate) fn to_config(&self, dtype: FloatType) -> Map<String, Value> {
        let mut config = Map::new();
        let (Some(gguf), Some(layer)) = (&self.family.gguf, self.layers.first()) else { return config };
        let (defaults, attention, dense) = (gguf.defaults, &layer.attention, layer.dense());
        let mut set = |key: &str, value: Value| {
            config.insert(key.to_string(), value);
        };
        set("architectures", json!([self.family.class]));
        set("model_type", json!(self.family.name));
        let (activation, names, _) = defaults.activation;
        set(activation.hf, json!(names[0]));
        set(HIDDEN_SIZE.hf, json!(self.hidden_size));
        set(LAYERS.hf, json!(self.layers.len()));
        set(defaults.inner_key.hf, json!(dense.inner));
        set(HEADS.hf, json!(attention.heads));
        if !defaults.kv_heads_key.hf.is_empty() {
            set(defaults.kv_heads_key.hf, json!(attention.kv_heads));
        }
        // Some configuration classes compute it and let nobody say.
        if defaults.head_dim.is_some() || attention.query_width() != self.hidden_size {
            set(HEAD_DIM.hf, json!(attention.head_dim));
        }
        set("vocab_size", json!(self.vocab_size));
        set(POSITIONS.hf, json!(self.max_positions));
        set(defaults.norm_eps_key.hf, json!(shortest(f64::from(self.final_norm.eps))));
        set("tie_word_embeddings", json!(self.head.tied));
        set("bos_token_id", json!(self.bos_token_id));
        set("eos_token_id", json!(self.eos_token_ids.first()));
        // What a class assumes may lie beyond the vocabulary.
        set("pad_token_id", Value::Null);
        set(
            "torch_dtype",
            json!(match dtype {
                FloatType::F32 => "float32",
                FloatType::F16 => "float16",
                FloatType::BF16 => "bfloat16",
            }),
        );
        if let Some(rope) = self.ropes.first() {
            if defaults.rotated.is_some() {
                set("partial_rotary_factor", json!(rope.share(attention.head_dim)));
            }
            rope.write_config(&mut config);
        }
        if let Value::Object(own) = (gguf.config)(self) {
            config.extend(own);
        }
        for (name, own) in self.family.key_names {
            if let Some(value) = config.remove(*name) {
                config.insert(own.to_string(), value);
            }
        }
        config
    }
}

/// The layers of which a file that says layer by layer what there is holds blocks that add zeros: keys of our own.
pub(crate) const STUBS: [(BlockKind, &str); 2] =
    [(BlockKind::Mha, "blockpruner.attention_stubs"), (BlockKind::Mlp, "blockpruner.feed_forward_stubs")];

/// The base of rotary embeddings that llama.cpp assumes for every family.
const THETA: f64 = 10_000.0;
/// The base for layers that slide.
const SLIDING_THETA: &str = "rope.freq_base_swa";
/// What is multiplied to the rotated queries and keys.
const ATTENTION_FACTOR: &str = "rope.scaling.attn_factor";

/// GGUF numbers are f32. The shortest decimal that is the same f32 is what the original config.json said.
pub(super) fn shortest(number: f64) -> f64 {
    (number as f32).to_string().parse().unwrap_or(number)
}

/// The metadata of one architecture, asked by the part of the key after `llama.` or `qwen2.`.
struct Metadata<'a> {
    values: &'a GgufMetadata,
    family: &'static Family,
    weights: &'a Weights,
    rope_factors: &'a RopeFactors,
}

/// Refuses files that are no model, by what they are.
fn refuse_others(values: &GgufMetadata) -> Result<(), ModelError> {
    let kind = values.string("general.type")?.unwrap_or("model");
    let advice = match kind {
        "adapter" => "the file is a LoRA adapter: merge it into its model first (llama-export-lora), and give that",
        "imatrix" => "the file is an importance matrix for quantising, not a model",
        "mmproj" => "the file is the projector of a multimodal model: give the file of its language model",
        "model" => return Ok(()),
        _ => "the file must be a model",
    };
    Err(ModelError::Unsupported {
        file: values.file().to_string(),
        key: "general.type".to_string(),
        found: format!("{kind:?}"),
        supported: advice.to_string(),
    })
}

impl<'a> Metadata<'a> {
    fn new(file: &'a GgufFile) -> Result<Self, ModelError> {
        let values = &file.metadata;
        refuse_others(values)?;
        let name = values.require_string("general.architecture")?;
        let all = || families::ALL.iter().chain(families::ONLY_GGUF).copied();
        let of_name = || all().filter(|family| family.gguf_architecture() == Some(name));
        let mark = |family: &Family| family.gguf.as_ref().and_then(|gguf| gguf.marked_by);
        let has = |key: Key| values.get(&format!("{name}.{}", key.gguf)).is_some_and(|value| !value.is_zero());
        let marked = of_name().find(|family| mark(family).is_some_and(has));
        let Some(family) = marked.or(of_name().find(|family| mark(family).is_none())) else {
            let read = all().filter(|family| mark(family).is_none());
            let read = read.filter_map(|family| family.gguf_architecture());
            return Err(ModelError::Unsupported {
                file: values.file().to_string(),
                key: "general.architecture".to_string(),
                found: format!("{name:?}"),
                supported: format!("supported in GGUF files are {}", read.collect::<Vec<_>>().join(", ")),
            });
        };
        Ok(Self { values, family, weights: &file.weights, rope_factors: &file.rope_factors })
    }

    /// Whether there is such a tensor, in whatever type.
    fn holds(&self, wanted: impl Fn(&str) -> bool) -> bool {
        self.weights.all_names().any(wanted)
    }

    /// What else a file says must fit what is computed.
    fn check_rest(&self, spec: &ModelSpec) -> Result<(), ModelError> {
        let Some(Layer { attention, .. }) = spec.layers.first() else { return Ok(()) };
        let rotated = spec.ropes.first().map(|rope| rope.rotated);
        let (same, whole) = ("all heads must have the same width", "the whole head must be turned");
        for (rest, width, supported) in [
            ("attention.value_length", Some(attention.head_dim), same),
            ("attention.key_length_swa", Some(attention.head_dim), same),
            ("attention.value_length_swa", Some(attention.head_dim), same),
            // Where nothing is turned, it does not matter.
            ("rope.dimension_count", rotated, whole),
            ("rope.dimension_count_swa", rotated, "all layers must turn as many elements of a head"),
        ] {
            if let (Some(found), Some(width)) = (self.size(rest, most::HEAD_DIM)?, width)
                && found != width
            {
                return Err(self.unsupported(&self.key(rest), format!("{found} of {width}"), supported));
            }
        }
        for (rest, supported) in [
            ("nextn_predict_layers", "the file must be without layers that predict further tokens"),
            ("attention.temperature_scale", "scores must not depend on how long the text is"),
            ("rope.dimension_sections", "only text models, with one position for each token"),
        ] {
            let key = self.key(rest);
            if let Some(value) = self.values.get(&key).filter(|value| !value.is_zero()) {
                return Err(self.unsupported(&key, value.describe(), supported));
            }
        }
        Ok(())
    }

    fn key(&self, rest: &str) -> String {
        format!("{}.{rest}", self.values.architecture())
    }

    /// What messages call a setting: as in config.json where such files do not have it.
    fn name(&self, key: Key) -> String {
        if key.gguf.is_empty() { key.hf.to_string() } else { self.key(key.gguf) }
    }

    fn wrong(&self, key: &str, found: String, expected: impl Into<String>) -> ModelError {
        ModelError::Key { file: self.values.file().to_string(), key: key.to_string(), found, expected: expected.into() }
    }

    fn unsupported(&self, key: &str, found: String, supported: &str) -> ModelError {
        ModelError::Unsupported {
            file: self.values.file().to_string(),
            key: key.to_string(),
            found,
            supported: supported.to_string(),
        }
    }

    /// A list of one number for each layer, all the same, stands for that number.
    fn size(&self, rest: &str, most: usize) -> Result<Option<usize>, ModelError> {
        let key = self.key(rest);
        let value = match self.of_layers_with_block(rest, &key)? {
            Some(value) => Some(value),
            None => self.values.same_unsigned(&key)?,
        };
        let Some(value) = value else { return Ok(None) };
        let size = usize::try_from(value).ok().filter(|size| (1..=most).contains(size));
        size.map(Some).ok_or_else(|| self.wrong(&key, value.to_string(), format!("a whole number from 1 to {most}")))
    }

    /// The number that a list says of all layers that have the block it belongs to, in files where some have none; None if they
    /// differ.
    fn of_layers_with_block(&self, rest: &str, key: &str) -> Result<Option<u64>, ModelError> {
        let of = |setting: Key, kind| (setting.gguf == rest).then_some(kind);
        let kind = of(HEADS, BlockKind::Mha).or(of(KV_HEADS, BlockKind::Mha)).or(of(families::INNER, BlockKind::Mlp));
        let Some(kind) = kind.filter(|_| self.family.gguf.is_some_and(|gguf| gguf.by_layer)) else { return Ok(None) };
        let Some(MetadataValue::Array(_)) = self.values.get(key) else { return Ok(None) };
        let stubs = self.stubs(kind)?;
        let values = self.values.integers(key)?.unwrap_or_default();
        let mut there = (0..).zip(values).filter(|(layer, value)| *value > 0 && !stubs.contains(layer));
        let first = there.next().map(|(_, value)| value as u64);
        Ok(first.filter(|first| there.all(|(_, value)| value as u64 == *first)))
    }

    /// The layers in which a block of this kind adds zeros.
    fn stubs(&self, kind: BlockKind) -> Result<Vec<usize>, ModelError> {
        let key = STUBS.iter().find(|(other, _)| *other == kind).map_or("", |(_, key)| key);
        let layers = self.values.integers(key)?.unwrap_or_default();
        Ok(layers.into_iter().filter_map(|layer| usize::try_from(layer).ok()).collect())
    }

    /// The blocks of a kind that a list says there are not, by the number that it has for each layer.
    fn absent_of(&self, kind: BlockKind, setting: Key, layers: usize) -> Result<Vec<BlockId>, ModelError> {
        let key = self.key(setting.gguf);
        let mut absent = self.stubs(kind)?;
        if let Some(MetadataValue::Array(_)) = self.values.get(&key) {
            let values = self.values.integers(&key)?.unwrap_or_default();
            if values.len() != layers {
                let expected = format!("one number for each of the {layers} layers");
                return Err(self.wrong(&key, format!("a list of {}", values.len()), expected));
            }
            absent.extend((0..).zip(values).filter(|(_, value)| *value == 0).map(|(layer, _)| layer));
        }
        absent.retain(|layer| *layer < layers);
        Ok(absent.into_iter().map(|layer| BlockId { kind, layer }).collect())
    }

    fn positive(&self, rest: &str) -> Result<Option<f64>, ModelError> {
        let key = self.key(rest);
        let Some(value) = self.values.float(&key)? else { return Ok(None) };
        if value as f32 > 0.0 && (value as f32).is_finite() {
            return Ok(Some(shortest(value)));
        }
        Err(self.wrong(&key, value.to_string(), "a number greater than 0"))
    }

    fn required_positive(&self, rest: &str) -> Result<f64, ModelError> {
        self.positive(rest)?.ok_or_else(|| ModelError::MissingKey {
            file: self.values.file().to_string(),
            key: self.key(rest),
            expected: "a number greater than 0".to_string(),
        })
    }

    fn token_id(&self, key: &str) -> Result<Option<u32>, ModelError> {
        // Files write -1 (or its unsigned twin) for no such token.
        if matches!(self.values.get(key), Some(MetadataValue::Signed(id)) if *id < 0) {
            return Ok(None);
        }
        Ok(self.values.unsigned(key)?.and_then(|id| u32::try_from(id).ok()).filter(|id| *id != u32::MAX))
    }

    /// The rotary embedding of layers with full attention.
    fn full_rope(&self, request: &RopeRequest) -> Result<RopeSpec, ModelError> {
        let RopeRequest { head_dim, max_positions, .. } = *request;
        let theta = self.positive("rope.freq_base")?.unwrap_or(THETA);
        let rotated = self.size("rope.dimension_count", most::HEAD_DIM)?.filter(|_| request.rotated.is_some());
        let rotated = rotated.unwrap_or(head_dim);
        if rotated > head_dim || rotated % 2 != 0 {
            let expected = format!("an even number of the {head_dim} elements of a head");
            return Err(self.wrong(&self.key("rope.dimension_count"), rotated.to_string(), expected));
        }
        let scaling = self.rope_scaling(max_positions)?;
        let scaling = match (self.rope_factors, scaling) {
            (RopeFactors { every: None, short: None, long: None }, scaling) => scaling,
            (factors, RopeScaling::Default) => self.longrope(factors, rotated, max_positions)?,
            (_, other) => {
                let found = format!("{:?} beside a tensor of rope factors", other.name());
                return Err(self.unsupported(&self.key("rope.scaling.type"), found, "one or the other"));
            }
        };
        // llama.cpp multiplies attention by it whatever the scaling is; only these have a place for it in config.json.
        let has_factor = matches!(scaling, RopeScaling::Yarn { .. }) || self.rope_factors.short.is_some();
        if let Some(factor) = self.attention_factor()?.filter(|factor| *factor != 1.0 && !has_factor) {
            let supported = "it must be 1, but for yarn and for tensors of factors for short and long texts";
            return Err(self.unsupported(&self.key(ATTENTION_FACTOR), factor.to_string(), supported));
        }
        self.checked(RopeSpec { rotated, theta, max_positions, scaling })
    }

    fn checked(&self, rope: RopeSpec) -> Result<RopeSpec, ModelError> {
        rope.check(&Keys { path: &self.key("rope."), ..Keys::new(self.values.file(), &Map::new()) })?;
        Ok(rope)
    }

    /// Tensors of divisors, one for each frequency. Llama 3 files hold their scaling as one list for every window, which as both
    /// lists of longrope gives the very same frequencies in transformers.
    fn longrope(&self, factors: &RopeFactors, rotated: usize, max_positions: usize) -> Result<RopeScaling, ModelError> {
        let read = |name: &str, factors: &[f32]| {
            let sound = factors.iter().all(|factor| *factor > 0.0 && factor.is_finite());
            if factors.len() == rotated / 2 && sound {
                return Ok(factors.iter().map(|factor| f64::from(*factor)).collect());
            }
            let doubt = if sound { "" } else { ", some not above 0" };
            let expected = format!("{} numbers greater than 0, one for each pair of dimensions", rotated / 2);
            Err(self.wrong(name, format!("a tensor of {} numbers{doubt}", factors.len()), expected))
        };
        let of_type = |name: &str| ModelError::MissingKey {
            file: self.values.file().to_string(),
            key: name.to_string(),
            expected: "a tensor beside its counterpart for short or long texts".to_string(),
        };
        let (every, short, long) = (gguf::ROPE_FREQS, gguf::ROPE_SHORT, gguf::ROPE_LONG);
        match factors {
            RopeFactors { every: Some(factors), .. } => Ok(RopeScaling::LongRope {
                short_factor: read(every, factors)?,
                long_factor: read(every, factors)?,
                attention_factor: 1.0,
                original_max_positions: max_positions,
            }),
            RopeFactors { short: Some(short_factors), long: Some(long_factors), .. } => Ok(RopeScaling::LongRope {
                short_factor: read(short, short_factors)?,
                long_factor: read(long, long_factors)?,
                attention_factor: self.attention_factor()?.unwrap_or(1.0),
                original_max_positions: self.original(max_positions)?,
            }),
            RopeFactors { short: None, .. } => Err(of_type(short)),
            RopeFactors { long: None, .. } => Err(of_type(long)),
        }
    }

    fn attention_factor(&self) -> Result<Option<f64>, ModelError> {
        self.positive(ATTENTION_FACTOR)
    }

    /// The window of the first training.
    fn original(&self, max_positions: usize) -> Result<usize, ModelError> {
        Ok(self.size("rope.scaling.original_context_length", most::POSITIONS)?.unwrap_or(max_positions))
    }

    /// By how much positions are stretched. Zero says nothing, as in llama.cpp.
    fn scaling_factor(&self, rest: &str) -> Result<Option<f64>, ModelError> {
        match self.values.get(&self.key(rest)) {
            Some(value) if value.is_zero() => Ok(None),
            _ => self.positive(rest),
        }
    }

    fn rope_scaling(&self, max_positions: usize) -> Result<RopeScaling, ModelError> {
        let key = self.key("rope.scaling.type");
        // Before there was a type there was only the linear factor, and a factor without a type still means that.
        let factor = match self.scaling_factor("rope.scaling.factor")? {
            Some(factor) => Some(factor),
            None => self.scaling_factor("rope.scale_linear")?,
        };
        match self.values.string(&key)?.unwrap_or("linear") {
            "none" => Ok(RopeScaling::Default),
            "linear" => Ok(match factor.filter(|factor| *factor != 1.0) {
                Some(factor) => RopeScaling::Linear { factor },
                None => RopeScaling::Default,
            }),
            "yarn" => {
                let factor = self.required_positive("rope.scaling.factor")?;
                let usual = if factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 };
                // The converter writes down what the configuration says, which is mostly what follows from the factor.
                for (key, harmless) in [
                    ("yarn_ext_factor", [1.0; 2]),
                    ("yarn_attn_factor", [1.0, usual]),
                    ("yarn_log_multiplier", [0.0; 2]),
                ] {
                    let key = self.key(&format!("rope.scaling.{key}"));
                    let other = |number: &f64| harmless.iter().all(|harmless| (number - harmless).abs() > 1e-6);
                    if let Some(number) = self.values.float(&key)?.filter(other) {
                        return Err(self.unsupported(&key, number.to_string(), "yarn is built without other factors"));
                    }
                }
                let extra = self.attention_factor()?.unwrap_or(1.0);
                Ok(RopeScaling::Yarn {
                    factor,
                    attention_factor: extra * usual,
                    beta_fast: self.positive("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                    beta_slow: self.positive("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                    truncate: true,
                    original_max_positions: self.original(max_positions)?,
                })
            }
            // Its factors are tensors.
            "longrope" if self.rope_factors.short.is_some() => match factor.filter(|factor| *factor != 1.0) {
                None => Ok(RopeScaling::Default),
                Some(factor) => {
                    let supported = "longrope, which has tensors of factors, must be without another";
                    Err(self.unsupported(&self.key("rope.scaling.factor"), factor.to_string(), supported))
                }
            },
            other => {
                let supported = "one of none, linear, yarn is needed, or longrope with its tensors of factors";
                Err(self.unsupported(&key, format!("{other:?}"), supported))
            }
        }
    }
}

impl Settings for Metadata<'_> {
    fn size(&self, key: Key, most: usize) -> Result<Option<usize>, ModelError> {
        if key.gguf.is_empty() { Ok(None) } else { self.size(key.gguf, most) }
    }

    fn count(&self, key: Key) -> Result<Option<usize>, ModelError> {
        if key.gguf.is_empty() {
            return Ok(None);
        }
        Ok(self.values.unsigned(&self.key(key.gguf))?.map(|count| usize::try_from(count).unwrap_or(usize::MAX)))
    }

    fn positive(&self, key: Key) -> Result<Option<f64>, ModelError> {
        if key.gguf.is_empty() { Ok(None) } else { self.positive(key.gguf) }
    }

    fn flag(&self, key: Key) -> Result<Option<bool>, ModelError> {
        if key.gguf.is_empty() { Ok(None) } else { Ok(self.values.bool(&self.key(key.gguf))?) }
    }

    /// Such settings have no key in the files that are read: their defaults count.
    fn text(&self, _: Key) -> Result<Option<&str>, ModelError> {
        Ok(None)
    }

    fn list(&self, _: Key) -> Result<Option<&[Value]>, ModelError> {
        Ok(None)
    }

    fn layer_types(&self, layers: usize) -> Result<Option<Vec<bool>>, ModelError> {
        let key = self.key(LAYER_TYPES.gguf);
        let slides: Vec<bool> = match self.values.get(&key) {
            Some(MetadataValue::Array(MetadataArray::Bool(slides))) => slides.clone(),
            Some(MetadataValue::Array(MetadataArray::Unsigned(slides))) => {
                slides.iter().map(|slides| *slides != 0).collect()
            }
            Some(MetadataValue::Array(MetadataArray::Signed(slides))) => {
                slides.iter().map(|slides| *slides != 0).collect()
            }
            // A number is the family's to ask for.
            _ => return Ok(None),
        };
        if slides.len() != layers {
            let expected = format!("one entry for each of the {layers} layers");
            return Err(self.wrong(&key, format!("an array of {}", slides.len()), expected));
        }
        Ok(Some(slides))
    }

    fn first_layer_holds(&self, tensor: &str) -> Option<bool> {
        let weight = format!("{tensor}.weight");
        Some(self.holds(|name| gguf_layer(name) == Some((0, weight.as_str()))))
    }

    fn is_null(&self, key: Key) -> bool {
        !key.gguf.is_empty() && self.values.get(&self.key(key.gguf)).is_some_and(MetadataValue::is_zero)
    }

    fn has_defaults(&self) -> bool {
        false
    }

    fn wrong(&self, key: Key, found: String, expected: String) -> ModelError {
        self.wrong(&self.name(key), found, expected)
    }

    fn missing(&self, key: Key, expected: &str) -> ModelError {
        ModelError::MissingKey {
            file: self.values.file().to_string(),
            key: self.name(key),
            expected: expected.to_string(),
        }
    }

    fn unsupported(&self, key: Key, found: String, supported: &str) -> ModelError {
        self.unsupported(&self.name(key), found, supported)
    }

    fn has_bias(&self, _: Option<Key>, _: bool, roles: &[Role]) -> Result<bool, ModelError> {
        Ok(self.holds(|name| roles.iter().any(|role| self.family.is_gguf_bias(name, *role))))
    }

    fn vocab_size(&self) -> Result<usize, ModelError> {
        let name = self.family.gguf_weight(Role::Embedding);
        let embedding = match self.weights.get(&name) {
            Some(embedding) => embedding,
            // The error says whether it is missing or of a type that cannot be read.
            None => self.weights.require(&name, &[])?,
        };
        let rows = embedding.shape.first().copied().unwrap_or(0);
        if (1..=most::VOCABULARY).contains(&rows) {
            return Ok(rows);
        }
        let expected = format!("from 1 to {} rows", most::VOCABULARY);
        Err(self.wrong(&name, format!("a tensor of {rows} rows"), expected))
    }

    fn is_tied(&self, _: bool) -> Result<bool, ModelError> {
        let head = self.family.gguf_weight(Role::Head);
        Ok(!self.holds(|name| name == head))
    }

    fn rope(&self, request: &RopeRequest) -> Result<RopeSpec, ModelError> {
        let rope = self.full_rope(request)?;
        match self.positive(SLIDING_THETA)? {
            Some(theta) if theta != rope.theta => {
                let supported = "all layers must share one rotary embedding";
                Err(self.unsupported(&self.key(SLIDING_THETA), theta.to_string(), supported))
            }
            _ => Ok(rope),
        }
    }

    /// No scaling is for layers that slide.
    fn ropes_by_layer_type(
        &self,
        full: &RopeRequest,
        sliding: &RopeRequest,
        key: Option<Key>,
    ) -> Result<[RopeSpec; 2], ModelError> {
        let full = self.full_rope(full)?;
        let said = self.positive(SLIDING_THETA)?;
        let theta = match key {
            Some(_) => said.unwrap_or(sliding.theta),
            None => said.unwrap_or(full.theta),
        };
        if key.is_none() && theta != sliding.theta {
            let key = self.key(if said.is_some() { SLIDING_THETA } else { "rope.freq_base" });
            let supported = format!("layers that slide must turn by {}", sliding.theta);
            return Err(self.unsupported(&key, theta.to_string(), &supported));
        }
        let sliding = self.checked(RopeSpec { theta, scaling: RopeScaling::Default, ..full.clone() })?;
        Ok([full, sliding])
    }

    fn special_tokens(&self) -> Result<(Option<u32>, Vec<u32>), ModelError> {
        let end = self.token_id("tokenizer.ggml.eos_token_id")?;
        Ok((self.token_id("tokenizer.ggml.bos_token_id")?, end.into_iter().collect()))
    }

    fn absent(&self, family: &Family, layers: usize) -> Result<BlockSet, ModelError> {
        if !family.gguf.is_some_and(|gguf| gguf.by_layer) {
            return Ok(BlockSet::new());
        }
        let heads = self.absent_of(BlockKind::Mha, HEADS, layers)?;
        // Heads without keys are one matrix for all of attention, which nothing here computes.
        let linear = self.absent_of(BlockKind::Mha, KV_HEADS, layers)?;
        if let Some(block) = linear.iter().find(|block| !heads.contains(block)) {
            let found = format!("0 in layer {}, which has heads", block.layer);
            let supported = "attention must have keys, or no heads either";
            return Err(self.unsupported(&self.key(KV_HEADS.gguf), found, supported));
        }
        let widths = self.absent_of(BlockKind::Mlp, families::INNER, layers)?;
        Ok(heads.into_iter().chain(widths).collect())
    }
}

mod written;

#[cfg(test)]
mod tests;
