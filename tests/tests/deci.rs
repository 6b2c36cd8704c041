//! Folders of the format `deci`: the keys of a plan by hand, every fixture written or refused by name, and read back.

use std::path::Path;
use std::rc::Rc;

use blockpruner::export::{
    DiskFolder, ExportError, HfFormat, HfOptions, HfSource, HfSummary, check_hf, export_hf, written_bytes,
};
use blockpruner::gpu::GpuOptions;
use blockpruner::model::{BlockSet, Checkpoint, ModelSpec};
use blockpruner::session::Session;
use blockpruner::text::Windows;
use blockpruner::weights::FloatType;
use blockpruner_tests::{fixture, fixture_names, open, relative};
use pollster::block_on;
use serde_json::{Map, Value, json};

fn options(blocks: &str) -> HfOptions {
    HfOptions::new(blocks.parse().unwrap(), HfFormat::Deci)
}

/// Writes a folder, opens and checks it.
fn written(
    source: &Checkpoint,
    options: &HfOptions,
    target: &Path,
) -> Result<(Rc<Checkpoint>, HfSummary), ExportError> {
    let mut folder = DiskFolder::create(target).unwrap();
    let summary = block_on(export_hf(source, options, &mut folder, &mut |_, _| {}))?;
    folder.finish().unwrap();
    assert_eq!(written_bytes(source, options).unwrap(), summary.bytes, "{}", target.display());
    let opened = block_on(Checkpoint::open(target.to_str().unwrap())).unwrap();
    block_on(check_hf(source, options, &opened, &mut |_, _| {})).unwrap();
    Ok((Rc::new(opened), summary))
}

fn config(folder: &Path) -> Map<String, Value> {
    serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap()
}

fn attention(group: impl Into<Option<u32>>) -> Value {
    let group = group.into();
    json!({"no_op": group.is_none(), "replace_with_linear": false, "n_heads_in_group": group})
}

fn ffn(multiple: impl Into<Option<f64>>) -> Value {
    let multiple = multiple.into();
    json!({"no_op": multiple.is_none(), "replace_with_linear": false, "ffn_mult": multiple})
}

/// Three query heads share one of keys; feed-forward blocks are padded from 100 to 256 = 2 * 5.333333 * 72 / 3, rounded up.
#[test]
fn the_keys_are_those_that_readers_want() {
    let root = tempfile::tempdir().unwrap();
    let (llama, _) = fixture("llama-f32");
    let target = root.path().join("deci");
    let (again, summary) = written(&llama, &options("mha:1,mlp:0,mlp:2"), &target).unwrap();
    let config = config(&target);
    let blocks = json!([
        {"attention": attention(3), "ffn": ffn(None)},
        {"attention": attention(None), "ffn": ffn(5.333333)},
        {"attention": attention(3), "ffn": ffn(None)},
    ]);
    assert_eq!(config["block_configs"], blocks);
    for (key, value) in [
        ("model_type", json!("nemotron-nas")),
        ("architectures", json!(["DeciLMForCausalLM"])),
        ("num_hidden_layers", json!(3)),
        ("num_attention_heads", json!(3)),
        ("hidden_size", json!(72)),
        ("intermediate_size", json!(256)),
        ("vocab_size", json!(307)),
        ("hidden_act", json!("silu")),
        ("rms_norm_eps", json!(1e-5)),
        ("rope_theta", json!(10000.0)),
        ("attention_bias", json!(false)),
        ("mlp_bias", json!(false)),
        ("tie_word_embeddings", json!(false)),
        ("torch_dtype", json!("float32")),
    ] {
        assert_eq!(config[key], value, "{key}");
    }
    for key in ["rope_scaling", "drop_attn_list", "drop_mlp_list", "per_layer_config"] {
        assert!(!config.contains_key(key), "{key}");
    }
    let file = |key: &str| config["auto_map"][key].as_str().unwrap().split('.').next().unwrap().to_string() + ".py";
    for key in ["AutoConfig", "AutoModelForCausalLM"] {
        assert!(summary.files.contains(&file(key)) && target.join(file(key)).is_file(), "{key}");
    }
    let names: Vec<&str> = again.weights.iter().map(|info| info.name.as_str()).collect();
    let norms = |layer: usize| names.iter().filter(|name| name.starts_with(&format!("model.layers.{layer}."))).count();
    // Attention is four matrices and a norm, a feed-forward block three and one.
    assert_eq!([norms(0), norms(1), norms(2), names.len()], [5, 4, 5, 14 + 3]);
    // What is padded is zero, the rest as it was.
    let read = |checkpoint: &Checkpoint, name: &str| block_on(checkpoint.weights.read_f32(name)).unwrap();
    let (up, down) = ("model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.down_proj.weight");
    let (found, expected) = (read(&again, up), read(&llama, up));
    assert!(
        found[..100 * 72] == expected && found[100 * 72..].iter().all(|value| *value == 0.0) && found.len() == 256 * 72
    );
    for (found, expected) in read(&again, down).chunks(256).zip(read(&llama, down).chunks(100)) {
        assert!(found[..100] == *expected && found[100..].iter().all(|value| *value == 0.0));
    }
}

