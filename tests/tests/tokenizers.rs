//! Tokenizers rebuilt from the GGUF metadata of real models: byte-level ones compared with the rules of their published
//! tokenizer.json, the SentencePiece kind with transformers and the `sentencepiece` package (`tests/reference/tokenizer_ids.py`).

use std::path::Path;
use std::rc::Rc;

use blockpruner::model::Checkpoint;
use blockpruner::testing::open_gguf;
use blockpruner::text::Tokenizer;
use blockpruner::weights::FileSource;
use blockpruner_tests::{GEMMA3, QWEN2, SMOLLM2};
use pollster::block_on;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
}

/// Compares the file's tokenizer, and what its exported tokenizer.json reads back as.
fn compare(path: &Path, reference: &str) {
    let file = block_on(open_gguf(Rc::new(FileSource::open(path).unwrap()), &[])).unwrap();
    let rebuilt = Tokenizer::from_gguf(&file.metadata).unwrap();
    let again = Tokenizer::from_json(rebuilt.to_json().as_bytes()).unwrap();
    let cases: Vec<Case> = serde_json::from_str(reference).unwrap();
    assert!(cases.len() > 10 && cases.iter().map(|case| case.ids.len()).sum::<usize>() > 1000);
    for Case { text, ids } in cases {
        assert_eq!(rebuilt.encode(&text).unwrap(), ids, "{text:?}");
        assert_eq!(again.encode(&text).unwrap(), ids, "{text:?}, exported and read back");
    }
}

#[test]
fn byte_level_with_single_digits_agrees() {
    let Some(path) = SMOLLM2.fetch_or_skip() else { return };
    compare(&path, include_str!("../reference/tokenizer_smollm2.json"));
}

#[test]
fn sentence_piece_agrees() {
    let Some(path) = GEMMA3.fetch_or_skip() else { return };
    compare(&path, include_str!("../reference/tokenizer_gemma3.json"));
    let opened = block_on(Checkpoint::open(&path.to_string_lossy())).unwrap();
    assert_eq!((opened.spec.family.name, opened.tokenizer_problem.as_deref()), ("gemma3_text", None));
}

#[test]
#[ignore = "downloads 491 MB"]
fn byte_level_of_qwen2_agrees() {
    let Some(path) = QWEN2.fetch_or_skip() else { return };
    compare(&path, include_str!("../reference/tokenizer_qwen2.json"));
}
