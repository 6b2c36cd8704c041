#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use std::rc::Rc;

use pollster::block_on;

use super::*;
use crate::model::spec::Over;
use crate::weights::BytesSource;

use MetadataValue::{Float, Signed, Unsigned};

/// A file of one layer, an embedding of `[vocab, hidden]` = `[40, 32]` and the tensors `more`, all zeros.
fn file(architecture: &str, more: &[&str], entries: &[(&str, MetadataValue)]) -> GgufFile {
    // A head with a bias is no embedding.
    let head: &[&str] = if architecture == "phi2" { &["output.weight"] } else { &[] };
    let tensors: Vec<&str> = ["token_embd.weight"].iter().chain(head).chain(more).copied().collect();
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
    bytes.resize(bytes.len().next_multiple_of(32) + tensors.len() * 40 * 128, 0);
    let mut opened = block_on(gguf::open(Rc::new(BytesSource::new("m.gguf", bytes)), &[])).unwrap();
    let key = |rest: &str| format!("{architecture}.{rest}");
    let mut values = vec![
        ("general.architecture".to_string(), MetadataValue::String(architecture.to_string())),
        (key("embedding_length"), Unsigned(32)),
        (key("feed_forward_length"), Unsigned(48)),
        (key("block_count"), Unsigned(4)),
        (key("context_length"), Unsigned(256)),
        (key("attention.head_count"), Unsigned(4)),
        (key("attention.head_count_kv"), Unsigned(2)),
        (key("attention.layer_norm_rms_epsilon"), Float(f64::from(1e-5f32))),
        (key("attention.layer_norm_epsilon"), Float(f64::from(1e-5f32))),
    ];
    // What llama.cpp wants of some architectures, and a base that the format cannot say otherwise.
    values.extend(match architecture {
        "granite" => vec![(key("logit_scale"), Float(2.0))],
        "cohere2" => vec![(key("logit_scale"), Float(2.0)), (key("attention.sliding_window"), Unsigned(64))],
        "gptneox" => vec![(key("use_parallel_residual"), MetadataValue::Bool(true))],
        "olmo2" => vec![(key("rope.freq_base"), Float(500_000.0))],
        _ => vec![],
    });
    values.extend(entries.iter().map(|(rest, value)| {
        (if rest.contains("ggml") || rest.contains("general") { rest.to_string() } else { key(rest) }, value.clone())
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
    opened.rope_factors.every = Some(vec![1.0, 1.0, 3.317_382_6, 8.0]);
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

    opened.rope_factors.every = Some(vec![1.0; 3]);
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

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Decision {
    /// It changes what is computed.
    Read,
    /// Its value asks for what is not built.
    Refused,
    /// It says nothing of what is computed, or llama.cpp does not read it for the architecture.
    Ignored,
}

use Decision::{Ignored, Read, Refused};

const EVERY: &str = "llama qwen2 mistral3 qwen3 smollm3 granite seed_oss ernie4_5 gemma gemma2 gemma3 phi3 olmo2 glm4 exaone4 \
    starcoder2 nemotron stablelm cohere2 phi2 gptneox falcon gpt2";
const LAYER_NORMS: &str = "starcoder2 nemotron stablelm cohere2 phi2 gptneox falcon gpt2";
/// Those with layers that slide.
const SLIDE: &str = "gemma2 gemma3 olmo2 cohere2 exaone4";

/// Entries, the last of which is in question, and what becomes of it in which architectures.
type Case = (Vec<(&'static str, MetadataValue)>, &'static [(&'static str, Decision)]);

/// The keys that llama.cpp reads for these architectures (`src/llama-arch.cpp`, `src/llama-model.cpp`, `src/models`), each
/// with a value that is not the default: the first list that names an architecture counts, and where none does, the key is
/// ignored.
fn cases() -> Vec<Case> {
    const READ: &[(&str, Decision)] = &[(EVERY, Read)];
    const REFUSED: &[(&str, Decision)] = &[(EVERY, Refused)];
    const NONE: &[(&str, Decision)] = &[];
    // Of how queries and keys are turned, which some do not.
    const TURNED: &[(&str, Decision)] = &[("gpt2", Ignored), (EVERY, Read)];
    const UNTURNED: &[(&str, Decision)] = &[("gpt2", Ignored), (EVERY, Refused)];
    let yarn = |key: &'static str, value: MetadataValue| {
        let of = |value| ("rope.scaling.type", value);
        vec![of(string("yarn")), ("rope.scaling.factor", Float(2.0)), (key, value)]
    };
    let one = |key: &'static str, value: MetadataValue| vec![(key, value)];
    let sliding =
        |key: &'static str, value: MetadataValue| vec![("attention.sliding_window", Unsigned(32)), (key, value)];
    let bools = |values: [bool; 4]| MetadataValue::Array(MetadataArray::Bool(values.to_vec()));
    let integers = |values: [u64; 4]| MetadataValue::Array(MetadataArray::Unsigned(values.to_vec()));
    let (yes, no) = (MetadataValue::Bool(true), MetadataValue::Bool(false));
    vec![
        (one("context_length", Unsigned(512)), READ),
        (one("embedding_length", Unsigned(64)), READ),
        (one("block_count", Unsigned(2)), READ),
        (one("feed_forward_length", Unsigned(64)), READ),
        (one("feed_forward_length", integers([48; 4])), NONE),
        (one("feed_forward_length", integers([48, 48, 64, 48])), REFUSED),
        (one("attention.head_count", Unsigned(2)), READ),
        (one("attention.head_count", integers([4, 4, 2, 4])), REFUSED),
        (one("attention.head_count_kv", Unsigned(1)), &[("gptneox gpt2", Ignored), (EVERY, Read)]),
        (one("attention.key_length", Unsigned(16)), &[("gpt2", Refused), (EVERY, Read)]),
        (one("attention.value_length", Unsigned(16)), REFUSED),
        (one("attention.key_length_swa", Unsigned(16)), REFUSED),
        (one("attention.value_length_swa", Unsigned(16)), REFUSED),
        (one("attention.layer_norm_rms_epsilon", Float(0.5)), &[(LAYER_NORMS, Ignored), (EVERY, Read)]),
        (one("attention.layer_norm_epsilon", Float(0.5)), &[(LAYER_NORMS, Read)]),
        (one("attention.causal", no.clone()), REFUSED),
        (one("attention.causal", yes.clone()), NONE),
        (one("attention.temperature_scale", Float(0.5)), REFUSED),
        // Of Phi-3 llama.cpp reads it and leaves it out; it does not read those of Mistral and StarCoder2, which mean it.
        (one("attention.sliding_window", Unsigned(32)), &[(SLIDE, Read), ("mistral3 phi3 starcoder2", Read)]),
        (one("attention.sliding_window", Unsigned(0)), &[("cohere2", Refused), ("gemma2", Read)]),
        (sliding("attention.sliding_window_pattern", Unsigned(3)), &[(SLIDE, Read)]),
        (
            sliding("attention.sliding_window_pattern", bools([true, true, false, false])),
            &[(SLIDE, Read), ("mistral3", Refused)],
        ),
        (one("attn_logit_softcapping", Float(10.0)), &[("gemma2", Read)]),
        (one("final_logit_softcapping", Float(10.0)), &[("gemma2 gemma3", Read)]),
        (one("attention.scale", Float(0.5)), &[("granite", Read)]),
        (one("embedding_scale", Float(3.0)), &[("granite", Read)]),
        (one("residual_scale", Float(0.5)), &[("granite", Read)]),
        (one("logit_scale", Float(3.0)), &[("granite cohere2", Read)]),
        // A norm of its own tells that of StableLM.
        (one("use_parallel_residual", no.clone()), &[("gptneox", Read)]),
        (one("rope.freq_base", Float(5.0)), TURNED),
        (one("rope.freq_base_swa", Float(5.0)), &[("gemma3", Read), ("gpt2", Ignored), (EVERY, Refused)]),
        (sliding("rope.freq_base", Float(5.0)), &[("olmo2", Refused), ("gpt2", Ignored), (EVERY, Read)]),
        (
            one("rope.dimension_count", Unsigned(4)),
            &[("phi3 glm4 nemotron stablelm phi2 gptneox", Read), ("gpt2", Ignored), (EVERY, Refused)],
        ),
        (one("rope.dimension_count", Unsigned(3)), UNTURNED),
        (one("rope.dimension_count_swa", Unsigned(4)), UNTURNED),
        (one("rope.dimension_sections", integers([1, 1, 2, 0])), REFUSED),
        (one("rope.dimension_sections", integers([0; 4])), NONE),
        (one("rope.scale_linear", Float(2.0)), TURNED),
        (one("rope.scaling.factor", Float(2.0)), TURNED),
        (one("rope.scaling.factor", Float(0.0)), NONE),
        (one("rope.scaling.type", string("longrope")), UNTURNED),
        (one("rope.scaling.attn_factor", Float(2.0)), UNTURNED),
        (one("rope.scaling.attn_factor", Float(1.0)), NONE),
        (one("rope.scaling.finetuned", no), &[("granite", Refused)]),
        (one("rope.scaling.finetuned", yes), NONE),
        (yarn("rope.scaling.attn_factor", Float(2.0)), TURNED),
        (yarn("rope.scaling.original_context_length", Unsigned(64)), TURNED),
        (yarn("rope.scaling.original_context_length", Unsigned(512)), TURNED),
        (yarn("rope.scaling.yarn_beta_fast", Float(2.0)), TURNED),
        (yarn("rope.scaling.yarn_beta_slow", Float(2.0)), TURNED),
        (yarn("rope.scaling.yarn_ext_factor", Float(0.5)), UNTURNED),
        (yarn("rope.scaling.yarn_attn_factor", Float(0.5)), UNTURNED),
        (yarn("rope.scaling.yarn_attn_factor", Float(f64::from(1.069_314_7f32))), NONE),
        (yarn("rope.scaling.yarn_log_multiplier", Float(0.5)), UNTURNED),
        // Beside no stretching there is nothing to correct.
        (one("rope.scaling.yarn_ext_factor", Float(0.5)), NONE),
        (one("expert_count", Unsigned(4)), REFUSED),
        (one("nextn_predict_layers", Unsigned(1)), REFUSED),
        (one("tokenizer.ggml.bos_token_id", Unsigned(3)), READ),
        (one("tokenizer.ggml.eos_token_id", Unsigned(3)), READ),
        // Said of the model, or for others.
        (one("vocab_size", Unsigned(7)), NONE),
        (one("embedding_length_out", Unsigned(7)), NONE),
        (one("expert_used_count", Unsigned(2)), NONE),
        (one("rope.scaling.alpha", Float(2.0)), NONE),
        (one("deepstack_mapping", MetadataValue::Array(MetadataArray::Signed(vec![-1; 4]))), NONE),
        (one("tensor_data_layout", string("Meta AI original pth")), NONE),
        (one("pooling_type", Unsigned(1)), NONE),
        (one("general.file_type", Unsigned(7)), NONE),
        (one("general.quantization_version", Unsigned(2)), NONE),
        (one("general.name", string("x")), NONE),
    ]
}

#[test]
fn every_key_is_decided() {
    let mut wrong = Vec::new();
    for architecture in EVERY.split_whitespace() {
        for (entries, decisions) in cases() {
            let (last, before) = entries.split_last().unwrap();
            let named = decisions.iter().find(|(names, _)| names.split_whitespace().any(|name| name == architecture));
            let expected = named.map_or(Ignored, |(_, decision)| *decision);
            // Refused for what is before: yarn in Phi-3, and OLMo 3 by another base.
            let Ok(plain) = ModelSpec::from_gguf(&file(architecture, &[], before)) else { continue };
            let found = match ModelSpec::from_gguf(&file(architecture, &[], &entries)) {
                Ok(spec) if spec == plain => Ignored,
                Ok(spec) => {
                    let config = spec.to_config(FloatType::F32);
                    assert_eq!(ModelSpec::from_config(&config).unwrap(), spec, "{architecture}: {last:?}: {config:?}");
                    Read
                }
                Err(error) => {
                    assert!(error.to_string().contains(last.0), "{architecture}: {}: {error}", last.0);
                    Refused
                }
            };
            if found != expected {
                wrong.push(format!("{architecture}: {} = {:?} is {found:?}, expected {expected:?}", last.0, last.1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What the families are called that come of an architecture and some tensors or keys, and that config.json can say it.
#[test]
fn metadata_and_tensors_tell_the_family() {
    let of = |architecture: &str, more: &[&str], entries: &[(&str, MetadataValue)]| {
        let spec = ModelSpec::from_gguf(&file(architecture, more, entries)).unwrap();
        let config = spec.to_config(FloatType::F32);
        assert_eq!(ModelSpec::from_config(&config).unwrap(), spec, "{architecture}: {config:?}");
        spec
    };
    let slides =
        |spec: &ModelSpec| spec.layers.iter().map(|layer| layer.attention.sliding_window.is_some()).collect::<Vec<_>>();
    for architecture in EVERY.split_whitespace() {
        let spec = of(architecture, &[], &[]);
        assert_eq!(spec.family.gguf_architecture(), Some(architecture));
    }
    assert_eq!(of("olmo2", &[], &[]).family.name, "olmo2");
    let olmo3 = of("olmo2", &[], &[("attention.sliding_window", Unsigned(32))]);
    assert_eq!((olmo3.family.name, slides(&olmo3)), ("olmo3", vec![true, true, true, false]));
    assert_eq!(slides(&of("gemma2", &[], &[("context_length", Unsigned(8192))])), [true, false, true, false]);
    assert_eq!(slides(&of("gemma3", &[], &[("context_length", Unsigned(8192))])), [false; 4]);
    assert_eq!(slides(&of("phi3", &[], &[("attention.sliding_window", Unsigned(0))])), [false; 4]);

    let parallel = |spec: ModelSpec| spec.layers[0].parallel;
    assert!(parallel(of("stablelm", &[], &[])) && !parallel(of("stablelm", &["blk.0.ffn_norm.weight"], &[])));
    let kv_heads = |spec: &ModelSpec| spec.layers[0].attention.kv_heads;
    let falcon = of("falcon", &[], &[("attention.head_count_kv", Unsigned(1))]);
    assert_eq!((kv_heads(&falcon), falcon.family.shared_norms().len()), (1, 1));
    let new = of("falcon", &["blk.0.attn_norm_2.weight"], &[]);
    assert_eq!((kv_heads(&new), new.family.shared_norms().len()), (2, 0));

    let scale = |architecture, layers| {
        let sizes = [("block_count", Unsigned(layers)), ("attention.key_length", Unsigned(16))];
        of(architecture, &[], &sizes).layers[0].attention.scale
    };
    assert_eq!((scale("gemma2", 4), scale("gemma2", 46)), (0.25, 8f32.powf(-0.5)));
    assert_eq!((scale("gemma3", 46), scale("gemma3", 62)), (0.25, 8f32.powf(-0.5)));
    assert_eq!(scale("granite", 4), 0.25);
}

#[test]
fn a_baichuan_of_32_layers_is_a_llama() {
    let of = |layers| ModelSpec::from_gguf(&file("baichuan", &["output.weight"], &[("block_count", Unsigned(layers))]));
    let spec = of(32).unwrap();
    assert_eq!((spec.family.name, spec.layers.len(), spec.ropes.len()), ("llama", 32, 1));
    assert_eq!(ModelSpec::from_config(&spec.to_config(FloatType::F32)).unwrap(), spec);
    let error = of(40).unwrap_err().to_string();
    assert!(error.contains("m.gguf: ") && error.contains("baichuan.block_count") && error.contains("7B"), "{error}");
}

#[test]
fn norms_of_stablelms_heads_are_rows_of_a_matrix() {
    let opened = file("stablelm", &["blk.0.attn_q_norm.weight"], &[]);
    let spec = ModelSpec::from_gguf(&opened).unwrap();
    assert_eq!(spec.layers[0].attention.qk_norm.map(|norm| norm.over), Some(Over::EachHead));
    assert_eq!(ModelSpec::from_config(&spec.to_config(FloatType::F32)).unwrap(), spec);
    spec.check_gguf_names("m.gguf", &opened.weights).unwrap();
    // Here it is a vector, as long as the four heads together.
    let error = spec.renamed(opened.weights).unwrap_err().to_string();
    assert!(error.contains("`blk.0.attn_q_norm.weight` has shape [32], expected [4, 8]"), "{error}");

    let plain = file("stablelm", &[], &[]);
    assert!(ModelSpec::from_gguf(&plain).unwrap().layers[0].attention.qk_norm.is_none());
}

#[test]
fn factors_for_short_and_long_texts_are_longrope() {
    let entries = [
        ("rope.scaling.attn_factor", Float(1.25)),
        ("rope.scaling.original_context_length", Unsigned(64)),
        ("rope.dimension_count", Unsigned(4)),
    ];
    let mut opened = file("phi3", &[], &entries);
    opened.rope_factors.short = Some(vec![1.0, 1.5]);
    let error = ModelSpec::from_gguf(&opened).unwrap_err().to_string();
    assert!(error.contains("`rope_factors_long.weight` is missing"), "{error}");
    opened.rope_factors.long = Some(vec![1.0, 4.0]);
    let spec = ModelSpec::from_gguf(&opened).unwrap();
    let expected = RopeScaling::LongRope {
        short_factor: vec![1.0, 1.5],
        long_factor: vec![1.0, 4.0],
        attention_factor: 1.25,
        original_max_positions: 64,
    };
    assert_eq!((&spec.ropes[0].scaling, spec.restarts_after), (&expected, Some(64)));
    assert_eq!(ModelSpec::from_config(&spec.to_config(FloatType::F32)).unwrap(), spec);
    opened.rope_factors.long = Some(vec![1.0, 0.0]);
    let error = ModelSpec::from_gguf(&opened).unwrap_err().to_string();
    assert!(error.contains("rope_factors_long.weight") && error.contains("not above 0"), "{error}");
}

#[test]
fn keys_that_llama_cpp_wants_are_missed_by_name() {
    for (architecture, key) in [
        ("gptneox", "use_parallel_residual"),
        ("granite", "logit_scale"),
        ("cohere2", "logit_scale"),
        ("cohere2", "attention.sliding_window"),
        ("phi2", "attention.layer_norm_epsilon"),
        ("gemma2", "attention.layer_norm_rms_epsilon"),
        ("qwen3", "feed_forward_length"),
        ("falcon", "block_count"),
    ] {
        let mut opened = file(architecture, &[], &[]);
        let name = format!("{architecture}.{key}");
        let entries: Vec<_> =
            opened.metadata.keys().map(|key| (key.to_string(), opened.metadata.get(key).unwrap().clone())).collect();
        opened.metadata = GgufMetadata::new("m.gguf", entries.into_iter().filter(|(key, _)| *key != name));
        let error = ModelSpec::from_gguf(&opened).unwrap_err().to_string();
        assert!(error.contains(&format!("m.gguf: key `{name}` is missing")) || error.contains(&name), "{error}");
    }
}

#[test]
fn wrong_metadata_is_named() {
    let layers = MetadataValue::Array(MetadataArray::Unsigned(vec![48, 64]));
    let cases = [
        (("feed_forward_length", layers), ["llama.feed_forward_length", "array of 2", "the same one for every layer"]),
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
    let error = ModelSpec::from_gguf(&file("gemma3n", &[], &[])).unwrap_err().to_string();
    assert!(error.contains("general.architecture") && error.contains("gemma3n"), "{error}");
}
