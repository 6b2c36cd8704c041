//! Every fixture, of every family and both containers, exported in every format and type, and read back.

use std::rc::Rc;

use blockpruner::export::{DiskFolder, HfFormat, HfOptions, HfSource, check_hf, export_hf};
use blockpruner::gpu::GpuOptions;
use blockpruner::model::{BlockId, BlockSet, Checkpoint};
use blockpruner::session::Session;
use blockpruner::text::Windows;
use blockpruner::weights::FloatType;
use blockpruner_tests::{fixture, fixture_names, open};
use pollster::block_on;

/// Blocks that are gone come back as zeros, and a norm that one of them shares with a block that is there stays as it is.
#[test]
fn what_was_removed_comes_back_as_zeros() {
    let root = tempfile::tempdir().unwrap();
    let written = |source: &Checkpoint, name: &str, options: &HfOptions| {
        let target = root.path().join(name);
        let mut folder = DiskFolder::create(&target).unwrap();
        block_on(export_hf(source, options, &mut folder, &mut |_, _| {})).unwrap();
        folder.finish().unwrap();
        let written = block_on(Checkpoint::open(target.to_str().unwrap())).unwrap();
        block_on(check_hf(source, options, &written, &mut |_, _| {})).unwrap();
        written
    };
    for name in ["llama-biases", "phi", "cohere2", "falcon-new", "gpt2", "opt"] {
        for blocks in ["mha:1", "mlp:1", "mha:1,mlp:1"] {
            let (whole, _) = fixture(name);
            let removed = HfOptions::new(blocks.parse().unwrap(), HfFormat::Removed);
            let removed = written(&whole, &format!("{name} without {blocks}"), &removed);
            let zeroed = HfOptions::new(BlockSet::new(), HfFormat::Zeroed);
            let zeroed = written(&removed, &format!("{name} with {blocks} as zeros"), &zeroed);
            assert_eq!(zeroed.spec, whole.spec);
            let names =
                |checkpoint: &Checkpoint| checkpoint.weights.iter().map(|info| info.name.clone()).collect::<Vec<_>>();
            assert_eq!(names(&zeroed), names(&whole), "{name}, {blocks}");
            let values = |checkpoint: &Checkpoint, tensor: &str| block_on(checkpoint.weights.read_f32(tensor)).unwrap();
            for info in removed.weights.iter() {
                assert_eq!(values(&zeroed, &info.name), values(&whole, &info.name), "{name}, {blocks}: {}", info.name);
            }
        }
    }
}

/// Fixtures with what belongs to a layer: windows, layers that do not turn, fused and shared tensors.
const SCORED: [&str; 12] = [
    "llama-biases",
    "qwen2-sliding",
    "smollm3",
    "gemma2",
    "gemma3",
    "olmo3",
    "cohere2",
    "exaone4",
    "phi3",
    "falcon-new",
    "gpt2",
    "gguf-gemma3",
];

