//! Folders without tokenizer.json: SentencePiece models, and vocab.json with merges.txt, compared with transformers and the
//! `sentencepiece` package (`tests/reference/folder_tokenizer_ids.py`).

use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use blockpruner::model::Checkpoint;
use blockpruner::text::Tokenizer;
use blockpruner::weights::{ByteSource, BytesSource};
use pollster::block_on;
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct Reference {
    texts: Vec<String>,
    special: String,
    sentence_piece: Vec<SentencePiece>,
    byte_level: Vec<ByteLevel>,
}

#[derive(Deserialize)]
struct SentencePiece {
    name: String,
    config: Value,
    model: String,
    ids: Vec<Vec<u32>>,
}

#[derive(Deserialize)]
struct ByteLevel {
    config: Value,
    ids: Vec<Vec<u32>>,
}

/// Files by their names.
type Files = Vec<(String, Vec<u8>)>;

fn reference() -> Reference {
    serde_json::from_str(include_str!("../reference/folder_tokenizer_ids.json")).unwrap()
}

fn files<const N: usize>(files: [(&str, Vec<u8>); N]) -> Files {
    files.map(|(name, bytes)| (name.to_string(), bytes)).into()
}

fn open(files: &Files) -> Result<Tokenizer, String> {
    let find = |name: &str| files.iter().find(|(file, _)| *file == name).map(|(_, bytes)| bytes.as_slice());
    Tokenizer::from_folder(find).map_err(|error| error.to_string())
}

fn sentence_piece(case: &SentencePiece) -> Files {
    files([
        ("tokenizer_config.json", case.config.to_string().into_bytes()),
        ("tokenizer.model", STANDARD.decode(&case.model).unwrap()),
    ])
}

fn byte_level(config: &Value) -> Files {
    #[derive(Deserialize)]
    struct Shared {
        byte_level: Vocabulary,
    }
    #[derive(Deserialize)]
    struct Vocabulary {
        tokens: Vec<String>,
        merges: Vec<String>,
    }
    let shared: Shared = serde_json::from_str(include_str!("../reference/llama_cpp_ids.json")).unwrap();
    let Vocabulary { tokens, merges } = shared.byte_level;
    let vocab: Map<String, Value> = tokens.into_iter().enumerate().map(|(id, token)| (token, json!(id))).collect();
    files([
        ("tokenizer_config.json", config.to_string().into_bytes()),
        ("vocab.json", json!(vocab).to_string().into_bytes()),
        ("merges.txt", format!("#version: 0.2\n{}\n", merges.join("\n")).into_bytes()),
    ])
}

