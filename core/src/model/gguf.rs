//! The metadata of a GGUF file as a [`ModelSpec`], and from that the config.json that such a file does not have.
//!
//! Keys are those of the GGUF specification (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>), meant as
//! llama.cpp reads them.

use serde_json::{Map, Value, json};

use super::BlockSet;
use super::config::most;
use super::error::ModelError;
use super::keys::Keys;
use super::rope::{RopeScaling, RopeSpec};
use super::spec::{Biases, Family, ModelSpec};
use crate::weights::gguf::{GgufFile, GgufMetadata, MetadataValue};
use crate::weights::{FloatType, Weights};

impl ModelSpec {
    /// Reads the metadata of a GGUF file and, where that does not say, its tensors: the size of the vocabulary, whether
    /// the head is tied, which biases there are.
    pub fn from_gguf(file: &GgufFile) -> Result<Self, ModelError> {
        let metadata = Metadata::new(file)?;
        let hidden_size = metadata.required_size("embedding_length", most::WIDTH)?;
        let (heads, kv_heads, head_dim) = metadata.heads(hidden_size)?;
        let max_positions = metadata.required_size("context_length", most::POSITIONS)?;
        let Biases { qkv, o, mlp } = metadata.biases(&file.weights)?;
        let embedding = match file.weights.get(Self::EMBEDDING) {
            Some(embedding) => embedding,
            // The error says whether it is missing or of a type that cannot be read.
            None => file.weights.require(Self::EMBEDDING, &[0, hidden_size])?,
        };
        let vocab_size = embedding.shape.first().copied().unwrap_or(0);
        if !(1..=most::VOCABULARY).contains(&vocab_size) {
            let expected = format!("from 1 to {} rows", most::VOCABULARY);
            return Err(metadata.wrong("token_embd.weight", format!("a tensor of {vocab_size} rows"), expected));
        }
        Ok(Self {
            family: metadata.family,
            hidden_size,
            intermediate_size: metadata.required_size("feed_forward_length", most::WIDTH)?,
            layers: metadata.required_size("block_count", most::LAYERS)?,
            heads,
            kv_heads,
            head_dim,
            vocab_size,
            rms_norm_eps: metadata.required_positive("attention.layer_norm_rms_epsilon")? as f32,
            rope: metadata.rope(file.rope_freqs.as_deref(), head_dim, max_positions)?,
            tied_embeddings: !holds(&file.weights, |name| name == Self::HEAD),
            max_positions,
            qkv_bias: qkv,
            o_bias: o,
            mlp_bias: mlp,
            absent: BlockSet::new(),
            bos_token_id: metadata.token_id("tokenizer.ggml.bos_token_id")?,
            eos_token_ids: metadata.token_id("tokenizer.ggml.eos_token_id")?.into_iter().collect(),
        })
    }

    /// The config.json of a model that came without one, for weights stored as `dtype`.
    pub(crate) fn to_config(&self, dtype: FloatType) -> Map<String, Value> {
        let mut config = Map::new();
        let mut set = |key: &str, value: Value| {
            config.insert(key.to_string(), value);
        };
        set("architectures", json!([self.family.hf_class()]));
        set("model_type", json!(self.family.as_str()));
        set("hidden_act", json!("silu"));
        set("hidden_size", json!(self.hidden_size));
        set("intermediate_size", json!(self.intermediate_size));
        set("num_hidden_layers", json!(self.layers));
        set("num_attention_heads", json!(self.heads));
        set("num_key_value_heads", json!(self.kv_heads));
        set("head_dim", json!(self.head_dim));
        set("vocab_size", json!(self.vocab_size));
        set("max_position_embeddings", json!(self.max_positions));
        set("rms_norm_eps", json!(shortest(f64::from(self.rms_norm_eps))));
        set("tie_word_embeddings", json!(self.tied_embeddings));
        match self.family {
            Family::Llama => {
                set("attention_bias", json!(self.qkv_bias));
                set("mlp_bias", json!(self.mlp_bias));
            }
            Family::Qwen2 => set("use_sliding_window", json!(false)),
        }
        set("bos_token_id", json!(self.bos_token_id));
        set("eos_token_id", json!(self.eos_token_ids.first()));
        set(
            "torch_dtype",
            json!(match dtype {
                FloatType::F32 => "float32",
                FloatType::F16 => "float16",
                FloatType::BF16 => "bfloat16",
            }),
        );
        self.rope.write_config(&mut config);
        config
    }
}

/// GGUF numbers are f32. The shortest decimal that is the same f32 is what the original config.json said.
fn shortest(number: f64) -> f64 {
    (number as f32).to_string().parse().unwrap_or(number)
}

/// Whether there is such a tensor, in whatever type.
fn holds(weights: &Weights, wanted: impl Fn(&str) -> bool) -> bool {
    weights.names().any(&wanted) || weights.unsupported().any(|tensor| wanted(&tensor.name))
}

/// The metadata of one architecture, asked by the part of the key after `llama.` or `qwen2.`.
struct Metadata<'a> {
    values: &'a GgufMetadata,
    family: Family,
}

