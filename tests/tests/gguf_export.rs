//! GGUF files that are written: of every GGUF fixture, from the file and from the Hugging Face folder that it becomes, whole and
//! without blocks, read back and scored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use blockpruner::export::{
    DiskFolder, GgufForm, GgufFormat, GgufOptions, GgufQuantisation, GgufSummary, HfFormat, HfOptions, check_gguf,
    export_gguf, export_hf, written_gguf_bytes,
};
use blockpruner::gpu::{Gpu, GpuOptions};
use blockpruner::model::{BlockKind, BlockSet, Checkpoint, DeviceModel};
use blockpruner::score::Scorer;
use blockpruner::testing::{GgufFile, MetadataValue, open_gguf};
use blockpruner::text::Windows;
use blockpruner::weights::{DType, FileSource, FloatType};
use blockpruner_tests::{SMOLLM2, fixture, fixture_names, open, relative};
use pollster::block_on;

fn gguf_fixtures() -> Vec<String> {
    let names: Vec<String> = fixture_names().into_iter().filter(|name| name.starts_with("gguf-")).collect();
    assert!(names.len() >= 30);
    names
}

/// Writes a file into a new folder, opens it and checks it.
fn written(source: &Checkpoint, options: &GgufOptions, target: &Path) -> (Rc<Checkpoint>, GgufSummary, PathBuf) {
    let what = format!("{} without {} as {:?}", source.name, options.removed, options.format);
    let mut folder = DiskFolder::create(target).unwrap();
    let mut told = (0, 1);
    let summary = block_on(export_gguf(source, options, &mut folder, &mut |done, total| told = (done, total)));
    let summary = summary.unwrap_or_else(|error| panic!("{what}: {error}"));
    folder.finish().unwrap();
    assert_eq!(told, (summary.bytes, summary.bytes), "{what}");
    assert_eq!(block_on(written_gguf_bytes(source, options)).unwrap(), summary.bytes, "{what}");
    let path = target.join(&summary.file);
    let opened = block_on(Checkpoint::open(path.to_str().unwrap())).unwrap_or_else(|error| panic!("{what}: {error}"));
    let checked = block_on(check_gguf(source, options, &opened, &mut |done, total| told = (done, total)));
    checked.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(std::fs::read_dir(target).unwrap().count(), 1);
    (Rc::new(opened), summary, path)
}

fn raw(path: &Path) -> GgufFile {
    block_on(open_gguf(Rc::new(FileSource::open(path).unwrap()), &[])).unwrap()
}

/// The tensors of a file as they are stored: type, shape and bytes.
fn stored(path: &Path) -> BTreeMap<String, (DType, Vec<usize>, Vec<u8>)> {
    let bytes = std::fs::read(path).unwrap();
    let of = |info: &blockpruner::weights::TensorInfo| {
        let content = bytes[info.offset as usize..][..info.bytes as usize].to_vec();
        (info.name.clone(), (info.dtype, info.shape.clone(), content))
    };
    raw(path).weights.iter().map(of).collect()
}

fn values(checkpoint: &Checkpoint, tensor: &str) -> Vec<f32> {
    block_on(checkpoint.weights.read_f32(tensor)).unwrap()
}

/// A model as a Hugging Face folder of F32.
fn as_folder(checkpoint: &Checkpoint, target: &Path) -> Rc<Checkpoint> {
    let options = HfOptions::new(BlockSet::new(), HfFormat::Zeroed).dtype(FloatType::F32);
    let mut folder = DiskFolder::create(target).unwrap();
    block_on(export_hf(checkpoint, &options, &mut folder, &mut |_, _| {})).unwrap();
    folder.finish().unwrap();
    Rc::new(block_on(Checkpoint::open(target.to_str().unwrap())).unwrap())
}

fn plain(blocks: &str, format: GgufFormat) -> GgufOptions {
    GgufOptions::new(blocks.parse().unwrap(), format)
}

