//! Every fixture, of both families and both containers, exported in both formats and every type, and read back.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use blockpruner::export::{DiskFolder, HfFormat, HfOptions, check_hf, export_hf};
use blockpruner::model::{BlockSet, Checkpoint};
use blockpruner::weights::FloatType;
use blockpruner_tests::{fixture, fixture_names};
use pollster::block_on;

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
                    let options = HfOptions::new(removed, format).dtype(dtype);
                    let target = root.path().join(&what);
                    let mut folder = DiskFolder::create(&target).unwrap();
                    let done = block_on(export_hf(&checkpoint, &options, &mut folder, &mut |_, _| {}));
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