/// What cannot be such a folder, and why; every other fixture can.
const REFUSED: [(&str, &[&str]); 4] = [
    (
        "computes what Llama does",
        &[
            "cohere2",
            "exaone4",
            "falcon",
            "gemma",
            "glm4",
            "gpt",
            "granite",
            "ministral",
            "mistral",
            "nemotron",
            "olmo",
            "opt",
            "phi",
            "qwen2-sliding",
            "qwen3",
            "smollm3",
            "stablelm",
            "starcoder2",
            "baichuan",
        ],
    ),
    ("no multiple of its 3 heads", &["ernie4-5", "seed-oss"]),
    ("its rotary embedding, of the type ", &["rope-dynamic", "rope-yarn", "rope-longrope", "rope-freqs"]),
    ("a model of images and text", &["gemma3-images", "llava", "mistral3"]),
];
const FITS: [&str; 19] = [
    "gguf-baichuan",
    "gguf-ernie4-5",
    "gguf-floats",
    "gguf-i-quants",
    "gguf-k-quants",
    "gguf-legacy",
    "gguf-mistral",
    "gguf-qwen2",
    "gguf-seed-oss",
    "llama-bf16-tied",
    "llama-biases",
    "llama-f16-sharded",
    "llama-f32",
    "qwen2-bf16",
    "qwen2-f32",
    "rope-linear",
    "rope-llama3",
    "wide",
    "window-2048",
];

