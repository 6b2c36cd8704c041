#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::rc::Rc;

use pollster::block_on;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use super::*;
use crate::export::{DiskFolder, SinkFuture};
use crate::weights::{ByteSource, BytesSource};

/// A folder in memory.
struct MemoryFolder {
    files: BTreeMap<String, Vec<u8>>,
    open: Option<String>,
}

impl MemoryFolder {
    fn new() -> Self {
        Self { files: BTreeMap::new(), open: None }
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.files[name]).unwrap()
    }

    /// Every tensor of every weight file, as the `safetensors` crate reads it.
    fn tensors(&self) -> BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> {
        let mut tensors = BTreeMap::new();
        for (_, bytes) in self.files.iter().filter(|(name, _)| name.ends_with(".safetensors")) {
            for (name, view) in SafeTensors::deserialize(bytes).unwrap().tensors() {
                let value = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
                assert!(tensors.insert(name, value).is_none());
            }
        }
        tensors
    }

    fn open(&self) -> Checkpoint {
        let files = self.files.iter().map(|(name, bytes)| {
            let source: Rc<dyn ByteSource> = Rc::new(BytesSource::new(name.clone(), bytes.clone()));
            (name.clone(), source)
        });
        block_on(Checkpoint::from_folder_files("exported", files.collect())).unwrap()
    }
}

impl FolderSink for MemoryFolder {
    fn begin_file<'a>(&'a mut self, name: &'a str) -> SinkFuture<'a> {
        assert!(self.open.replace(name.to_string()).is_none());
        assert!(self.files.insert(name.to_string(), Vec::new()).is_none(), "{name} twice");
        Box::pin(std::future::ready(Ok(())))
    }

    fn write<'a>(&'a mut self, bytes: &'a [u8]) -> SinkFuture<'a> {
        let file = self.files.get_mut(self.open.as_ref().unwrap()).unwrap();
        file.extend_from_slice(bytes);
        Box::pin(std::future::ready(Ok(())))
    }

    fn end_file(&mut self) -> SinkFuture<'_> {
        assert!(self.open.take().is_some());
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A sink that hands everything on to a folder on disk, which is full after `room` bytes.
struct FillingDisk {
    folder: DiskFolder,
    room: usize,
}

impl FolderSink for FillingDisk {
    fn begin_file<'a>(&'a mut self, name: &'a str) -> SinkFuture<'a> {
        self.folder.begin_file(name)
    }

    fn write<'a>(&'a mut self, bytes: &'a [u8]) -> SinkFuture<'a> {
        if bytes.len() > self.room {
            let (path, reason) = ("out".to_string(), "no space left".to_string());
            return Box::pin(std::future::ready(Err(ExportError::Write { path, reason, advice: "free some space" })));
        }
        self.room -= bytes.len();
        self.folder.write(bytes)
    }

    fn end_file(&mut self) -> SinkFuture<'_> {
        self.folder.end_file()
    }
}

/// How the test model is stored.
#[derive(Clone, Copy)]
struct Stored {
    family: &'static str,
    matrices: FloatType,
    tied: bool,
}

const LLAMA: Stored = Stored { family: "llama", matrices: FloatType::BF16, tied: true };
const QWEN2: Stored = Stored { family: "qwen2", matrices: FloatType::F32, tied: false };

