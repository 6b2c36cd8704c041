//! Every fixture, of both families and both containers, exported in both formats and every type, and read back.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use blockpruner::export::{DiskFolder, HfFormat, HfOptions, HfSource, check_hf, export_hf};
use blockpruner::model::{BlockSet, Checkpoint};
use blockpruner::weights::FloatType;
use blockpruner_tests::{fixture, fixture_names};
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