/// Compares the tokenizer of the files, and what its tokenizer.json reads back as beside them.
fn compare(name: &str, mut files: Files, texts: &[String], expected: &[Vec<u32>]) {
    let tokenizer = open(&files).unwrap();
    files.push(("tokenizer.json".to_string(), tokenizer.to_json().into_bytes()));
    let again = open(&files).unwrap();
    assert_eq!(texts.len(), expected.len());
    let mut wrong = Vec::new();
    for (text, expected) in texts.iter().zip(expected) {
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(again.encode(text).unwrap(), ids, "{name}: {text:?}, exported and read back");
        if ids != *expected {
            wrong.push(format!("{text:?}\n  found    {ids:?}\n  expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{name}: {} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn sentence_piece_models_give_the_ids_of_transformers() {
    let Reference { texts, sentence_piece: cases, .. } = reference();
    assert_eq!(cases.len(), 6);
    for case in cases {
        compare(&case.name, sentence_piece(&case), &texts, &case.ids);
    }
}

/// A SentencePiece model of kind 1, unigram, or 2, BPE, that puts a space before a text, or not.
fn small_model(kind: u8, prefix: bool) -> Vec<u8> {
    let space = "\u{2581}";
    let runs = [space.repeat(2), space.repeat(3)];
    let prefixed = [format!("{space}a"), format!("{space}ab")];
    // Texts, scores and types: 1 is normal, 2 unknown, 3 control and 4 user-defined.
    let pieces = [
        ("<unk>", 0.0, 2),
        ("<s>", 0.0, 3),
        ("</s>", 0.0, 3),
        (&runs[0], 0.0, 4),
        (&runs[1], 0.0, 4),
        ("<t>", 0.0, 4),
        (space, -1.0, 1),
        ("a", -2.0, 1),
        ("b", -3.0, 1),
        ("<", -4.0, 1),
        ("t", -5.0, 1),
        (">", -6.0, 1),
        ("ab", -0.5, 1),
        (&prefixed[0], -0.7, 1),
        (&prefixed[1], -0.6, 1),
    ];
    let field = |tag: u8, content: &[u8]| [&[tag, content.len() as u8], content].concat();
    let mut model: Vec<u8> = Vec::new();
    for (text, score, kind) in pieces {
        let score: f32 = score;
        let piece = [field(0x0a, text.as_bytes()), vec![0x15], score.to_le_bytes().to_vec(), vec![0x18, kind]].concat();
        model.extend(field(0x0a, &piece));
    }
    model.extend(field(0x12, &[0x18, kind]));
    // Runs of spaces stay.
    model.extend(field(0x1a, &[0x18, u8::from(prefix), 0x20, 0]));
    model
}

/// Files with that model, and what their tokenizer.json reads back as beside them.
fn small(kind: u8, prefix: bool, config: Value, more: &[(&str, Value)]) -> [Tokenizer; 2] {
    let mut config = config;
    config["tokenizer_class"] = json!("LlamaTokenizer");
    config["add_bos_token"] = json!(false);
    let mut files = files([
        ("tokenizer_config.json", config.to_string().into_bytes()),
        ("tokenizer.model", small_model(kind, prefix)),
    ]);
    files.extend(more.iter().map(|(name, json)| (name.to_string(), json.to_string().into_bytes())));
    let tokenizer = open(&files).unwrap();
    files.push(("tokenizer.json".to_string(), tokenizer.to_json().into_bytes()));
    [tokenizer, open(&files).unwrap()]
}

fn assert_ids<const N: usize>(tokenizers: &[Tokenizer; 2], cases: [(&str, &[u32]); N]) {
    for (text, expected) in cases {
        for tokenizer in tokenizers {
            assert_eq!(tokenizer.encode(text).unwrap(), expected, "{text:?}");
        }
    }
}

/// The ids of transformers 5.24 (its generic class, with which for BPE the `sentencepiece` package agrees).
#[test]
fn user_defined_pieces_are_found_behind_the_spaces() {
    for kind in [1, 2] {
        assert_ids(
            &small(kind, true, json!({}), &[]),
            [
                ("b  a", &[6, 8, 3, 7]),
                ("b   ab", &[6, 8, 4, 12]),
                ("a<t>b", &[13, 5, 8]),
                ("a <t> b", &[13, 6, 5, 6, 8]),
                ("     b", &[4, 4, 8]),
            ],
        );
        assert_ids(
            &small(kind, false, json!({}), &[]),
            [
                ("b  a", &[8, 3, 7]),
                ("b   ab", &[8, 4, 12]),
                ("a<t>b", &[7, 5, 8]),
                ("a <t> b", &[7, 6, 5, 6, 8]),
                ("     b", &[4, 3, 8]),
            ],
        );
    }
}

/// The ids of transformers 5.24.
#[test]
fn only_the_legacy_way_puts_a_space_behind_special_tokens() {
    for config in [json!({"legacy": false}), json!({"legacy": null})] {
        assert_ids(
            &small(2, true, config, &[]),
            [("a<s>ab</s> b", &[13, 1, 12, 2, 6, 8]), ("<s>a", &[1, 7]), (" a", &[13])],
        );
    }
    for config in [json!({"legacy": true}), json!({})] {
        assert_ids(
            &small(2, true, config, &[]),
            [("a<s>ab</s> b", &[13, 1, 14, 2, 3, 8]), ("<s>a", &[1, 13]), (" a", &[3, 7])],
        );
    }
}

/// The ids of transformers 5.24.
#[test]
fn tokens_beside_a_model_are_found_where_a_space_is_put_before_a_text() {
    let described = json!({"content": "<x>", "lstrip": false, "rstrip": false, "normalized": true, "single_word": false,
        "special": false});
    for prefix in [true, false] {
        let by_file = small(2, prefix, json!({}), &[("added_tokens.json", json!({"<x>": 15}))]);
        let by_config = small(2, prefix, json!({"added_tokens_decoder": {"15": described}}), &[]);
        for tokenizers in [by_file, by_config] {
            match prefix {
                true => assert_ids(
                    &tokenizers,
                    [("b<x>a", &[6, 8, 15, 13]), ("<x> a", &[15, 3, 7]), ("b <x> a", &[6, 8, 6, 15, 3, 7])],
                ),
                false => assert_ids(
                    &tokenizers,
                    [("b<x>a", &[8, 15, 7]), ("<x> a", &[15, 13]), ("b <x> a", &[8, 6, 15, 13])],
                ),
            }
        }
    }
    let config = json!({"legacy": false, "added_tokens_decoder": {"15": described}});
    assert_ids(
        &small(2, true, config, &[]),
        [("b<x>a", &[6, 8, 15, 7]), ("<x> a", &[15, 13]), ("b <x> a", &[6, 8, 6, 15, 13])],
    );
}

#[test]
fn byte_level_files_give_the_ids_of_transformers() {
    let Reference { mut texts, special, byte_level: cases, .. } = reference();
    texts.push(special);
    assert_eq!(cases.len(), 4);
    for case in cases {
        compare(&case.config.to_string(), byte_level(&case.config), &texts, &case.ids);
    }
}

#[test]
fn what_a_folder_lacks_or_does_not_say_is_named() {
    let gpt2 = json!({"tokenizer_class": "GPT2Tokenizer"});
    let change = |name: &str, bytes: &[u8]| {
        let mut files = byte_level(&gpt2);
        files.iter_mut().find(|(file, _)| *file == name).unwrap().1 = bytes.to_vec();
        files
    };
    let llama = &reference().sentence_piece[0];
    let model = |bytes: Vec<u8>| files([("tokenizer.model", bytes)]);
    let bytes = STANDARD.decode(&llama.model).unwrap();
    let foreign = json!({"tokenizer_class": "XLMRobertaTokenizer"}).to_string().into_bytes();
    let cases: [(Files, &[&str]); 11] = [
        (Vec::new(), &["tokenizer.json", "is missing"]),
        (byte_level(&gpt2)[..2].to_vec(), &["merges.txt", "is missing", "vocab.json"]),
        (byte_level(&json!({})), &["tokenizer_config.json", "`tokenizer_class` is missing", "save_pretrained"]),
        (
            byte_level(&json!({"tokenizer_class": "BertTokenizer"})),
            &["BertTokenizer", "GPT2Tokenizer", "save_pretrained"],
        ),
        (change("vocab.json", b"[]"), &["vocab.json"]),
        (change("vocab.json", br#"{"a": 0, "b": 0}"#), &["vocab.json", "the same id, 0"]),
        (change("vocab.json", br#"{"a": 99999999999}"#), &["vocab.json", "99999999999"]),
        (change("merges.txt", b"a b\nab"), &["merges.txt", "merge 1", "\"ab\""]),
        (model(bytes[..bytes.len() - 3].to_vec()), &["tokenizer.model", "damaged"]),
        (model(b"IQ== 0\nIg== 1\n".to_vec()), &["tokenizer.model", "no SentencePiece model"]),
        (
            files([("tokenizer.model", bytes), ("tokenizer_config.json", foreign)]),
            &["tokenizer_config.json", "XLMRobertaTokenizer", "add_bos_token"],
        ),
    ];
    for (files, parts) in cases {
        let error = open(&files).err().unwrap();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

/// What is damaged is refused, or works; the `tokenizers` library, which is not guarded in a browser, never panics on it.
#[test]
fn a_damaged_model_is_no_fault_of_the_library() {
    let (mut opened, mut refused) = (0, 0);
    for name in ["model-bpe", "model-unigram"] {
        let whole = std::fs::read(format!("fuzz/corpus/tokenizer/{name}")).unwrap();
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff, whole[at] ^ 1, whole[at].wrapping_add(1)] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                let error = match open(&files([("tokenizer.model", bytes)])) {
                    Ok(tokenizer) => {
                        opened += 1;
                        tokenizer.encode("t1 Hello <x>\n\u{e9} wo\u{4e2d}").err().map(|error| error.to_string())
                    }
                    Err(error) => {
                        refused += 1;
                        Some(error)
                    }
                };
                let error = error.unwrap_or_default();
                assert!(!error.contains("a fault in"), "{name}, byte {at} is {value}: {error}");
            }
        }
    }
    assert!(opened > 500 && refused > 500, "{opened} opened, {refused} refused");
}

/// The side files of a model are what an export carries: it loads again, by the older files and by tokenizer.json.
#[test]
fn a_folder_of_older_files_carries_a_tokenizer_json() {
    let reference = reference();
    let base = std::path::Path::new("../assets/tiny");
    for files in [sentence_piece(&reference.sentence_piece[0]), byte_level(&reference.byte_level[1].config)] {
        let expected = open(&files).unwrap();
        let source = |name: &str, bytes: Vec<u8>| {
            (name.to_string(), Rc::new(BytesSource::new(name, bytes)) as Rc<dyn ByteSource>)
        };
        let model =
            ["config.json", "model.safetensors"].map(|name| source(name, std::fs::read(base.join(name)).unwrap()));
        let beside = files.iter().map(|(name, bytes)| source(name, bytes.clone()));
        let checkpoint =
            block_on(Checkpoint::from_folder_files("m", model.into_iter().chain(beside).collect())).unwrap();
        let carried: Files = checkpoint.side_files.clone();
        assert_eq!(carried.len(), files.len() + 1);
        let again = open(&carried).unwrap();
        for text in &reference.texts {
            let ids = expected.encode(text).unwrap();
            assert_eq!(checkpoint.tokenizer().unwrap().encode(text).unwrap(), ids);
            assert_eq!(again.encode(text).unwrap(), ids);
        }
    }
}