/// A model of three layers with random weights: norms in F32, matrices as `stored` says, one rotary buffer a layer, a
/// buffer of integers, and for a tied model a copy of the head as some checkpoints carry it.
fn model(how: Stored) -> Checkpoint {
    let config = json!({
        "architectures": ["X"], "model_type": how.family, "hidden_size": 8, "intermediate_size": 12,
        "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 11,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": how.tied, "torch_dtype": "bfloat16", "attention_bias": true,
        "mlp_bias": true, "max_position_embeddings": 64, "hidden_act": "silu",
    });
    let spec = ModelSpec::from_config(config.as_object().unwrap()).unwrap();
    let tensors: Vec<_> = spec.blocks().flat_map(|b| spec.block_tensors(b)).chain(spec.outer_tensors()).collect();
    let mut wanted = stored(&tensors);
    wanted.extend((0..3).map(|n| (format!("model.layers.{n}.self_attn.rotary_emb.inv_freq"), vec![2])));
    wanted.extend((0..3).map(|n| (format!("model.layers.{n}.note"), vec![3])));
    if how.tied {
        wanted.push(("lm_head.weight".to_string(), vec![11, 8]));
    }
    let mut state = 1u32;
    let mut value = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let mut data: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for (name, shape) in wanted {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| value()).collect();
        let dtype = if shape.len() == 1 { FloatType::F32 } else { how.matrices };
        data.push((name, as_safetensors(dtype), shape, encode(dtype, &values)));
    }
    if how.tied {
        let embedding = data.iter().find(|(name, ..)| name == "model.embed_tokens.weight").unwrap().3.clone();
        data.iter_mut().find(|(name, ..)| name == "lm_head.weight").unwrap().3 = embedding;
    }
    data.push(("model.position_ids".to_string(), Dtype::I64, vec![1], vec![0; 8]));
    let views = data.iter().map(|(name, dtype, shape, b)| (name, TensorView::new(*dtype, shape.clone(), b).unwrap()));
    let mut folder = MemoryFolder::new();
    folder.files.insert("model.safetensors".into(), safetensors::serialize(views, None).unwrap());
    folder.files.insert("config.json".into(), config.to_string().into_bytes());
    folder.files.insert("generation_config.json".into(), b"{}".to_vec());
    folder.open()
}

fn as_safetensors(dtype: FloatType) -> Dtype {
    match dtype {
        FloatType::F32 => Dtype::F32,
        FloatType::F16 => Dtype::F16,
        FloatType::BF16 => Dtype::BF16,
    }
}

fn set(blocks: &str) -> BlockSet {
    blocks.parse().unwrap()
}

fn export(checkpoint: &Checkpoint, options: &HfOptions) -> Result<MemoryFolder, ExportError> {
    let mut folder = MemoryFolder::new();
    // A few rows at a time, so that every matrix comes in several pieces.
    let summary = block_on(export_in_chunks(checkpoint.into(), options, 100, &mut folder, &mut |_, _| {}))?;
    assert!(folder.open.is_none());
    let mut files = summary.files.clone();
    files.sort();
    assert_eq!(files, folder.files.keys().cloned().collect::<Vec<_>>());
    let tensors = folder.tensors();
    assert_eq!(summary.tensors, tensors.len());
    assert_eq!(summary.bytes, tensors.values().map(|(_, _, bytes)| bytes.len() as u64).sum::<u64>());
    assert_eq!(summary.left_out.len(), checkpoint.weights.unsupported().count());
    Ok(folder)
}

fn input_bytes(checkpoint: &Checkpoint, name: &str) -> Vec<u8> {
    let rows = checkpoint.weights.get(name).unwrap().rows();
    block_on(checkpoint.weights.read_rows(name, 0..rows)).unwrap().bytes
}

#[test]
fn removed_blocks_are_absent_and_all_else_is_unchanged() {
    for stored in [LLAMA, QWEN2] {
        let model = model(stored);
        let gone = set("mha:1,mha:2,mlp:2");
        let folder = export(&model, &HfOptions::new(gone.clone(), HfFormat::Removed)).unwrap();
        let tensors = folder.tensors();
        for (name, (dtype, shape, bytes)) in &tensors {
            let info = model.weights.get(name).unwrap();
            assert_eq!((*dtype, shape), (as_safetensors(info.dtype.read_as()), &info.shape), "{name}");
            assert!(*bytes == input_bytes(&model, name), "{name}");
        }
        let missing: Vec<_> = model.weights.names().filter(|name| !tensors.contains_key(*name)).collect();
        let mut expected: Vec<_> =
            gone.iter().flat_map(|b| model.spec.block_tensors(b)).map(|tensor| tensor.name).collect();
        expected.extend([1, 2].map(|n| format!("model.layers.{n}.self_attn.rotary_emb.inv_freq")));
        expected.push("model.layers.2.note".into());
        if stored.tied {
            expected.push("lm_head.weight".into());
        }
        expected.sort();
        assert_eq!(missing, expected);

        let again = folder.open();
        assert_eq!(again.spec, ModelSpec { absent: gone, ..model.spec.clone() });
        assert_eq!(folder.files["generation_config.json"], b"{}");
    }
}