#[test]
fn a_gguf_file_of_which_nothing_goes_is_the_same() {
    let root = tempfile::tempdir().unwrap();
    for name in gguf_fixtures() {
        let (source, _) = fixture(&name);
        let from = blockpruner_tests::fixture_folder(&name).join("model.gguf");
        for format in [GgufFormat::Auto, GgufFormat::Zeroed] {
            let options = plain("", format);
            let (again, summary, path) = written(&source, &options, &root.path().join(format!("{name} {format:?}")));
            assert_eq!(summary.notes, [""; 0], "{name}");
            assert!(!summary.rounded);
            assert_eq!(again.spec, source.spec, "{name}");
            assert_eq!(stored(&path), stored(&from), "{name}");
            let (old, new) = (raw(&from).metadata, raw(&path).metadata);
            assert_eq!(old.keys().collect::<Vec<_>>(), new.keys().collect::<Vec<_>>(), "{name}");
            assert!(old.keys().all(|key| old.get(key) == new.get(key)), "{name}");
            assert_eq!(again.tokenizer().unwrap().to_json(), source.tokenizer().unwrap().to_json(), "{name}");
        }
    }
}

/// What reading made of a GGUF file, a folder, becomes such a file again.
#[test]
fn a_folder_becomes_the_file_that_it_was() {
    let root = tempfile::tempdir().unwrap();
    for name in gguf_fixtures() {
        let (file, _) = fixture(&name);
        let folder = as_folder(&file, &root.path().join(format!("{name} folder")));
        let (again, summary, path) = written(&folder, &plain("", GgufFormat::Auto), &root.path().join(&name));
        assert_eq!(summary.form, GgufForm::Plain, "{name}");
        // What llama.cpp leaves out of windows.
        let misread = summary.notes.iter().filter(|note| note.starts_with("llama.cpp computes ")).count();
        let windowed = ["gguf-exaone4-sliding", "gguf-phi3", "gguf-phi3-longrope"].contains(&name.as_str());
        assert!(misread == summary.notes.len() && misread <= windowed as usize, "{name}: {:?}", summary.notes);
        assert_eq!(again.spec.layers, file.spec.layers, "{name}");
        assert_eq!(again.spec.head, file.spec.head, "{name}");
        assert_eq!(again.spec.bos_token_id, file.spec.bos_token_id, "{name}");
        assert_eq!(again.spec.eos_token_ids, file.spec.eos_token_ids, "{name}");
        let from = blockpruner_tests::fixture_folder(&name).join("model.gguf");
        let (old, new) = (stored(&from), stored(&path));
        assert_eq!(old.keys().collect::<Vec<_>>(), new.keys().collect::<Vec<_>>(), "{name}");
        for (tensor, (_, shape, content)) in &new {
            let (dtype, old_shape, old_content) = &old[tensor];
            assert_eq!(shape, old_shape, "{name}: {tensor}");
            let expected = blockpruner::testing::dequantize(*dtype, old_content).unwrap();
            let found = blockpruner::testing::dequantize(DType::F32, content).unwrap();
            for (found, expected) in found.iter().zip(&expected) {
                // Norms less 1, and 1 added again.
                assert!((found - expected).abs() <= 3e-7 * expected.abs().max(1.0), "{name}: {tensor}");
            }
        }
        let text =
            "The king didn't say 1234 words, she'll COUNT them:\n\n  3.14\tGr\u{fc}\u{df}e \u{4e16}\u{754c} \u{1f642}";
        let ids = |checkpoint: &Checkpoint| checkpoint.tokenizer().unwrap().encode(text).unwrap();
        assert_eq!(ids(&again), ids(&file), "{name}");
        let keys = raw(&path).metadata;
        let old_architecture = match raw(&from).metadata.get("general.architecture") {
            Some(MetadataValue::String(name)) => name.clone(),
            other => panic!("{name}: {other:?}"),
        };
        for key in raw(&from).metadata.keys() {
            // What the converter writes for itself, of what the reader does not ask.
            let Some(key) = key.strip_prefix(&format!("{}.", old_architecture)) else {
                assert!(keys.get(key).is_some(), "{name}: {key}");
                continue;
            };
            let key = &format!("{}.{key}", summary.architecture);
            let own = [
                "tensor_data_layout",
                "rope.scaling.type",
                "attention.layer_norm_rms_epsilon",
                "rope.scaling.yarn_attn_factor",
                "rope.scaling.original_context_length",
                "attention.sliding_window_pattern",
                "attention.sliding_window",
            ];
            assert!(keys.get(key).is_some() || own.iter().any(|own| key.ends_with(own)), "{name}: {key}");
        }
    }
}

