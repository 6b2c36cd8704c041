//! Tokenizers rebuilt from GGUF metadata, compared with the ids of llama.cpp's own tokenizer (`tests/reference/llama_cpp_ids.py`).

use blockpruner::testing::{GgufMetadata, MetadataArray, MetadataValue};
use blockpruner::text::Tokenizer;
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    texts: Vec<String>,
    byte_level: ByteLevel,
    groups: Vec<Group>,
    sentence_piece: SentencePiece,
}

#[derive(Deserialize)]
struct ByteLevel {
    tokens: Vec<String>,
    types: Vec<i64>,
    merges: Vec<String>,
}

/// Names of `tokenizer.ggml.pre` with the same ids; null stands for those of the first group.
#[derive(Deserialize)]
struct Group {
    names: Vec<String>,
    ids: Vec<Option<Vec<u32>>>,
}

#[derive(Deserialize)]
struct SentencePiece {
    tokens: Vec<String>,
    types: Vec<i64>,
    scores: Vec<f64>,
    with_space_prefix: Vec<Vec<u32>>,
    without_space_prefix: Vec<Vec<u32>>,
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("../reference/llama_cpp_ids.json")).unwrap()
}

fn tokenizer(entries: Vec<(&str, MetadataValue)>) -> Tokenizer {
    let entries = entries.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value));
    Tokenizer::from_gguf(&GgufMetadata::new("m.gguf", entries)).unwrap()
}

fn strings(values: &[String]) -> MetadataValue {
    MetadataValue::Array(MetadataArray::String(values.to_vec()))
}

/// The texts whose ids differ, of the tokenizer and of what its tokenizer.json reads back as.
fn differences(tokenizer: &Tokenizer, texts: &[String], expected: &[&Vec<u32>]) -> Vec<String> {
    let again = Tokenizer::from_json(tokenizer.to_json().as_bytes()).unwrap();
    assert_eq!(texts.len(), expected.len());
    let cases = texts.iter().zip(expected);
    let found = cases.filter_map(|(text, expected)| {
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(again.encode(text).unwrap(), ids, "{text:?}, exported and read back");
        (ids != **expected).then(|| format!("{text:?}\n  found    {ids:?}\n  expected {expected:?}"))
    });
    found.collect()
}

#[test]
fn every_pre_tokenizer_gives_the_ids_of_llama_cpp() {
    let Reference { texts, byte_level, groups, .. } = reference();
    let first: Vec<&Vec<u32>> = groups[0].ids.iter().map(|ids| ids.as_ref().unwrap()).collect();
    assert!(texts.len() > 80 && first.iter().map(|ids| ids.len()).sum::<usize>() > 2000);
    let mut wrong = Vec::new();
    let mut names = 0;
    for group in &groups {
        let expected: Vec<&Vec<u32>> =
            group.ids.iter().zip(&first).map(|(ids, first)| ids.as_ref().unwrap_or(first)).collect();
        for name in &group.names {
            names += 1;
            let tokenizer = tokenizer(vec![
                ("model", MetadataValue::String("gpt2".into())),
                ("pre", MetadataValue::String(name.clone())),
                ("tokens", strings(&byte_level.tokens)),
                ("token_type", MetadataValue::Array(MetadataArray::Signed(byte_level.types.clone()))),
                ("merges", strings(&byte_level.merges)),
                ("bos_token_id", MetadataValue::Unsigned(0)),
                ("eos_token_id", MetadataValue::Unsigned(1)),
            ]);
            let differences = differences(&tokenizer, &texts, &expected);
            wrong.extend(differences.into_iter().map(|difference| format!("{name}: {difference}")));
        }
    }
    assert!(names > 70);
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn sentence_piece_gives_the_ids_of_llama_cpp() {
    let Reference { texts, sentence_piece, .. } = reference();
    for (prefix, expected) in [(true, &sentence_piece.with_space_prefix), (false, &sentence_piece.without_space_prefix)]
    {
        let tokenizer = tokenizer(vec![
            ("model", MetadataValue::String("llama".into())),
            ("tokens", strings(&sentence_piece.tokens)),
            ("token_type", MetadataValue::Array(MetadataArray::Signed(sentence_piece.types.clone()))),
            ("scores", MetadataValue::Array(MetadataArray::Float(sentence_piece.scores.clone()))),
            ("add_space_prefix", MetadataValue::Bool(prefix)),
        ]);
        let wrong = differences(&tokenizer, &texts, &expected.iter().collect::<Vec<_>>());
        assert!(wrong.is_empty(), "prefix {prefix}, {} differ:\n{}", wrong.len(), wrong.join("\n"));
    }
}