#[test]
fn the_configuration_says_what_is_gone_and_how_to_load_it() {
    let folder = export(&model(QWEN2), &HfOptions::new(set("mlp:0,mha:2,mlp:2"), HfFormat::Removed)).unwrap();
    let config = folder.json("config.json");
    assert_eq!(config["model_type"], "blockpruner_qwen2");
    assert_eq!(config["per_layer_config"], json!({"0": {"skip": ["mlp"]}, "2": {"skip": ["attention", "mlp"]}}));
    assert_eq!((&config["drop_attn_list"], &config["drop_mlp_list"]), (&json!([2]), &json!([0, 2])));
    assert_eq!((&config["torch_dtype"], &config["hidden_size"]), (&json!("bfloat16"), &json!(8)));
    assert_eq!(config["architectures"], json!(["BlockPrunerQwen2ForCausalLM"]));
    let classes = json!({
        "AutoConfig": "modeling_blockpruner.BlockPrunerQwen2Config",
        "AutoModelForCausalLM": "modeling_blockpruner.BlockPrunerQwen2ForCausalLM",
    });
    assert_eq!(config["auto_map"], classes);
}

/// Every class that config.json names is in the Python module beside it.
#[test]
fn a_folder_comes_with_its_loader() {
    for stored in [LLAMA, QWEN2] {
        let folder = export(&model(stored), &HfOptions::new(set("mha:0"), HfFormat::Removed)).unwrap();
        let config = folder.json("config.json");
        for (key, value) in config["auto_map"].as_object().unwrap() {
            let (module, class) = value.as_str().unwrap().split_once('.').unwrap();
            let code = String::from_utf8(folder.files[&format!("{module}.py")].clone()).unwrap();
            assert!(code.contains(&format!("class {class}(")), "{key}: {class} is not in {module}.py");
            assert!(!code.contains('@'), "a name is missing in {module}.py");
        }
    }
}