/// The families of fixtures that a `deci` can hold.
const AS_DECI: [&str; 10] = [
    "gguf-baichuan",
    "gguf-ernie4-5",
    "gguf-floats",
    "gguf-i-quants",
    "gguf-k-quants",
    "gguf-legacy",
    "gguf-mistral",
    "gguf-qwen2",
    "gguf-rope-freqs",
    "gguf-seed-oss",
];

/// Every kept block has its tensors, and what was removed adds nothing.
fn check_blocks(what: &str, source: &Checkpoint, removed: &BlockSet, found: &Checkpoint, form: GgufForm) {
    let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 3e-7 * b.abs().max(1.0));
    let kept = source.spec.kept_layers(removed);
    let layer_of = |kind: BlockKind, layer: usize| match form {
        GgufForm::Zeroed => Some(layer),
        _ => kept.iter().position(|kept| {
            let from = if kind == BlockKind::Mha { kept.mha } else { kept.mlp };
            from == Some(layer)
        }),
    };
    let mut compared = 0;
    for (layer, block) in (0..source.spec.layers.len()).flat_map(|layer| {
        BlockKind::ALL.into_iter().map(move |kind| (layer, blockpruner::model::BlockId { kind, layer }))
    }) {
        let place = layer_of(block.kind, layer);
        if removed.contains(block) && form != GgufForm::Zeroed {
            assert_eq!(place, None, "{what}: {block}");
            continue;
        }
        let place = place.unwrap();
        // Where a block's tensors are is asked of their names, which have the number of their layer.
        for info in source.weights.iter() {
            let Some((before, after)) = info.name.split_once(&format!(".{layer}.")) else { continue };
            // The number of a head, behind that of another layer.
            if before.split('.').any(|part| part.parse::<usize>().is_ok()) {
                continue;
            }
            let attention =
                ["self_attn", ".attn", "attention.", "self_attention", "input_layernorm", "ln_1", "ln_attn"];
            let kind =
                if attention.iter().any(|part| info.name.contains(part)) { BlockKind::Mha } else { BlockKind::Mlp };
            // The norms of heads go with their block.
            let beside = info.name.contains("layernorm") && !info.name.contains("layernorm.norms");
            if kind != block.kind || beside {
                continue;
            }
            let name = format!("{before}.{place}.{after}");
            let (found, wanted) = (values(found, &name), values(source, &info.name));
            let output = ["o_proj", "down_proj", "c_proj", "dense.", "dense_4h_to_h", "fc2"];
            let silent = removed.contains(block) && output.iter().any(|part| info.name.contains(part));
            match silent {
                true => assert!(found.iter().all(|value| *value == 0.0), "{what}: {name}"),
                // A Llama's rows are in another order.
                false
                    if form == GgufForm::Deci
                        && source.spec.family.name == "ernie4_5"
                        && after.contains("self_attn") =>
                {
                    let sorted = |mut values: Vec<f32>| {
                        values.sort_by(f32::total_cmp);
                        values
                    };
                    assert!(near(&sorted(found), &sorted(wanted)), "{what}: {name}");
                }
                false => assert!(near(&found, &wanted), "{what}: {name}"),
            }
            compared += 1;
        }
    }
    assert!(compared > 0 || kept.is_empty(), "{what}");
}

/// One set for each thing that can become of a plan: a whole layer, a pair across two layers, and single blocks.
const PLANS: [&str; 5] = ["mha:0,mlp:0", "mlp:0,mha:1", "mha:1", "mlp:0", "mha:0"];