impl<'a> Metadata<'a> {
    fn new(file: &'a GgufFile) -> Result<Self, ModelError> {
        let values = &file.metadata;
        let name = values.require_string("general.architecture")?;
        let Some(family) = Family::ALL.into_iter().find(|family| family.as_str() == name) else {
            return Err(ModelError::Unsupported {
                file: values.file().to_string(),
                key: "general.architecture".to_string(),
                found: format!("{name:?}"),
                supported: "supported are llama and qwen2".to_string(),
            });
        };
        let metadata = Self { values, family };
        let parts = values.unsigned("split.count")?.unwrap_or(1);
        if parts > 1 {
            let advice = "join the parts into one file first (llama-gguf-split --merge)";
            return Err(metadata.unsupported("split.count", parts.to_string(), advice));
        }
        let experts = metadata.values.unsigned(&metadata.key("expert_count"))?.unwrap_or(0);
        if experts > 0 {
            let supported = "only dense models, with one feed-forward network a layer";
            return Err(metadata.unsupported(&metadata.key("expert_count"), experts.to_string(), supported));
        }
        Ok(metadata)
    }

    fn key(&self, rest: &str) -> String {
        format!("{}.{rest}", self.family)
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

    fn required_size(&self, rest: &str, most: usize) -> Result<usize, ModelError> {
        self.size(rest, most)?.ok_or_else(|| ModelError::MissingKey {
            file: self.values.file().to_string(),
            key: self.key(rest),
            expected: format!("a whole number from 1 to {most}"),
        })
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

    /// Query heads, key/value heads and the width of a head.
    fn heads(&self, hidden_size: usize) -> Result<(usize, usize, usize), ModelError> {
        let heads = self.required_size("attention.head_count", most::HEADS)?;
        let kv_heads = self.size("attention.head_count_kv", most::HEADS)?.unwrap_or(heads);
        if heads % kv_heads != 0 {
            let key = self.key("attention.head_count_kv");
            return Err(self.wrong(&key, kv_heads.to_string(), format!("a divisor of the {heads} heads")));
        }
        let head_dim = match self.size("attention.key_length", most::HEAD_DIM)? {
            Some(head_dim) => head_dim,
            None if hidden_size.is_multiple_of(heads) && hidden_size / heads <= most::HEAD_DIM => hidden_size / heads,
            None => {
                let expected = format!("a multiple of the {heads} heads, or a key attention.key_length");
                return Err(self.wrong(&self.key("embedding_length"), hidden_size.to_string(), expected));
            }
        };
        if head_dim % 2 != 0 {
            let expected = "heads of even width, because rotary embedding turns pairs";
            return Err(self.wrong(&self.key("attention.key_length"), head_dim.to_string(), expected));
        }
        for (rest, supported) in [
            ("attention.value_length", "keys and values must have heads of the same width"),
            ("rope.dimension_count", "the whole head must be turned"),
        ] {
            if let Some(found) = self.size(rest, most::HEAD_DIM)?
                && found != head_dim
            {
                return Err(self.unsupported(&self.key(rest), format!("{found} of {head_dim}"), supported));
            }
        }
        Ok((heads, kv_heads, head_dim))
    }

    fn biases(&self, weights: &Weights) -> Result<Biases, ModelError> {
        if self.family == Family::Qwen2 {
            return Ok(super::qwen2::BIASES);
        }
        let any = |modules: &[&str]| {
            holds(weights, |name| modules.iter().any(|module| name.ends_with(&format!("{module}.bias"))))
        };
        let qkv = any(&["q_proj", "k_proj", "v_proj"]);
        let o = any(&["o_proj"]);
        if qkv != o {
            let found = if qkv { "there without a bias of attn_output" } else { "there without those of Q, K and V" };
            let supported = "a llama has all four attention biases or none";
            return Err(self.unsupported("attention biases", found.to_string(), supported));
        }
        Ok(Biases { qkv, o, mlp: any(&["gate_proj", "up_proj", "down_proj"]) })
    }

    fn rope(&self, factors: Option<&[f32]>, head_dim: usize, max_positions: usize) -> Result<RopeSpec, ModelError> {
        let theta = self.positive("rope.freq_base")?.unwrap_or(self.family.defaults().rope_theta);
        let scaling = self.rope_scaling(max_positions)?;
        let scaling = match (factors, scaling) {
            (None, scaling) => scaling,
            (Some(factors), RopeScaling::Default) => self.rope_factors(factors, head_dim, max_positions)?,
            (Some(_), other) => {
                let found = format!("{:?} beside a tensor rope_freqs.weight", other.name());
                return Err(self.unsupported(&self.key("rope.scaling.type"), found, "one or the other"));
            }
        };
        let spec = RopeSpec { head_dim, theta, max_positions, scaling };
        spec.check(&Keys { file: self.values.file(), path: &self.key("rope."), map: &Map::new() })?;
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
        // Before there was a type there was only the linear factor.
        let old = self.positive("rope.scale_linear")?.filter(|factor| *factor != 1.0);
        let name = match (self.values.string(&key)?, old) {
            (Some(name), _) => name,
            (None, Some(_)) => "linear",
            (None, None) => "none",
        };
        match name {
            "none" => Ok(RopeScaling::Default),
            "linear" => {
                let factor = match old {
                    Some(factor) => factor,
                    None => self.required_positive("rope.scaling.factor")?,
                };
                Ok(RopeScaling::Linear { factor })
            }
            "yarn" => {
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
        let mut opened = block_on(gguf::open(Rc::new(BytesSource::new("m.gguf", bytes)))).unwrap();
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
            (if rest.contains("ggml") || rest.contains("split") { rest.to_string() } else { key(rest) }, value.clone())
        }));
        opened.metadata = GgufMetadata::new("m.gguf", values);
        opened
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
        assert_eq!((spec.vocab_size, spec.head_dim, spec.kv_heads, spec.rms_norm_eps), (40, 8, 2, 1e-5));
        assert_eq!((spec.bos_token_id, spec.eos_token_ids.len()), (Some(1), 0));
        assert!(spec.tied_embeddings && !spec.qkv_bias && !spec.mlp_bias);
        let config = spec.to_config(FloatType::BF16);
        assert_eq!((&config["rms_norm_eps"], &config["torch_dtype"]), (&json!(1e-5), &json!("bfloat16")));
        assert_eq!(ModelSpec::from_config(&config).unwrap(), spec);

        let qwen2 = ModelSpec::from_gguf(&file("qwen2", &["output.weight"], &[])).unwrap();
        assert!(!qwen2.tied_embeddings && qwen2.qkv_bias && !qwen2.o_bias);
        assert_eq!(ModelSpec::from_config(&qwen2.to_config(FloatType::F32)).unwrap(), qwen2);

        let biases = ["blk.0.attn_q.bias", "blk.0.attn_output.bias", "blk.0.ffn_up.bias"];
        let biased = ModelSpec::from_gguf(&file("llama", &biases, &[])).unwrap();
        assert!(biased.qkv_bias && biased.o_bias && biased.mlp_bias);
        let error = ModelSpec::from_gguf(&file("llama", &biases[..1], &[])).unwrap_err().to_string();
        assert!(error.contains("all four attention biases"), "{error}");
    }

    #[test]
    fn rope_factors_are_exact_in_the_rebuilt_configuration() {
        let mut opened = file("llama", &[], &[("rope.freq_base", Float(500_000.0))]);
        opened.rope_freqs = Some(vec![1.0, 1.0, 3.317_382_6, 8.0]);
        let spec = ModelSpec::from_gguf(&opened).unwrap();
        let rope = spec.rope.frequencies(100).unwrap();
        assert_eq!(rope.attention_scaling, 1.0);
        let plain = RopeSpec { scaling: RopeScaling::Default, ..spec.rope.clone() }.frequencies(100).unwrap();
        for (i, divisor) in [1.0f32, 1.0, 3.317_382_6, 8.0].into_iter().enumerate() {
            assert!((rope.inv_freq[i] * divisor / plain.inv_freq[i] - 1.0).abs() < 3e-7);
        }
        let again = ModelSpec::from_config(&spec.to_config(FloatType::F32)).unwrap();
        assert_eq!(again.rope.frequencies(100).unwrap(), rope);
        assert_eq!(again.rope.frequencies(1000).unwrap(), rope);

        opened.rope_freqs = Some(vec![1.0; 3]);
        let error = ModelSpec::from_gguf(&opened).unwrap_err().to_string();
        assert!(error.contains("rope_freqs.weight") && error.contains("4 numbers"), "{error}");
    }

    #[test]
    fn rope_scalings_are_read() {
        let scaling = |entries: &[(&str, MetadataValue)]| {
            ModelSpec::from_gguf(&file("qwen2", &[], entries)).map(|spec| spec.rope.scaling)
        };
        let factor = ("rope.scaling.factor", Float(4.0));
        let linear = scaling(&[("rope.scaling.type", string("linear")), factor.clone()]).unwrap();
        assert_eq!(linear, RopeScaling::Linear { factor: 4.0 });
        assert_eq!(scaling(&[("rope.scale_linear", Float(2.0))]).unwrap(), RopeScaling::Linear { factor: 2.0 });
        let original = ("rope.scaling.original_context_length", Unsigned(64));
        let yarn = scaling(&[("rope.scaling.type", string("yarn")), factor, original]).unwrap();
        let RopeScaling::Yarn { attention_factor, original_max_positions, .. } = yarn else { unreachable!("{yarn:?}") };
        assert_eq!((attention_factor, original_max_positions), (0.1 * 4f64.ln() + 1.0, 64));
        let error = scaling(&[("rope.scaling.type", string("longrope"))]).unwrap_err().to_string();
        assert!(error.contains("qwen2.rope.scaling.type") && error.contains("longrope"), "{error}");
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
            (("split.count", Unsigned(3)), ["split.count", "is 3", "join"]),
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