/// Without a layer, or without neighbours of two layers, every family is an ordinary model, which computes what the whole one does
/// without them.
#[test]
fn what_is_left_is_an_ordinary_model() {
    let root = tempfile::tempdir().unwrap();
    let gpu = open(&GpuOptions::default());
    for name in fixture_names() {
        let (checkpoint, reference) = fixture(&name);
        let spec = &checkpoint.spec;
        for removed in ["mha:0,mlp:0", "mlp:0,mha:1"] {
            let what = format!("{name} without {removed}");
            let removed: BlockSet = removed.parse().unwrap();
            let gone = spec.absent.union(&removed);
            let options = HfOptions::new(removed.clone(), HfFormat::Plain);
            let target = root.path().join(&what);
            let mut folder = DiskFolder::create(&target).unwrap();
            let done = block_on(export_hf(&checkpoint, &options, &mut folder, &mut |_, _| {}));
            let whole = |layer: usize| gone.contains(BlockId::mha(layer)) == gone.contains(BlockId::mlp(layer));
            let parallel = spec.layers.iter().any(|layer| layer.parallel);
            if !spec.absent.is_empty() || parallel && !(0..spec.layers.len()).all(whole) {
                let error = done.unwrap_err().to_string();
                assert!(error.contains("is no ordinary model: beside m"), "{what}: {error}");
                continue;
            }
            if !checkpoint.stored_names.is_empty() {
                assert!(done.unwrap_err().to_string().contains("hf-zeroed"), "{what}");
                continue;
            }
            if name == "gpt2-inner" {
                // Its scores are divided by the number of the layer.
                assert!(done.unwrap_err().to_string().contains("no config.json of gpt2 describes"), "{what}");
                continue;
            }
            done.unwrap_or_else(|error| panic!("{what}: {error}"));
            folder.finish().unwrap();
            assert!(!target.join("modeling_blockpruner.py").exists());
            let written = block_on(Checkpoint::open(target.to_str().unwrap())).unwrap();
            block_on(check_hf(&checkpoint, &options, &written, &mut |_, _| {}))
                .unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(written.spec.layers.len(), spec.layers.len() - 1, "{what}");
            assert_eq!(HfFormat::best(&checkpoint, &removed), HfFormat::Plain);
            if SCORED.contains(&name.as_str()) {
                let windows = Windows::from_ids(reference.ids.clone(), reference.window, None).unwrap();
                let perplexity = |checkpoint: Rc<Checkpoint>, removed: &BlockSet| {
                    let session = Session::builder(checkpoint).with_gpu(gpu.clone());
                    block_on(session.perplexity(&windows, removed, &mut |_| ())).unwrap().perplexity
                };
                let dtype = HfOptions::new(removed.clone(), HfFormat::Plain).dtype(FloatType::F32);
                let exact = root.path().join("exact");
                let mut folder = DiskFolder::create(&exact).unwrap();
                block_on(export_hf(&checkpoint, &dtype, &mut folder, &mut |_, _| {})).unwrap();
                folder.finish().unwrap();
                let written = Rc::new(block_on(Checkpoint::open(exact.to_str().unwrap())).unwrap());
                let (found, expected) =
                    (perplexity(written, &BlockSet::new()), perplexity(checkpoint.clone(), &removed));
                assert!((found - expected).abs() <= 1e-6 * expected, "{what}: {found}, expected {expected}");
                std::fs::remove_dir_all(&exact).unwrap();
            }
            std::fs::remove_dir_all(&target).unwrap();
        }
    }
}

#[test]
fn every_fixture_survives() {
    let root = tempfile::tempdir().unwrap();
    for name in fixture_names() {
        let (checkpoint, _) = fixture(&name);
        for removed in ["", "mlp:0,mha:1"] {
            for format in [HfFormat::Removed, HfFormat::Zeroed] {
                for dtype in [None, Some(FloatType::BF16), Some(FloatType::F16)] {
                    let removed: BlockSet = removed.parse().unwrap();
                    let what = format!("{name} without {removed}, {format:?}, {dtype:?}");
                    let removal = HfSource::from(&checkpoint).check_removal();
                    let refused = format == HfFormat::Removed && !removed.is_empty() && removal.is_err();
                    let options = HfOptions::new(removed, format).dtype(dtype);
                    let target = root.path().join(&what);
                    let mut folder = DiskFolder::create(&target).unwrap();
                    let done = block_on(export_hf(&checkpoint, &options, &mut folder, &mut |_, _| {}));
                    if refused {
                        let error = done.unwrap_err().to_string();
                        assert!(error.contains("hf-zeroed"), "{what}: {error}");
                        continue;
                    }
                    done.unwrap_or_else(|error| panic!("{what}: {error}"));
                    folder.finish().unwrap();
                    let written = block_on(Checkpoint::open(target.to_str().unwrap())).unwrap();
                    let checked = block_on(check_hf(&checkpoint, &options, &written, &mut |_, _| {}));
                    checked.unwrap_or_else(|error| panic!("{what}: {error}"));
                    let text = "t1 t2 t30";
                    let ids = |checkpoint: &Checkpoint| checkpoint.tokenizer().unwrap().encode(text).unwrap();
                    assert_eq!(ids(&written), ids(&checkpoint), "{what}");
                    std::fs::remove_dir_all(&target).unwrap();
                }
            }
        }
    }
}