/// Whoever loads what was exported runs our module or none; a vocabulary may call its tokens as it likes.
#[test]
fn no_program_of_the_input_comes_along() {
    let mut model = model(LLAMA);
    let theirs = [
        ("auto_map", json!({"AutoConfig": "attacker/evil--conf.C", "AutoModelForCausalLM": "code.M"})),
        ("custom_pipelines", json!({"text-generation": {"impl": "code.P"}})),
        ("custom_generate", json!("attacker/evil")),
    ];
    let before = model.config.clone();
    model.config.extend(theirs.iter().map(|(key, value)| (key.to_string(), value.clone())));
    let tokenizer_config =
        json!({"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["license_code.Evil", null]}});
    let vocabulary = br#"{ "auto_map": 3 }"#.to_vec();
    model.side_files.push(("tokenizer_config.json".into(), tokenizer_config.to_string().into_bytes()));
    model.side_files.push(("vocab.json".into(), vocabulary.clone()));
    // Python reads what our parser does not.
    let deep = format!(r#"{{"auto_map": {{}}, "x": {}{}}}"#, "[".repeat(200), "]".repeat(200));
    let half = r#"{"x": "\ud800", "auto_map": {"A": "attacker/evil--m.C"}}"#;
    model.side_files.push(("preprocessor_config.json".into(), half.as_bytes().to_vec()));
    let unreadable = [
        ("added_tokens.json", deep.as_str()),
        ("special_tokens_map.json", r#"{"x": 1e999, "auto_map": {"A": "attacker/evil--m.C"}}"#),
    ];
    model.side_files.extend(unreadable.map(|(name, text)| (name.to_string(), text.as_bytes().to_vec())));
    let parts =
        json!({"image_processor": {"auto_map": {"A": "attacker/evil--m.C"}, "size": 3}, "b": [{"auto_map": "e"}]});
    model.side_files.push(("processor_config.json".into(), parts.to_string().into_bytes()));
    let kernels = [("_attn_implementation_internal", "attacker/kernel"), ("attn_implementation", "sdpa")];
    model.config.extend(kernels.map(|(key, value)| (key.to_string(), json!(value))));
    let mut before = before;
    before.insert("attn_implementation".into(), json!("sdpa"));
    for (format, removed) in [(HfFormat::Removed, "mha:0"), (HfFormat::Removed, ""), (HfFormat::Zeroed, "mha:0")] {
        let options = HfOptions::new(removed.parse().unwrap_or_default(), format);
        let mut folder = MemoryFolder::new();
        let summary = block_on(export_hf(&model, &options, &mut folder, &mut |_, _| {})).unwrap();
        let config = folder.json("config.json");
        match (format, removed) {
            (HfFormat::Removed, "mha:0") => {
                assert_eq!(config["auto_map"]["AutoConfig"], "modeling_blockpruner.BlockPrunerLlamaConfig");
                assert!(config.get("custom_pipelines").is_none() && config.get("custom_generate").is_none());
            }
            _ => assert_eq!(config, Value::Object(before.clone())),
        }
        assert_eq!(folder.json("tokenizer_config.json"), json!({"tokenizer_class": "Evil"}));
        assert_eq!(folder.files["vocab.json"], vocabulary);
        assert_eq!(folder.json("preprocessor_config.json"), json!({"x": "\u{fffd}"}));
        assert_eq!(folder.json("processor_config.json"), json!({"image_processor": {"size": 3}, "b": [{}]}));
        let dropped = [
            "auto_map in config.json",
            "custom_pipelines in config.json",
            "custom_generate in config.json",
            "_attn_implementation_internal in config.json",
            "auto_map in tokenizer_config.json",
            "auto_map in preprocessor_config.json",
            "image_processor.auto_map in processor_config.json",
            "b.auto_map in processor_config.json",
        ];
        assert_eq!(summary.foreign_code, dropped);
        assert_eq!(summary.unreadable, unreadable.map(|(name, _)| name));
        assert!(unreadable.iter().all(|(name, _)| !folder.files.contains_key(*name)));
    }
}

#[test]
fn rows_without_elements_are_written_at_once() {
    for shape in [vec![1 << 62, 0], vec![0, 1 << 62], vec![0], vec![1 << 40, 0, 7]] {
        let empty = OutputTensor {
            source: String::new(),
            name: String::new(),
            written: String::new(),
            dtype: FloatType::F32,
            shape,
            content: Content::Constant(0.0),
        };
        assert_eq!((empty.pieces(CHUNK_BYTES).count(), empty.bytes()), (0, 0), "{:?}", empty.shape);
    }
}

#[test]
fn the_dense_model_is_a_plain_folder() {
    let model = model(LLAMA);
    for format in [HfFormat::Removed, HfFormat::Zeroed] {
        let folder = export(&model, &HfOptions::new(BlockSet::new(), format)).unwrap();
        assert_eq!(folder.json("config.json"), Value::Object(model.config.clone()));
        let names: Vec<_> = folder.files.keys().map(String::as_str).collect();
        assert_eq!(names, ["README.md", "config.json", "generation_config.json", "model.safetensors"]);
        assert_eq!(folder.tensors().len(), model.weights.names().count() - 1);
    }
}

#[test]
fn zeroed_blocks_add_nothing_and_all_else_is_unchanged() {
    let model = model(LLAMA);
    let folder = export(&model, &HfOptions::new(set("mha:1,mlp:0"), HfFormat::Zeroed)).unwrap();
    assert_eq!(folder.json("config.json"), Value::Object(model.config.clone()));
    let mut zeroed = Vec::new();
    for (name, (_, _, bytes)) in folder.tensors() {
        if bytes != input_bytes(&model, &name) {
            assert!(bytes.iter().all(|b| *b == 0), "{name}");
            zeroed.push(name);
        }
    }
    let expected =
        ["0.mlp.down_proj.bias", "0.mlp.down_proj.weight", "1.self_attn.o_proj.bias", "1.self_attn.o_proj.weight"];
    assert_eq!(zeroed, expected.map(|rest| format!("model.layers.{rest}")));
}

#[test]
fn an_earlier_pruning_is_carried_on() {
    let dense = model(QWEN2);
    let first = export(&dense, &HfOptions::new(set("mlp:1"), HfFormat::Removed)).unwrap().open();
    let second = export(&first, &HfOptions::new(set("mha:0"), HfFormat::Removed)).unwrap();
    assert_eq!(second.open().spec.absent, set("mha:0,mlp:1"));
    let both = export(&dense, &HfOptions::new(set("mha:0,mlp:1"), HfFormat::Removed)).unwrap();
    assert_eq!(second.tensors(), both.tensors());
    assert_eq!(second.json("config.json"), both.json("config.json"));

    let error = export(&first, &HfOptions::new(set("mlp:1"), HfFormat::Removed)).err().unwrap().to_string();
    assert!(error.contains("mlp:1"), "{error}");
}

#[test]
fn zeroing_a_pruned_model_makes_it_plain_again() {
    let dense = model(QWEN2);
    let pruned = export(&dense, &HfOptions::new(set("mlp:1,mha:2"), HfFormat::Removed)).unwrap().open();
    let folder = export(&pruned, &HfOptions::new(set("mha:0"), HfFormat::Zeroed)).unwrap();
    let mut config = dense.config.clone();
    config.insert("architectures".into(), json!(["Qwen2ForCausalLM"]));
    assert_eq!(folder.json("config.json"), Value::Object(config));
    assert!(!folder.files.keys().any(|name| name.ends_with(".py")));
    assert!(folder.open().spec.absent.is_empty());
    let tensors = folder.tensors();
    for block in [BlockId::mlp(1), BlockId::mha(2)] {
        for (name, shape) in stored(&dense.spec.block_tensors(block)) {
            let (dtype, found, bytes) = &tensors[&name];
            assert_eq!((*dtype, found), (Dtype::F32, &shape));
            let value = if name.ends_with("layernorm.weight") { 1.0f32 } else { 0.0 };
            assert!(bytes.chunks(4).all(|b| b == value.to_le_bytes()), "{name}");
        }
    }
    let output = &tensors["model.layers.0.self_attn.o_proj.weight"].2;
    assert!(output.iter().all(|b| *b == 0));
}

#[test]
fn a_small_limit_makes_shards() {
    let model = model(LLAMA);
    let whole = export(&model, &HfOptions::new(set("mha:1"), HfFormat::Removed)).unwrap();
    for limit in [0, 300, 1000] {
        let options = HfOptions { shard_bytes: limit, ..HfOptions::new(set("mha:1"), HfFormat::Removed) };
        let folder = export(&model, &options).unwrap();
        assert_eq!(folder.tensors(), whole.tensors());
        let index = folder.json("model.safetensors.index.json");
        let total: usize = whole.tensors().values().map(|(_, _, bytes)| bytes.len()).sum();
        assert_eq!(index["metadata"]["total_size"], total);
        let shards: Vec<_> = folder.files.iter().filter(|(name, _)| name.ends_with(".safetensors")).collect();
        let count = shards.len();
        assert!(count > 1);
        for (number, (name, bytes)) in shards.into_iter().enumerate() {
            assert_eq!(*name, format!("model-{:05}-of-{count:05}.safetensors", number + 1));
            let shard = SafeTensors::deserialize(bytes).unwrap();
            let size: usize = shard.tensors().iter().map(|(_, view)| view.data().len()).sum();
            assert!(size as u64 <= limit || shard.len() == 1, "{name}: {size}");
            assert!(shard.names().iter().all(|tensor| index["weight_map"][*tensor] == json!(name)));
        }
        assert_eq!(folder.open().spec.absent, set("mha:1"));
    }
}

#[test]
fn what_was_written_is_checked_to_the_bit() {
    let check = |model: &Checkpoint, options: &HfOptions, folder: &MemoryFolder| {
        block_on(check_hf(model, options, &folder.open(), &mut |_, _| {})).map_err(|error| error.to_string())
    };
    for stored in [LLAMA, QWEN2] {
        let model = model(stored);
        for format in [HfFormat::Removed, HfFormat::Zeroed] {
            for dtype in [None, Some(FloatType::F16), Some(FloatType::BF16), Some(FloatType::F32)] {
                let options = HfOptions { dtype, shard_bytes: 500, ..HfOptions::new(set("mha:1,mlp:2"), format) };
                let mut folder = export(&model, &options).unwrap();
                check(&model, &options, &folder).unwrap();
                // The last byte belongs to some tensor.
                let last = folder.files.iter_mut().rfind(|(name, _)| name.ends_with(".safetensors")).unwrap();
                *last.1.last_mut().unwrap() ^= 1;
                let error = check(&model, &options, &folder).unwrap_err();
                assert!(error.contains("has other values in rows") && error.contains("export again"), "{error}");
            }
        }
    }
    let model = model(LLAMA);
    let options = HfOptions::new(set("mha:1"), HfFormat::Removed);
    let mut folder = export(&model, &options).unwrap();
    let as_f32 = HfOptions { dtype: Some(FloatType::F32), ..options.clone() };
    let error = check(&model, &as_f32, &folder).unwrap_err();
    assert!(error.contains("is BF16, expected F32"), "{error}");
    let error = check(&model, &HfOptions::new(set("mha:2"), HfFormat::Removed), &folder).unwrap_err();
    assert!(error.contains("config.json reads as"), "{error}");
    let mut config = folder.json("config.json");
    config["rms_norm_eps"] = json!(1e-6);
    folder.files.insert("config.json".into(), config.to_string().into_bytes());
    let error = check(&model, &options, &folder).unwrap_err();
    assert!(error.contains("config.json reads as"), "{error}");
}

#[test]
fn headers_are_as_readers_want_them() {
    let folder = export(&model(LLAMA), &HfOptions::new(BlockSet::new(), HfFormat::Removed)).unwrap();
    let bytes = &folder.files["model.safetensors"];
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    assert_eq!(length % 8, 0);
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    assert_eq!(header["__metadata__"], json!({"format": "pt"}));
    for (name, entry) in header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__") {
        let width = if entry["dtype"] == "F32" { 4 } else { 2 };
        assert_eq!(entry["data_offsets"][0].as_u64().unwrap() % width, 0, "{name}");
    }
}

#[test]
fn conversion_rounds_to_nearest_even_and_is_stated() {
    let model = model(QWEN2);
    for (dtype, name) in [(FloatType::BF16, "bfloat16"), (FloatType::F16, "float16"), (FloatType::F32, "float32")] {
        let options = HfOptions { dtype: Some(dtype), ..HfOptions::new(set("mha:0"), HfFormat::Zeroed) };
        let folder = export(&model, &options).unwrap();
        assert_eq!(folder.json("config.json")["torch_dtype"], name);
        for (tensor, (found, _, bytes)) in folder.tensors() {
            assert_eq!(found, as_safetensors(dtype));
            if !tensor.contains("layers.0.self_attn.o_proj") {
                let values = block_on(model.weights.read_f32(&tensor)).unwrap();
                assert!(bytes == encode(dtype, &values), "{tensor}");
            }
        }
    }
    // 1 + 2^-8 lies between two bf16 numbers, 1 + 2^-11 between two f16 ones; the even one is below, then above.
    let f32_rows = |values: &[f32]| Rows { dtype: FloatType::F32, bytes: encode(FloatType::F32, values) };
    let bf16 = convert("x", f32_rows(&[1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0]), FloatType::BF16).unwrap();
    assert_eq!(bf16, [0x80, 0x3f, 0x82, 0x3f]);
    let f16 = convert("x", f32_rows(&[1.0 + 1.0 / 2048.0, 1.0 + 3.0 / 2048.0]), FloatType::F16).unwrap();
    assert_eq!(f16, [0x00, 0x3c, 0x02, 0x3c]);
}

#[test]
fn values_beyond_the_range_are_named() {
    let rows = |value: f32| Rows { dtype: FloatType::F32, bytes: encode(FloatType::F32, &[1.0, value]) };
    assert!(convert("x", rows(65504.0), FloatType::F16).is_ok());
    let error = convert("model.norm.weight", rows(-70000.0), FloatType::F16).unwrap_err().to_string();
    assert!(error.contains("`model.norm.weight` holds -70000") && error.contains("F16"), "{error}");
    assert!(convert("x", rows(70000.0), FloatType::BF16).is_ok());
    assert!(convert("x", rows(f32::MAX), FloatType::BF16).is_err());
}

#[test]
fn progress_grows_to_the_total() {
    let model = model(LLAMA);
    let options = HfOptions::new(set("mha:0"), HfFormat::Zeroed);
    let mut seen = Vec::new();
    let mut folder = MemoryFolder::new();
    let progress = &mut |done, total| seen.push((done, total));
    let summary = block_on(export_hf(&model, &options, &mut folder, progress)).unwrap();
    assert!(seen.len() > 10 && seen.is_sorted_by(|a, b| a.0 < b.0));
    assert!(seen.iter().all(|(_, total)| *total == summary.bytes));
    assert_eq!(seen.last().unwrap().0, summary.bytes);
}

#[test]
fn blocks_that_are_not_there_are_refused() {
    for blocks in ["mha:3", "mlp:99"] {
        let error = export(&model(LLAMA), &HfOptions::new(set(blocks), HfFormat::Zeroed)).err().unwrap().to_string();
        assert!(error.contains(blocks), "{error}");
    }
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    let model = model(LLAMA);
    let options = HfOptions { shard_bytes: 1000, ..HfOptions::new(set("mha:1"), HfFormat::Zeroed) };
    let total: usize = export(&model, &options).unwrap().files.values().map(Vec::len).sum();
    for room in [0, total / 2, total - 1] {
        let root = tempfile::tempdir().unwrap();
        let mut sink = FillingDisk { folder: DiskFolder::create(&root.path().join("out")).unwrap(), room };
        let error = block_on(export_hf(&model, &options, &mut sink, &mut |_, _| {})).unwrap_err();
        assert!(matches!(error, ExportError::Write { .. }), "{error}");
        drop(sink);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }
}

#[test]
fn the_embedded_model_survives_the_disk() {
    let model = block_on(Checkpoint::builtin_tiny()).unwrap();
    let root = tempfile::tempdir().unwrap();
    let target = root.path().join("pruned");
    let mut sink = DiskFolder::create(&target).unwrap();
    let options = HfOptions::new(set("mha:7,mlp:3"), HfFormat::Removed);
    block_on(export_in_chunks((&model).into(), &options, 10_000, &mut sink, &mut |_, _| {})).unwrap();
    sink.finish().unwrap();
    let pruned = block_on(Checkpoint::open(target.to_str().unwrap())).unwrap();
    assert_eq!(pruned.spec.absent, options.removed);
    assert_eq!(pruned.side_files, model.side_files);
    let less: u64 = options.removed.iter().map(|block| model.spec.block_parameters(block)).sum();
    assert_eq!(pruned.spec.parameters(), model.spec.parameters() - less);
    for name in pruned.weights.names() {
        assert!(input_bytes(&pruned, name) == input_bytes(&model, name), "{name}");
    }
}

/// The fixtures are those of the GGUF reader: a file, and its tensors as the Python package `gguf` dequantises them.
#[test]
fn quantised_tensors_become_floats_and_the_configuration_says_so() {
    let file = BytesSource::new("llama.gguf", include_bytes!("../../weights/testdata/llama.gguf"));
    let weights = block_on(crate::weights::gguf::open(Rc::new(file), &[])).unwrap().weights;
    let config = json!({
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 10, "tie_word_embeddings": true,
    });
    let config = config.as_object().unwrap();
    let spec = ModelSpec::from_config(config).unwrap();
    let weights = spec.renamed(weights).unwrap();
    let origin = Origin::default();
    let source = HfSource {
        name: "model",
        origin: &origin,
        spec: &spec,
        weights: &weights,
        config,
        side_files: &[],
        from_gguf: true,
        stored_names: &BTreeMap::new(),
    };
    let mut folder = MemoryFolder::new();
    let options = HfOptions::new(BlockSet::new(), HfFormat::Removed);
    let summary = block_on(export_in_chunks(source, &options, 100, &mut folder, &mut |_, _| {})).unwrap();
    let expected = SafeTensors::deserialize(include_bytes!("../../weights/testdata/llama.safetensors")).unwrap();
    let tensors = folder.tensors();
    assert!(tensors.contains_key("model.layers.0.self_attn.q_proj.bias"));
    for (name, (dtype, shape, bytes)) in &tensors {
        let view = expected.tensor(name).unwrap();
        assert_eq!(shape, view.shape(), "{name}");
        let rows = match dtype {
            Dtype::F32 => Rows { dtype: FloatType::F32, bytes: bytes.clone() },
            Dtype::F16 => Rows { dtype: FloatType::F16, bytes: bytes.clone() },
            _ => Rows { dtype: FloatType::BF16, bytes: bytes.clone() },
        };
        let expected = Rows { dtype: FloatType::F32, bytes: view.data().to_vec() };
        let quantised = weights.get(name).unwrap().dtype.is_quantised();
        assert!(!quantised || *dtype == Dtype::BF16, "{name}");
        let expected = if quantised { encode(FloatType::BF16, &expected.to_f32()) } else { expected.bytes };
        let found = if quantised { bytes.clone() } else { encode(FloatType::F32, &rows.to_f32()) };
        assert!(found == expected, "{name}");
    }
    assert!(summary.rounded && summary.bytes == written_bytes(source, &options).unwrap());
    let of = |name: &str| tensors[name].0;
    assert_eq!(of("model.layers.0.self_attn.k_proj.weight"), Dtype::F16);
    assert_eq!(of("model.layers.0.mlp.down_proj.weight"), Dtype::BF16);
    assert_eq!(folder.json("config.json")["torch_dtype"], "bfloat16");
    assert_eq!(folder.open().spec, spec);
}