#[test]
fn what_is_kept_is_written_in_a_form_that_holds_it() {
    let root = tempfile::tempdir().unwrap();
    for name in gguf_fixtures() {
        let (file, _) = fixture(&name);
        let folder = as_folder(&file, &root.path().join(format!("{name} folder")));
        for (container, source) in [("file", &file), ("folder", &folder)] {
            for plan in PLANS {
                let what = format!("{name}, {container} without {plan}");
                let removed: BlockSet = plan.parse().unwrap();
                let (found, summary, path) = written(source, &plain(plan, GgufFormat::Auto), &root.path().join(&what));
                let expected = match source.spec.plain_layers(&removed) {
                    // Fixed periods: only some layers of the published models may go.
                    Some(_) if ["gguf-exaone4-sliding", "gguf-smollm3"].contains(&name.as_str()) => GgufForm::Zeroed,
                    Some(_) if name == "gguf-gemma2" && *plan == *"mha:0,mlp:0" => GgufForm::Zeroed,
                    Some(_) => GgufForm::Plain,
                    None if AS_DECI.contains(&name.as_str()) => GgufForm::Deci,
                    None => GgufForm::Zeroed,
                };
                assert_eq!(summary.form, expected, "{what}: {:?}", summary.notes);
                // What llama.cpp leaves out is said of every form.
                let notes = summary.notes.iter().filter(|note| !note.contains("no sliding windows"));
                assert_eq!(notes.count() == 0, expected != GgufForm::Zeroed, "{what}: {:?}", summary.notes);
                check_blocks(&what, source, &removed, &found, summary.form);
                let metadata = raw(&path).metadata;
                let key = format!("{}.block_count", summary.architecture);
                assert_eq!(metadata.get(&key), Some(&MetadataValue::Unsigned(summary.layers as u64)), "{what}");
                // Every block goes so in the same way.
                if plan != "mha:1" {
                    continue;
                }
                let zeroed =
                    written(source, &plain(plan, GgufFormat::Zeroed), &root.path().join(format!("{what} zeroed")));
                assert_eq!(zeroed.1.form, GgufForm::Zeroed);
                check_blocks(&what, source, &removed, &zeroed.0, GgufForm::Zeroed);
            }
        }
    }
}

/// What is written scores as what it was made from does without the blocks.
#[test]
fn written_files_score_as_the_search_did() {
    let root = tempfile::tempdir().unwrap();
    let gpu = open(&GpuOptions::default());
    for name in [
        "gguf-legacy",
        "gguf-qwen2",
        "gguf-ernie4-5",
        "gguf-rope-freqs",
        "gguf-gemma3",
        "gguf-gpt2",
        "gguf-cohere2",
        "gguf-stablelm-qk-norm",
    ] {
        let (file, reference) = fixture(name);
        let folder = as_folder(&file, &root.path().join(format!("{name} folder")));
        let windows =
            Windows::from_ids(reference.ids[..2 * reference.window].to_vec(), reference.window, None).unwrap();
        for (container, source) in [("file", &file), ("folder", &folder)] {
            for plan in PLANS {
                let what = format!("{name}, {container} without {plan}");
                let (found, summary, _) = written(source, &plain(plan, GgufFormat::Auto), &root.path().join(&what));
                let expected = perplexity(&gpu, source, &windows, &plan.parse().unwrap());
                let score = perplexity(&gpu, &found, &windows, &BlockSet::new());
                assert!(relative(score, expected) < 1e-6, "{what} ({:?}): {score}, expected {expected}", summary.form);
            }
        }
    }
}

fn perplexity(gpu: &Rc<Gpu>, checkpoint: &Rc<Checkpoint>, windows: &Windows, removed: &BlockSet) -> f64 {
    let model = block_on(DeviceModel::load(gpu.clone(), checkpoint, &mut |_, _| {})).unwrap();
    let scorer = Scorer::new(&model, windows).unwrap();
    block_on(scorer.perplexity(removed)).unwrap().perplexity
}

