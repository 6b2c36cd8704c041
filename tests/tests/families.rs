//! What the documentation says about model families, and what their settings and tensors' names mean.

use std::collections::BTreeSet;
use std::rc::Rc;

use blockpruner::gpu::{Gpu, GpuOptions};
use blockpruner::model::{BlockSet, Checkpoint, DeviceModel, families};
use blockpruner::score::Scorer;
use blockpruner::text::Windows;
use blockpruner_tests::{Reference, TOLERANCE, fixture, fixture_folder, fixture_names, open, relative};
use pollster::block_on;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// README.md's table has one row for each family, in the same order, and says truly how it is read and written.
#[test]
fn the_table_of_families_is_true() {
    let readme = include_str!("../../README.md");
    let (_, table) = readme.split_once("| `model_type` | models |").unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let expected: Vec<Vec<String>> = families::ALL
        .iter()
        .map(|family| {
            let gguf = if family.gguf_architecture().is_some() { "yes" } else { "no" };
            // What is written without its blocks rests on a class of transformers.
            let hf = if family.in_transformers() { "`plain`, `hf`, `hf-zeroed`" } else { "`plain`, `hf-zeroed`" };
            let exports = if gguf == "yes" { format!("{hf}, `gguf`") } else { hf.to_string() };
            vec![format!("`{}`", family.name), "yes".into(), gguf.into(), exports]
        })
        .collect();
    let found: Vec<Vec<String>> =
        rows.iter().map(|row| [0, 2, 3, 4].map(|column| row[column].to_string()).to_vec()).collect();
    assert_eq!(found, expected);
    assert!(rows.iter().all(|row| row.len() == 5 && !row[1].is_empty()));
}

/// No family is without a model that is compared with transformers.
#[test]
fn every_family_has_a_fixture() {
    let covered: Vec<&str> = fixture_names().iter().map(|name| fixture(name).0.spec.family.name).collect();
    for family in families::ALL {
        assert!(covered.contains(&family.name), "{family} has no fixture");
    }
}

/// A copy of a fixture's folder, with other settings and names of tensors.
fn changed(name: &str, settings: &Value, tensor: impl Fn(&str) -> String) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let read = |file: &str| std::fs::read(fixture_folder(name).join(file)).unwrap();
    let mut config: Map<String, Value> = serde_json::from_slice(&read("config.json")).unwrap();
    config.extend(settings.as_object().unwrap().clone());
    std::fs::write(dir.path().join("config.json"), serde_json::to_vec(&config).unwrap()).unwrap();
    let weights = read("model.safetensors");
    let (len, rest) = weights.split_first_chunk::<8>().unwrap();
    let (header, values) = rest.split_at(u64::from_le_bytes(*len) as usize);
    let header: Map<String, Value> = serde_json::from_slice(header).unwrap();
    let rename =
        |(name, value): (String, Value)| (if name == "__metadata__" { name } else { tensor(name.as_str()) }, value);
    let header = serde_json::to_vec(&header.into_iter().map(rename).collect::<Map<_, _>>()).unwrap();
    let weights = [&(header.len() as u64).to_le_bytes(), header.as_slice(), values].concat();
    std::fs::write(dir.path().join("model.safetensors"), weights).unwrap();
    dir
}

fn opened(dir: &TempDir) -> Rc<Checkpoint> {
    Rc::new(block_on(Checkpoint::open(dir.path().to_str().unwrap())).unwrap())
}

/// The perplexity of a model on the windows of a fixture's reference.
fn perplexity(gpu: &Rc<Gpu>, checkpoint: &Rc<Checkpoint>, reference: &Reference) -> f64 {
    let model = block_on(DeviceModel::load(gpu.clone(), checkpoint, &mut |_, _| ())).unwrap();
    let windows = Windows::from_ids(reference.ids.clone(), reference.window, None).unwrap();
    let scorer = Scorer::new(&model, &windows).unwrap();
    block_on(scorer.perplexity(&BlockSet::new())).unwrap().perplexity
}

