//! The metadata of a GGUF file as a [`ModelSpec`], and from that the config.json that such a file does not have.
//!
//! Keys are those of the GGUF specification (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>), meant as
//! llama.cpp reads them.

use serde_json::{Map, Value, json};

use super::BlockSet;
use super::config::most;
use super::error::ModelError;
use super::families::{self, EXPERTS, HEAD_DIM, HEADS, HIDDEN_SIZE, INNER, KV_HEADS, LAYERS, NORM_EPS, POSITIONS};
use super::family::{Family, Role};
use super::keys::Keys;
use super::rope::{RopeRequest, RopeScaling, RopeSpec};
use super::settings::{Key, Settings};
use super::spec::{Layer, ModelSpec};
use crate::weights::gguf::{GgufFile, GgufMetadata, MetadataValue};
use crate::weights::{FloatType, Weights};

impl ModelSpec {
    /// Reads the metadata of a GGUF file and, where that does not say, its tensors: the size of the vocabulary, whether
    /// the head is tied, which biases there are.
    pub(crate) fn from_gguf(file: &GgufFile) -> Result<Self, ModelError> {
        let metadata = Metadata::new(file)?;
        let family = metadata.family;
        let spec = (family.spec)(family, &metadata)?;
        metadata.check_heads(&spec)?;
        spec.refuse_experts(|found, supported| Settings::unsupported(&metadata, EXPERTS, found, supported))?;
        Ok(spec)
    }

    /// The tensors of a GGUF file under their Hugging Face names and with their rows in that order; what the family's table
    /// does not have keeps its name.
    pub(crate) fn renamed(&self, weights: Weights) -> Result<Weights, ModelError> {
        Ok(weights.renamed(|name| self.family.hugging_face_name(name, self))?)
    }

    /// The config.json of a model that came without one, for weights stored as `dtype`.
    pub(crate) fn to_config(&self, dtype: FloatType) -> Map<String, Value> {
        let mut config = Map::new();
        let mut set = |key: &str, value: Value| {
            config.insert(key.to_string(), value);
        };
        set("architectures", json!([self.family.class]));
        set("model_type", json!(self.family.name));
        set("hidden_act", json!("silu"));
        set(HIDDEN_SIZE.hf, json!(self.hidden_size));
        set(LAYERS.hf, json!(self.layers.len()));
        if let Some(layer) = self.layers.first() {
            let (attention, dense) = (&layer.attention, layer.dense());
            set(INNER.hf, json!(dense.inner));
            set(HEADS.hf, json!(attention.heads));
            set(KV_HEADS.hf, json!(attention.kv_heads));
            set(HEAD_DIM.hf, json!(attention.head_dim));
        }
        set("vocab_size", json!(self.vocab_size));
        set(POSITIONS.hf, json!(self.max_positions));
        set(NORM_EPS.hf, json!(shortest(f64::from(self.final_norm.eps))));
        set("tie_word_embeddings", json!(self.head.tied));
        if let Some(gguf) = &self.family.gguf
            && let Value::Object(own) = (gguf.config)(self)
        {
            config.extend(own);
        }
        config.insert("bos_token_id".to_string(), json!(self.bos_token_id));
        config.insert("eos_token_id".to_string(), json!(self.eos_token_ids.first()));
        config.insert(
            "torch_dtype".to_string(),
            json!(match dtype {
                FloatType::F32 => "float32",
                FloatType::F16 => "float16",
                FloatType::BF16 => "bfloat16",
            }),
        );
        for rope in &self.ropes {
            rope.write_config(&mut config);
        }
        config
    }
}

/// GGUF numbers are f32. The shortest decimal that is the same f32 is what the original config.json said.
fn shortest(number: f64) -> f64 {
    (number as f32).to_string().parse().unwrap_or(number)
}