/// A `deci` is pruned further: as one, as an ordinary model, and as a folder.
#[test]
fn a_written_deci_can_be_pruned_again() {
    let root = tempfile::tempdir().unwrap();
    for name in ["gguf-legacy", "gguf-qwen2", "gguf-seed-oss", "gguf-ernie4-5"] {
        let (source, _) = fixture(name);
        for first in ["mha:0", "mlp:1", "mlp:0"] {
            let path = |what: &str| root.path().join(format!("{name} {first} {what}"));
            let (deci, summary, _) = written(&source, &plain(first, GgufFormat::Auto), &path("deci"));
            assert_eq!((summary.form, deci.spec.absent.len()), (GgufForm::Deci, 1), "{name} without {first}");
            let (again, summary, _) = written(&deci, &plain("", GgufFormat::Auto), &path("again"));
            assert_eq!((summary.form, &again.spec), (GgufForm::Deci, &deci.spec), "{name} without {first}");
            let other = deci.spec.blocks().find(|block| {
                let both = deci.spec.absent.with([*block]);
                deci.spec.plain_layers(&both).is_some()
            });
            if let Some(other) = other {
                let (pruned, summary, _) = written(&deci, &plain(&other.to_string(), GgufFormat::Auto), &path("plain"));
                assert_eq!((summary.form, pruned.spec.absent.len()), (GgufForm::Plain, 0), "{name} without {first}");
                // What is the same may have another name.
                let expected = match name {
                    "gguf-legacy" | "gguf-ernie4-5" => "llama",
                    _ => "qwen2",
                };
                assert_eq!(summary.architecture, expected, "{name} without {first}");
            }
            let (whole, summary, _) = written(&deci, &plain("", GgufFormat::Zeroed), &path("whole"));
            assert_eq!((summary.form, whole.spec.absent.len()), (GgufForm::Zeroed, 0));
            let folder = as_folder(&deci, &path("folder"));
            assert_eq!(folder.spec.layers, deci.spec.layers);
            assert!(folder.spec.absent.is_empty());
        }
    }
}

#[test]
fn floats_are_converted_and_blocks_of_few_bits_are_not() {
    let root = tempfile::tempdir().unwrap();
    let tiny = block_on(Checkpoint::open("builtin:tiny")).unwrap();
    let of = |options: GgufOptions, what: &str| written(&tiny, &options, &root.path().join(what));
    let auto = || plain("mha:3", GgufFormat::Auto);
    let types = |path: &Path| {
        let mut counts = BTreeMap::new();
        raw(path).weights.iter().for_each(|info| *counts.entry(info.dtype.as_str()).or_insert(0) += 1);
        counts
    };
    let (_, summary, path) = of(auto(), "kept");
    assert_eq!(
        (summary.form, summary.rounded, summary.file.as_str()),
        (GgufForm::Deci, false, "builtin-tiny-pruned.gguf")
    );
    assert!(types(&path).keys().all(|dtype| ["F32", "BF16"].contains(dtype)), "{:?}", types(&path));
    let (_, summary, path) = of(auto().dtype(FloatType::F16), "f16");
    assert!(summary.rounded && types(&path).keys().all(|dtype| ["F32", "F16"].contains(dtype)));
    assert_eq!(raw(&path).metadata.get("general.file_type"), Some(&MetadataValue::Unsigned(1)));
    let (q8, _, path) = of(auto().quantize(GgufQuantisation::Q8_0), "q8_0");
    assert!(types(&path).keys().all(|dtype| ["F32", "Q8_0", "Q4_0"].contains(dtype)), "{:?}", types(&path));
    assert_eq!(raw(&path).metadata.get("general.file_type"), Some(&MetadataValue::Unsigned(7)));
    let (q4, _, path) = of(auto().quantize(GgufQuantisation::Q4_0), "q4_0");
    assert_eq!(raw(&path).weights.get("token_embd.weight").unwrap().dtype, DType::Q8_0);
    assert_eq!(raw(&path).weights.get("blk.1.attn_q.weight").unwrap().dtype, DType::Q4_0);
    assert_eq!(raw(&path).metadata.get("general.file_type"), Some(&MetadataValue::Unsigned(2)));
    for (quantised, bits) in [(q8, 7), (q4, 3)] {
        let name = "model.layers.1.mlp.up_proj.weight";
        let (found, wanted) = (values(&quantised, name), values(&tiny, name));
        let most = wanted.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        let error = found.iter().zip(&wanted).fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
        assert!(error > 0.0 && error <= 1.01 * most / (1 << bits) as f32, "{bits} bits: {error} of {most}");
        // Read again, it stays as it is, and is not quantised twice.
        let again = plain("mha:0", GgufFormat::Auto).quantize(GgufQuantisation::Q8_0);
        let mut folder = DiskFolder::create(&root.path().join("twice")).unwrap();
        let error = block_on(export_gguf(&*quantised, &again, &mut folder, &mut |_, _| {})).unwrap_err().to_string();
        assert!(error.contains("quantised already") && error.contains('`'), "{error}");
    }
}