#[test]
fn every_fixture_is_written_or_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    let gpu = open(&GpuOptions::default());
    let (mut fits, mut problems) = (Vec::new(), Vec::new());
    for name in fixture_names() {
        let (checkpoint, reference) = fixture(&name);
        let target = root.path().join(&name);
        let dtype = options("mlp:0,mha:1").dtype(FloatType::F32);
        match written(&checkpoint, &dtype, &target) {
            Ok((again, _)) => {
                fits.push(name.clone());
                assert!(HfSource::from(&checkpoint).check_deci().is_ok(), "{name}");
                assert_eq!(
                    (again.spec.family.name, again.spec.absent.to_string()),
                    ("llama", "mha:1,mlp:0".to_string())
                );
                if !reference.without.is_empty() {
                    let windows = Windows::from_ids(reference.ids.clone(), reference.window, Some(1)).unwrap();
                    let perplexity = |checkpoint: &Rc<Checkpoint>, removed: &BlockSet| {
                        let session = Session::builder(checkpoint.clone()).with_gpu(gpu.clone());
                        block_on(session.perplexity(&windows, removed, &mut |_| ())).unwrap().perplexity
                    };
                    let found = perplexity(&again, &BlockSet::new());
                    let expected = perplexity(&checkpoint, &dtype.removed);
                    assert!(relative(found, expected) <= 1e-5, "{name}: {found}, expected {expected}");
                }
            }
            Err(error) => {
                let error = error.to_string();
                assert!(HfSource::from(&checkpoint).check_deci().is_err(), "{name}");
                let plain = name.trim_start_matches("gguf-");
                let expected = |(part, names): &(&str, &[&str])| {
                    error.contains(part) && names.iter().any(|begins| plain.starts_with(begins))
                };
                if !REFUSED.iter().any(expected) {
                    problems.push(format!("{name}: {error}"));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert_eq!(fits, FITS);
}

/// A folder that was written is written on in every format.
#[test]
fn a_written_folder_is_pruned_on() {
    let root = tempfile::tempdir().unwrap();
    let (llama, _) = fixture("qwen2-bf16");
    let (first, _) = written(&llama, &options("mha:1"), &root.path().join("first")).unwrap();
    let (second, _) = written(&first, &options("mlp:2"), &root.path().join("second")).unwrap();
    let (at_once, _) = written(&llama, &options("mha:1,mlp:2"), &root.path().join("at once")).unwrap();
    assert_eq!(second.spec, at_once.spec);
    let read = |name: &str, file: &str| std::fs::read(root.path().join(name).join(file)).unwrap();
    for file in ["config.json", "model.safetensors", "modeling_deci.py", "modeling_blockpruner.py"] {
        assert!(read("second", file) == read("at once", file), "{file}");
    }
    for format in [HfFormat::Removed, HfFormat::Zeroed] {
        let target = root.path().join(format.as_str());
        let options = HfOptions::new("mlp:2".parse().unwrap(), format);
        let (again, summary) = written(&first, &options, &target).unwrap();
        assert_eq!(summary.foreign_code, [""; 0], "{format:?}");
        assert_eq!(again.spec.family.name, "llama");
        assert!(!config(&target).contains_key("block_configs"));
    }
}

/// What runs elsewhere only with certain blocks is said.
#[test]
fn limits_of_readers_are_told() {
    let root = tempfile::tempdir().unwrap();
    let limits = |name: &str, blocks: &str| {
        let (checkpoint, _) = fixture(name);
        let (_, summary) =
            written(&checkpoint, &options(blocks), &root.path().join(format!("{name} {blocks}"))).unwrap();
        summary.limits.join("\n")
    };
    let padded = "feed-forward blocks are written 256 wide instead of 100";
    let first = limits("llama-f32", "mha:0");
    assert!(first.contains(padded) && first.contains("vLLM") && first.contains("mlp:0 comes first"), "{first}");
    let layer = limits("llama-f32", "mha:0,mlp:0");
    assert!(!layer.contains("vLLM"), "{layer}");
    let none = limits("qwen2-f32", "mha:0,mha:1");
    assert!(none.contains("no attention block is left"), "{none}");
    assert!(limits("llama-biases", "mha:1").contains("SGLang computes something else"));
    let narrow = limits("llama-bf16-tied", "mha:1");
    assert!(narrow.contains("MLX does not load it: its heads are 24 wide, and MLX expects 12"), "{narrow}");
}

/// Configurations of other programs: what is more than Llama is refused by its key.
#[test]
fn other_configurations_are_refused_by_name() {
    let entry = |attention: Value, ffn: Value| json!({"attention": attention, "ffn": ffn});
    let read = |entries: Value| {
        let config = json!({
            "model_type": "nemotron-nas", "hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 11,
            "max_position_embeddings": 64, "intermediate_size": null, "num_key_value_heads": null, "block_configs": entries,
        });
        ModelSpec::from_config(config.as_object().unwrap())
    };
    // As NVIDIA's are written; 2 * 3.5 * 96 / 3 = 224 is rounded up.
    let own = json!({
        "n_heads_in_group": 2, "no_op": false, "num_sink_tokens": null, "replace_with_linear": false, "sparsify": null,
        "unshifted_sink": false, "use_prefill_window_in_sink_attention": false, "window_length": null,
    });
    let plain =
        entry(own.clone(), json!({"ffn_mult": 3.5, "no_op": false, "replace_with_linear": false, "sparsify": null}));
    let spec = read(json!([plain, entry(attention(None), ffn(3.5))])).unwrap();
    assert_eq!((spec.family.name, spec.absent.to_string()), ("llama", "mha:1".to_string()));
    assert_eq!(spec.layers[0].attention.kv_heads, 2);
    assert_eq!(spec.parameters(), 2 * 11 * 96 + 96 + (96 + 2 * 96 * 96 + 2 * 48 * 96) + 2 * (96 + 3 * 96 * 256));
    let mut window = own.clone();
    window["window_length"] = json!(512);
    for (second, parts) in [
        (
            entry(json!({"no_op": false, "replace_with_linear": true}), ffn(3.5)),
            ["block_configs[1].attention.replace_with_linear", "true"],
        ),
        (entry(window, ffn(3.5)), ["block_configs[1].attention.window_length", "512"]),
        (
            entry(attention(4), ffn(3.5)),
            ["block_configs[1].attention.n_heads_in_group", "all layers must have the same size"],
        ),
        (entry(attention(3), ffn(3.5)), ["block_configs[1].attention.n_heads_in_group", "a divisor of the 4 heads"]),
        (entry(attention(2), ffn(5.0)), ["block_configs[1].ffn.ffn_mult", "all layers must have the same size"]),
        (entry(attention(2), json!({"no_op": false})), ["block_configs[1].ffn.intermediate_size", "missing"]),
        (json!({"attention": attention(2)}), ["block_configs[1].ffn", "missing"]),
        (json!(7), ["block_configs[1]", "an object"]),
    ] {
        let error = read(json!([plain, second])).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    let error = read(json!([plain])).unwrap_err().to_string();
    assert!(error.contains("a list of 1") && error.contains("2 layers"), "{error}");
}