/// The metadata of one architecture, asked by the part of the key after `llama.` or `qwen2.`.
struct Metadata<'a> {
    values: &'a GgufMetadata,
    family: &'static Family,
    weights: &'a Weights,
    rope_freqs: Option<&'a [f32]>,
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
        let Some(family) = families::ALL.iter().copied().find(|family| family.gguf_architecture() == Some(name)) else {
            let read = families::ALL.iter().filter_map(|family| family.gguf_architecture());
            return Err(ModelError::Unsupported {
                file: values.file().to_string(),
                key: "general.architecture".to_string(),
                found: format!("{name:?}"),
                supported: format!("supported in GGUF files are {}", read.collect::<Vec<_>>().join(", ")),
            });
        };
        Ok(Self { values, family, weights: &file.weights, rope_freqs: file.rope_freqs.as_deref() })
    }

    /// Whether there is such a tensor, in whatever type.
    fn holds(&self, wanted: impl Fn(&str) -> bool) -> bool {
        self.weights.all_names().any(wanted)
    }

    /// What else a file says about the heads must fit.
    fn check_heads(&self, spec: &ModelSpec) -> Result<(), ModelError> {
        let causal = self.key("attention.causal");
        if self.values.bool(&causal)? == Some(false) {
            return Err(self.unsupported(&causal, "false".to_string(), "a token must see only what stands before it"));
        }
        let Some(Layer { attention, .. }) = spec.layers.first() else { return Ok(()) };
        for (rest, width, supported) in [
            ("attention.value_length", attention.head_dim, "keys and values must have heads of the same width"),
            ("rope.dimension_count", spec.rotated(attention), "the whole head must be turned"),
        ] {
            if let Some(found) = self.size(rest, most::HEAD_DIM)?
                && found != width
            {
                return Err(self.unsupported(&self.key(rest), format!("{found} of {width}"), supported));
            }
        }
        Ok(())
    }

    fn key(&self, rest: &str) -> String {
        format!("{}.{rest}", self.values.architecture())
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

    fn size(&self, rest: &str, most: usize) -> Result<Option<usize>, ModelError> {
        let key = self.key(rest);
        let Some(value) = self.values.unsigned(&key)? else { return Ok(None) };
        let size = usize::try_from(value).ok().filter(|size| (1..=most).contains(size));
        size.map(Some).ok_or_else(|| self.wrong(&key, value.to_string(), format!("a whole number from 1 to {most}")))
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

    fn rope(&self, request: &RopeRequest) -> Result<RopeSpec, ModelError> {
        let RopeRequest { head_dim: rotated, max_positions, .. } = *request;
        let theta = self.positive("rope.freq_base")?.unwrap_or(request.theta);
        let scaling = self.rope_scaling(max_positions)?;
        let scaling = match (self.rope_freqs, scaling) {
            (None, scaling) => scaling,
            (Some(factors), RopeScaling::Default) => self.rope_factors(factors, rotated, max_positions)?,
            (Some(_), other) => {
                let found = format!("{:?} beside a tensor rope_freqs.weight", other.name());
                return Err(self.unsupported(&self.key("rope.scaling.type"), found, "one or the other"));
            }
        };
        let spec = RopeSpec { rotated, theta, max_positions, scaling };
        spec.check(&Keys { path: &self.key("rope."), ..Keys::new(self.values.file(), &Map::new()) })?;
        Ok(spec)
    }

    /// Llama 3 files hold their scaling as one divisor for each frequency, which is what longrope has, too: the same list
    /// for every window gives the very same frequencies in transformers.
    fn rope_factors(&self, factors: &[f32], head_dim: usize, max_positions: usize) -> Result<RopeScaling, ModelError> {
        let sound = factors.iter().all(|factor| *factor > 0.0 && factor.is_finite());
        if factors.len() != head_dim / 2 || !sound {
            let found =
                format!("a tensor of {} numbers{}", factors.len(), if sound { "" } else { ", some not above 0" });
            let expected = format!("{} numbers greater than 0, one for each pair of dimensions", head_dim / 2);
            return Err(self.wrong("rope_freqs.weight", found, expected));
        }
        let factors: Vec<f64> = factors.iter().map(|factor| f64::from(*factor)).collect();
        Ok(RopeScaling::LongRope {
            short_factor: factors.clone(),
            long_factor: factors,
            attention_factor: 1.0,
            original_max_positions: max_positions,
        })
    }

    fn rope_scaling(&self, max_positions: usize) -> Result<RopeScaling, ModelError> {
        let key = self.key("rope.scaling.type");
        // Before there was a type there was only the linear factor, and a factor without a type still means that.
        let factor = match self.positive("rope.scaling.factor")? {
            Some(factor) => Some(factor),
            None => self.positive("rope.scale_linear")?,
        };
        match self.values.string(&key)?.unwrap_or("linear") {
            "none" => Ok(RopeScaling::Default),
            "linear" => Ok(match factor.filter(|factor| *factor != 1.0) {
                Some(factor) => RopeScaling::Linear { factor },
                None => RopeScaling::Default,
            }),
            "yarn" => {
                for key in ["yarn_ext_factor", "yarn_attn_factor", "yarn_log_multiplier"] {
                    let key = self.key(&format!("rope.scaling.{key}"));
                    if let Some(factor) = self.values.float(&key)?.filter(|factor| *factor != 1.0) {
                        return Err(self.unsupported(&key, factor.to_string(), "yarn is built without other factors"));
                    }
                }
                let factor = self.required_positive("rope.scaling.factor")?;
                let extra = self.positive("rope.scaling.attn_factor")?.unwrap_or(1.0);
                let original = self.size("rope.scaling.original_context_length", max_positions)?;
                Ok(RopeScaling::Yarn {
                    factor,
                    attention_factor: extra * if factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 },
                    beta_fast: self.positive("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                    beta_slow: self.positive("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                    truncate: true,
                    original_max_positions: original.unwrap_or(max_positions),
                })
            }
            other => Err(self.unsupported(&key, format!("{other:?}"), "one of none, linear, yarn is needed")),
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

    /// Such settings have no key in the files that are read: their defaults count.
    fn flag(&self, _: Key) -> Result<Option<bool>, ModelError> {
        Ok(None)
    }

    fn text(&self, _: Key) -> Result<Option<&str>, ModelError> {
        Ok(None)
    }

    fn list(&self, _: Key) -> Result<Option<&[Value]>, ModelError> {
        Ok(None)
    }

    fn is_null(&self, _: Key) -> bool {
        false
    }

    fn has_defaults(&self) -> bool {
        false
    }

    fn wrong(&self, key: Key, found: String, expected: String) -> ModelError {
        self.wrong(&self.key(key.gguf), found, expected)
    }

    fn missing(&self, key: Key, expected: &str) -> ModelError {
        ModelError::MissingKey {
            file: self.values.file().to_string(),
            key: self.key(key.gguf),
            expected: expected.to_string(),
        }
    }

    fn unsupported(&self, key: Key, found: String, supported: &str) -> ModelError {
        self.unsupported(&self.key(key.gguf), found, supported)
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
        self.rope(request)
    }

    fn ropes_by_layer_type(
        &self,
        full: &RopeRequest,
        sliding: &RopeRequest,
        _: Option<Key>,
    ) -> Result<[RopeSpec; 2], ModelError> {
        Ok([self.rope(full)?, self.rope(sliding)?])
    }

    fn special_tokens(&self) -> Result<(Option<u32>, Vec<u32>), ModelError> {
        let end = self.token_id("tokenizer.ggml.eos_token_id")?;
        Ok((self.token_id("tokenizer.ggml.bos_token_id")?, end.into_iter().collect()))
    }

    fn absent(&self, _: &Family, _: usize) -> Result<BlockSet, ModelError> {
        Ok(BlockSet::new())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::rc::Rc;

    use pollster::block_on;

    use super::*;
    use crate::weights::gguf::MetadataArray;
    use crate::weights::{BytesSource, gguf};

    use MetadataValue::{Float, Signed, Unsigned};

    /// A file of one layer, an embedding of `[vocab, hidden]` = `[40, 32]` and the tensors `more`, all zeros.
    fn file(architecture: &str, more: &[&str], entries: &[(&str, MetadataValue)]) -> GgufFile {
        let tensors: Vec<&str> = ["token_embd.weight"].iter().chain(more).copied().collect();
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
        bytes.extend((tensors.len() as u64).to_le_bytes());
        bytes.extend(3u64.to_le_bytes());
        bytes.extend([text("general.architecture"), 8u32.to_le_bytes().to_vec(), text(architecture)].concat());
        // What undoing the permutation of Q and K asks for.
        for (rest, value) in [("embedding_length", 32u32), ("attention.head_count", 4)] {
            let key = text(&format!("{architecture}.{rest}"));
            bytes.extend([key, 4u32.to_le_bytes().to_vec(), value.to_le_bytes().to_vec()].concat());
        }
        for (i, name) in tensors.iter().enumerate() {
            let dims: &[u64] = if i == 0 { &[32, 40] } else { &[32] };
            bytes.extend(text(name));
            bytes.extend((dims.len() as u32).to_le_bytes());
            bytes.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
            bytes.extend(0u32.to_le_bytes());
            bytes.extend((if i == 0 { 0 } else { 40 * 128 + (i as u64 - 1) * 128 }).to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(32) + 40 * 128 + more.len() * 128, 0);
        let mut opened = block_on(gguf::open(Rc::new(BytesSource::new("m.gguf", bytes)), &[])).unwrap();
        let key = |rest: &str| format!("{architecture}.{rest}");
        let mut values = vec![
            ("general.architecture".to_string(), MetadataValue::String(architecture.to_string())),
            (key("embedding_length"), Unsigned(32)),
            (key("feed_forward_length"), Unsigned(48)),
            (key("block_count"), Unsigned(1)),
            (key("context_length"), Unsigned(256)),
            (key("attention.head_count"), Unsigned(4)),
            (key("attention.head_count_kv"), Unsigned(2)),
            (key("attention.layer_norm_rms_epsilon"), Float(f64::from(1e-5f32))),
        ];
        values.extend(entries.iter().map(|(rest, value)| {
            (
                if rest.contains("ggml") || rest.contains("general") { rest.to_string() } else { key(rest) },
                value.clone(),
            )
        }));
        opened.metadata = GgufMetadata::new("m.gguf", values);
        opened
    }

    /// (Q, K and V, O, feed-forward) have a bias.
    fn biases(spec: &ModelSpec) -> (bool, bool, bool) {
        let layer = &spec.layers[0];
        (layer.attention.bias.qkv, layer.attention.bias.out, layer.dense().bias)
    }

    fn string(text: &str) -> MetadataValue {
        MetadataValue::String(text.to_string())
    }

    #[test]
    fn metadata_and_tensors_give_the_architecture() {
        let entries = [
            ("rope.freq_base", Float(100_000.0)),
            ("tokenizer.ggml.bos_token_id", Unsigned(1)),
            ("tokenizer.ggml.eos_token_id", Signed(-1)),
        ];
        let spec = ModelSpec::from_gguf(&file("llama", &[], &entries)).unwrap();
        let attention = &spec.layers[0].attention;
        assert_eq!((spec.vocab_size, attention.head_dim, attention.kv_heads, spec.final_norm.eps), (40, 8, 2, 1e-5));
        assert_eq!((spec.bos_token_id, spec.eos_token_ids.len()), (Some(1), 0));
        assert!(spec.head.tied && biases(&spec) == (false, false, false));
        let config = spec.to_config(FloatType::BF16);
        assert_eq!((&config["rms_norm_eps"], &config["torch_dtype"]), (&json!(1e-5), &json!("bfloat16")));
        assert_eq!(ModelSpec::from_config(&config).unwrap(), spec);

        let qwen2 = ModelSpec::from_gguf(&file("qwen2", &["output.weight"], &[])).unwrap();
        assert!(!qwen2.head.tied && biases(&qwen2) == (true, false, false));
        assert_eq!(ModelSpec::from_config(&qwen2.to_config(FloatType::F32)).unwrap(), qwen2);

        let names = ["blk.0.attn_q.bias", "blk.0.attn_output.bias", "blk.0.ffn_up.bias"];
        let biased = ModelSpec::from_gguf(&file("llama", &names, &[])).unwrap();
        assert_eq!(biases(&biased), (true, true, true));
        let error = ModelSpec::from_gguf(&file("llama", &names[..1], &[])).unwrap_err().to_string();
        assert!(error.contains("all four attention biases"), "{error}");
    }

    #[test]
    fn rope_factors_are_exact_in_the_rebuilt_configuration() {
        let mut opened = file("llama", &[], &[("rope.freq_base", Float(500_000.0))]);
        opened.rope_freqs = Some(vec![1.0, 1.0, 3.317_382_6, 8.0]);
        let spec = ModelSpec::from_gguf(&opened).unwrap();
        let rope = spec.ropes[0].frequencies(100).unwrap();
        assert_eq!(rope.attention_scaling, 1.0);
        let plain = RopeSpec { scaling: RopeScaling::Default, ..spec.ropes[0].clone() }.frequencies(100).unwrap();
        for (i, divisor) in [1.0f32, 1.0, 3.317_382_6, 8.0].into_iter().enumerate() {
            assert!((rope.inv_freq[i] * divisor / plain.inv_freq[i] - 1.0).abs() < 3e-7);
        }
        let again = ModelSpec::from_config(&spec.to_config(FloatType::F32)).unwrap();
        assert_eq!(again.ropes[0].frequencies(100).unwrap(), rope);
        assert_eq!(again.ropes[0].frequencies(1000).unwrap(), rope);

        opened.rope_freqs = Some(vec![1.0; 3]);
        let error = ModelSpec::from_gguf(&opened).unwrap_err().to_string();
        assert!(error.contains("rope_freqs.weight") && error.contains("4 numbers"), "{error}");
    }

    #[test]
    fn rope_scalings_are_read() {
        let scaling = |entries: &[(&str, MetadataValue)]| {
            ModelSpec::from_gguf(&file("qwen2", &[], entries)).map(|mut spec| spec.ropes.remove(0).scaling)
        };
        let factor = ("rope.scaling.factor", Float(4.0));
        let linear = RopeScaling::Linear { factor: 4.0 };
        assert_eq!(scaling(&[("rope.scaling.type", string("linear")), factor.clone()]).unwrap(), linear);
        // As llama.cpp has it: linear is the default, the newer key counts, and no factor is 1.
        assert_eq!(scaling(std::slice::from_ref(&factor)).unwrap(), linear);
        assert_eq!(scaling(&[("rope.scale_linear", Float(2.0)), factor.clone()]).unwrap(), linear);
        assert_eq!(scaling(&[("rope.scaling.type", string("linear"))]).unwrap(), RopeScaling::Default);
        assert_eq!(scaling(&[("rope.scaling.type", string("none")), factor.clone()]).unwrap(), RopeScaling::Default);
        assert_eq!(scaling(&[("rope.scale_linear", Float(2.0))]).unwrap(), RopeScaling::Linear { factor: 2.0 });
        let original = ("rope.scaling.original_context_length", Unsigned(64));
        let yarn = scaling(&[("rope.scaling.type", string("yarn")), factor, original]).unwrap();
        let RopeScaling::Yarn { attention_factor, original_max_positions, .. } = yarn else { unreachable!("{yarn:?}") };
        assert_eq!((attention_factor, original_max_positions), (0.1 * 4f64.ln() + 1.0, 64));
        let error = scaling(&[("rope.scaling.type", string("longrope"))]).unwrap_err().to_string();
        assert!(error.contains("qwen2.rope.scaling.type") && error.contains("longrope"), "{error}");
    }

    /// The keys that llama.cpp reads for every architecture or for these two (`src/llama-arch.cpp`, `src/llama-model.cpp`),
    /// each with a value that is not the default: whether it changes what is computed, is refused, or does not matter.
    #[test]
    fn every_key_is_decided() {
        let yarn = |key: &'static str, value: MetadataValue| {
            let of = |value| ("rope.scaling.type", value);
            vec![of(string("yarn")), ("rope.scaling.factor", Float(2.0)), (key, value)]
        };
        let one = |key: &'static str, value: MetadataValue| vec![(key, value)];
        let (read, refused, ignored) = ("read", "refused", "ignored");
        let cases = [
            (one("context_length", Unsigned(512)), read),
            (one("embedding_length", Unsigned(64)), read),
            (one("block_count", Unsigned(2)), read),
            (one("feed_forward_length", Unsigned(64)), read),
            (one("attention.head_count", Unsigned(2)), read),
            (one("attention.head_count_kv", Unsigned(1)), read),
            (one("attention.key_length", Unsigned(16)), read),
            (one("attention.value_length", Unsigned(16)), refused),
            (one("attention.layer_norm_rms_epsilon", Float(0.5)), read),
            (one("attention.causal", MetadataValue::Bool(false)), refused),
            (one("attention.causal", MetadataValue::Bool(true)), ignored),
            (one("rope.freq_base", Float(5.0)), read),
            (one("rope.dimension_count", Unsigned(4)), refused),
            (one("rope.scale_linear", Float(2.0)), read),
            (one("rope.scaling.factor", Float(2.0)), read),
            (one("rope.scaling.type", string("longrope")), refused),
            (yarn("rope.scaling.attn_factor", Float(2.0)), read),
            (yarn("rope.scaling.original_context_length", Unsigned(64)), read),
            (yarn("rope.scaling.yarn_beta_fast", Float(2.0)), read),
            (yarn("rope.scaling.yarn_beta_slow", Float(2.0)), read),
            (yarn("rope.scaling.yarn_ext_factor", Float(0.5)), refused),
            (yarn("rope.scaling.yarn_attn_factor", Float(0.5)), refused),
            (yarn("rope.scaling.yarn_log_multiplier", Float(0.5)), refused),
            // Beside no stretching there is nothing to correct.
            (one("rope.scaling.yarn_ext_factor", Float(0.5)), ignored),
            (one("expert_count", Unsigned(4)), refused),
            (one("tokenizer.ggml.bos_token_id", Unsigned(3)), read),
            (one("tokenizer.ggml.eos_token_id", Unsigned(3)), read),
            // Said of the model, for others.
            (one("vocab_size", Unsigned(7)), ignored),
            (one("rope.scaling.finetuned", MetadataValue::Bool(true)), ignored),
            (one("use_parallel_residual", MetadataValue::Bool(true)), ignored),
            (one("tensor_data_layout", string("Meta AI original pth")), ignored),
            (one("pooling_type", Unsigned(1)), ignored),
            (one("general.file_type", Unsigned(7)), ignored),
            (one("general.quantization_version", Unsigned(2)), ignored),
            (one("general.name", string("x")), ignored),
        ];
        for architecture in ["llama", "qwen2"] {
            for (entries, expected) in &cases {
                // The last entry is the one in question.
                let (last, before) = entries.split_last().unwrap();
                let plain = ModelSpec::from_gguf(&file(architecture, &[], before)).unwrap();
                let found = match ModelSpec::from_gguf(&file(architecture, &[], entries)) {
                    Ok(spec) if spec == plain => ignored,
                    Ok(_) => read,
                    Err(error) => {
                        assert!(error.to_string().contains(last.0), "{}: {error}", last.0);
                        refused
                    }
                };
                assert_eq!(found, *expected, "{architecture}: {} = {:?}", last.0, last.1);
            }
        }
    }

    #[test]
    fn wrong_metadata_is_named() {
        let layers = MetadataValue::Array(MetadataArray::Unsigned(vec![48, 64]));
        let cases = [
            (("feed_forward_length", layers), ["llama.feed_forward_length", "array of 2", "an integer"]),
            (("embedding_length", Unsigned(0)), ["llama.embedding_length", "is 0", "from 1 to"]),
            (("embedding_length", Unsigned(33)), ["llama.embedding_length", "is 33", "multiple of the 4 heads"]),
            (("block_count", Unsigned(u64::MAX)), ["llama.block_count", "18446744073709551615", "from 1 to"]),
            (("attention.head_count_kv", Unsigned(3)), ["llama.attention.head_count_kv", "is 3", "divisor"]),
            (("attention.key_length", Unsigned(7)), ["llama.attention.key_length", "is 7", "even"]),
            (("attention.value_length", Unsigned(16)), ["llama.attention.value_length", "16 of 8", "same width"]),
            (("rope.dimension_count", Unsigned(4)), ["llama.rope.dimension_count", "4 of 8", "whole head"]),
            (("rope.freq_base", Float(0.0)), ["llama.rope.freq_base", "is 0", "greater than 0"]),
            (("expert_count", Unsigned(8)), ["llama.expert_count", "is 8", "dense"]),
            (("general.type", string("adapter")), ["general.type", "LoRA", "merge"]),
            (("general.type", string("imatrix")), ["general.type", "importance matrix", "not a model"]),
        ];
        for (entry, parts) in cases {
            let error = ModelSpec::from_gguf(&file("llama", &[], &[entry])).unwrap_err().to_string();
            for part in ["m.gguf: "].iter().chain(&parts) {
                assert!(error.contains(part), "`{error}` does not say `{part}`");
            }
        }
        let error = ModelSpec::from_gguf(&file("gemma3", &[], &[])).unwrap_err().to_string();
        assert!(error.contains("general.architecture") && error.contains("gemma3"), "{error}");
    }
}