#[test]
fn what_no_file_holds_is_refused_with_a_reason() {
    let root = tempfile::tempdir().unwrap();
    for (name, plan, format, parts) in [
        ("opt", "", GgufFormat::Auto, &["no architecture for opt"][..]),
        ("falcon-alibi", "", GgufFormat::Auto, &["as llama.cpp reads it"]),
        ("falcon-sequential", "mha:0", GgufFormat::Auto, &["as llama.cpp reads it"]),
        ("baichuan-alibi", "", GgufFormat::Auto, &["as llama.cpp reads it"]),
        ("rope-dynamic", "", GgufFormat::Auto, &["dynamic"]),
        ("llama-f32", "mha:0", GgufFormat::Plain, &["without mha:0", "not an ordinary model"]),
        ("gemma3", "mha:0", GgufFormat::Deci, &["not a deci"]),
        ("llama-f32", "mha:99", GgufFormat::Auto, &["mha:99"]),
    ] {
        let (source, _) = fixture(name);
        let mut folder = DiskFolder::create(&root.path().join(name)).unwrap();
        let done = block_on(export_gguf(&source, &plain(plan, format), &mut folder, &mut |_, _| {}));
        let error = done.map(|summary| panic!("{name}: {summary:?}")).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{name}: {error}");
    }
}

/// Every Hugging Face fixture of which a file can be made, and its reasons where none can.
#[test]
fn folders_of_every_family_become_files() {
    let root = tempfile::tempdir().unwrap();
    let mut refused = Vec::new();
    for name in fixture_names().into_iter().filter(|name| !name.starts_with("gguf-")) {
        let (source, _) = fixture(&name);
        for plan in ["", "mha:0,mlp:0", "mha:1"] {
            let options = plain(plan, GgufFormat::Auto);
            match block_on(written_gguf_bytes(&source, &options)) {
                Ok(_) => drop(written(&source, &options, &root.path().join(format!("{name} {plan}")))),
                Err(error) => {
                    println!("{name} without {plan}: {error}");
                    refused.push(name.clone());
                }
            }
        }
    }
    refused.dedup();
    let expected = [
        // Not of 32 layers, and rows of its head are divided by their lengths; positions bias scores.
        "baichuan",
        "baichuan-alibi",
        // Its heads are not as wide as its states.
        "exaone4",
        // They have biases.
        "falcon-alibi",
        "falcon-one-norm",
        "falcon-sequential",
        // Their scores are multiplied by another number than published models have.
        "gemma2",
        "gemma3",
        "gemma3-images",
        "gemma3-parameters",
        // It has no bias of Q, K and V.
        "gpt-neox-sequential",
        "gpt2-inner",
        "ministral",
        "nemotron",
        "olmo2",
        "opt",
        "opt-long",
        "qwen2-sliding",
        "rope-dynamic",
        "rope-yarn-parameters",
        // It says itself which layers turn.
        "smollm3",
    ];
    assert_eq!(refused, expected);
}

#[test]
fn a_real_tokenizer_gives_its_own_ids() {
    let Some(path) = SMOLLM2.fetch_or_skip() else { return };
    let root = tempfile::tempdir().unwrap();
    let source = block_on(Checkpoint::open(path.to_str().unwrap())).unwrap();
    let folder = as_folder(&source, &root.path().join("folder"));
    let options = plain("mha:3,mlp:7", GgufFormat::Auto).quantize(GgufQuantisation::Q8_0);
    let (again, summary, path) = written(&folder, &options, &root.path().join("file"));
    assert_eq!((summary.form, summary.notes.len()), (GgufForm::Deci, 0), "{:?}", summary.notes);
    assert_eq!(raw(&path).metadata.get("tokenizer.ggml.pre"), Some(&MetadataValue::String("smollm".into())));
    let template = |file: &GgufFile| file.metadata.get("tokenizer.chat_template").cloned();
    assert!(template(&raw(&path)).is_some());
    #[derive(serde::Deserialize)]
    struct Case {
        text: String,
        ids: Vec<u32>,
    }
    let cases: Vec<Case> = serde_json::from_str(include_str!("../reference/tokenizer_smollm2.json")).unwrap();
    for Case { text, ids } in cases {
        assert_eq!(again.tokenizer().unwrap().encode(&text).unwrap(), ids, "{text:?}");
    }
}