/// What transformers 5.23 says about fixtures with other settings.
#[test]
fn settings_mean_what_they_mean_to_transformers() {
    let gpu = open(&GpuOptions::default());
    let sliding =
        |positions: usize, window: usize| json!({"max_position_embeddings": positions, "sliding_window": window});
    let types = ["sliding_attention", "full_attention", "sliding_attention"];
    for (name, settings, expected) in [
        // Texts that are longer than the model's positions, with windows that are not shorter than these.
        ("mistral", sliding(16, 16), 40.52479755),
        ("mistral", sliding(8, 20), 48.03844597),
        ("starcoder2", sliding(16, 16), 37.07117004),
        ("phi3", sliding(16, 16), 43.00719556),
        ("gemma2", sliding(8, 20), 81.14230553),
        ("gemma3", sliding(8, 11), 29.77650540),
        ("exaone4", sliding(8, 9), 29.67403729),
        ("smollm3", json!({"layer_types": types, "sliding_window": 7}), 147.75829727),
        ("falcon-alibi", json!({"parallel_attn": null}), fixture("falcon-alibi").1.perplexity),
        ("falcon-alibi", json!({"multi_query": null}), fixture("falcon-alibi").1.perplexity),
        ("gpt-neox", json!({"hidden_act": "gelu_fast"}), 35.42084746),
    ] {
        let dir = changed(name, &settings, str::to_string);
        let found = perplexity(&gpu, &opened(&dir), &fixture(name).1);
        assert!(relative(found, expected) <= TOLERANCE, "{name} {settings}: {found}, expected {expected}");
    }
}

/// Logits of Granite are scaled, but not where it is the text model of a whole: there transformers says what it says of Granite
/// with `logits_scaling` 1.
#[test]
fn the_head_of_a_whole_is_a_matrix() {
    let (checkpoint, reference) = fixture("granite");
    let whole = json!({"model_type": "llava", "text_config": checkpoint.config});
    let dir = changed("granite", &whole, |name| format!("language_model.{name}"));
    let found = perplexity(&open(&GpuOptions::default()), &opened(&dir), &reference);
    assert!(relative(found, 10.96993044) <= TOLERANCE, "{found}");
}

/// Names that transformers takes for the usual ones.
#[test]
fn tensors_have_other_names_that_mean_the_same() {
    let renamed =
        |from: &'static str, to: &'static str| move |name: &str| if name == from { to } else { name }.to_string();
    let no_change = json!({});
    for (name, dir) in [
        (
            "llama-bf16-tied",
            changed("llama-bf16-tied", &no_change, renamed("model.embed_tokens.weight", "lm_head.weight")),
        ),
        ("gpt-neox", changed("gpt-neox", &no_change, renamed("embed_out.weight", "lm_head.weight"))),
        ("gpt-neox", changed("gpt-neox", &no_change, |name| format!("model.{name}"))),
        ("llama-f32", changed("llama-f32", &no_change, |name| format!("model.{name}"))),
        ("gpt2", changed("gpt2", &no_change, |name| format!("model.{name}"))),
        ("opt", changed("opt", &no_change, |name| format!("model.{name}"))),
    ] {
        let (expected, _) = fixture(name);
        let found = opened(&dir);
        let names = |checkpoint: &Checkpoint| {
            checkpoint.weights.iter().map(|tensor| tensor.name.clone()).collect::<BTreeSet<_>>()
        };
        assert_eq!(names(&found), names(&expected), "{name}");
        let fingerprint = |checkpoint: &Checkpoint| block_on(checkpoint.weights.fingerprint()).unwrap();
        assert_eq!(fingerprint(&found), fingerprint(&expected), "{name}");
    }
    // A head of its own counts by this name, too.
    let tied =
        changed("gpt-neox", &json!({"tie_word_embeddings": true}), renamed("embed_out.weight", "lm_head.weight"));
    let own = opened(&tied);
    assert!(!own.spec.head.tied && own.notes[0].contains("embed_out.weight"), "{:?}", own.notes);
}

/// Other programs put files of their own beside a model.
#[test]
fn a_model_of_pytorch_counts_before_foreign_files() {
    for foreign in ["value_head.safetensors", "adapter_model.safetensors"] {
        let dir = changed("llama-f32", &json!({}), str::to_string);
        let path = |name: &str| dir.path().join(name);
        std::fs::rename(path("model.safetensors"), path(foreign)).unwrap();
        opened(&dir);
        std::fs::write(path("pytorch_model.bin"), b"no weights").unwrap();
        let error = block_on(Checkpoint::open(dir.path().to_str().unwrap())).err().unwrap().to_string();
        assert!(error.contains("pytorch_model.bin") && !error.contains(foreign), "{error}");
    }
}
