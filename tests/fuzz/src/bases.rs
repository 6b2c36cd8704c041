//! What changes are made to: documents and folders that are accepted as they are.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use blockpruner::export::{
    Fingerprint, HeldOut, PLAN_FORMAT, Plan, PlanCalibration, PlanModel, PlanSettings, PlanStatus, SavedSearch,
    order_json,
};
use blockpruner::gpu::DeviceInfo;
use blockpruner::model::{BlockId, BlockSet, ModelSpec};
use blockpruner::search::{
    BlockTypes, Candidate, CandidateState, Dense, Objective, SearchOptions, SearchState, Step, Target, Unit, Units,
    Work,
};
use serde_json::{Map, Value, json};

use crate::edits::Words;

/// Documents of one kind, and the words in them.
#[derive(Debug)]
pub struct Bases {
    /// The documents.
    pub documents: Vec<Value>,
    /// What changes put into them.
    pub words: Words,
}

impl From<Vec<Value>> for Bases {
    fn from(documents: Vec<Value>) -> Self {
        Self { words: Words::of(&documents), documents }
    }
}

/// A small model's settings and weights.
#[derive(Debug)]
pub struct Folder {
    /// config.json.
    pub config: Value,
    /// The header of model.safetensors.
    pub header: Value,
    /// What follows the header.
    pub data: Vec<u8>,
}

/// The tests' fixtures.
fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

/// Their folders, sorted.
///
/// # Panics
/// If they cannot be listed.
fn fixture_folders() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(fixtures()).unwrap_or_else(|e| panic!("{}: {e}", fixtures().display()));
    let mut folders: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    folders.sort();
    folders
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&read(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// config.json of every family, and with every kind of rotary embedding.
pub fn configs() -> &'static Bases {
    static BASES: OnceLock<Bases> = OnceLock::new();
    BASES.get_or_init(|| {
        let files = fixture_folders().into_iter().map(|folder| folder.join("config.json"));
        files.filter(|file| file.exists()).map(|file| read_json(&file)).collect::<Vec<_>>().into()
    })
}

/// tokenizer.json with every kind of model, and with most kinds of parts.
pub fn tokenizers() -> &'static Bases {
    static BASES: OnceLock<Bases> = OnceLock::new();
    BASES.get_or_init(|| {
        let file = read_json(&Path::new(env!("CARGO_MANIFEST_DIR")).join("bases/tokenizers.json"));
        file.as_array().cloned().unwrap_or_default().into()
    })
}

/// tokenizer_config.json, special_tokens_map.json, added_tokens.json and generation_config.json.
pub fn side_files() -> &'static Bases {
    static BASES: OnceLock<Bases> = OnceLock::new();
    BASES.get_or_init(|| {
        let token = |content: &str| {
            json!({"content": content, "lstrip": false, "normalized": false, "rstrip": true, "single_word": false,
                "special": true})
        };
        let config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": token("</s>"),
            "unk_token": null, "additional_special_tokens": ["<a>", token("<b>")], "split_special_tokens": false,
            "add_bos_token": true, "added_tokens_decoder": {"0": token("<unk>"), "1": token("<s>")},
            "chat_template": "{{ messages }}", "model_max_length": 64, "auto_map": {"AutoTokenizer": ["a.B", null]},
        });
        let map = json!({"bos_token": token("<s>"), "eos_token": "</s>", "extra_special_tokens": {"image": "<i>"}});
        let added = json!({"<x>": 20, "<y>": 21});
        let generation = json!({"eos_token_id": [1, 2], "bos_token_id": 0, "do_sample": true, "temperature": 0.6});
        vec![config, map, added, generation].into()
    })
}

/// A small model of every family: the fixtures that are one file.
pub fn folders() -> &'static [Folder] {
    static FOLDERS: OnceLock<Vec<Folder>> = OnceLock::new();
    FOLDERS.get_or_init(|| {
        let small = |folder: &PathBuf| {
            let size = |file| std::fs::metadata(folder.join(file)).map_or(u64::MAX, |metadata| metadata.len());
            size("config.json") < u64::MAX && size("model.safetensors") < 100_000
        };
        fixture_folders().iter().filter(|folder| small(folder)).map(|folder| Folder::read(folder)).collect()
    })
}

impl Folder {
    fn read(folder: &Path) -> Self {
        let weights = read(&folder.join("model.safetensors"));
        let (header, data) = split_safetensors(&weights)
            .unwrap_or_else(|| panic!("{}: model.safetensors is cut short", folder.display()));
        Self {
            config: read_json(&folder.join("config.json")),
            header: serde_json::from_slice(header).unwrap_or_default(),
            data: data.to_vec(),
        }
    }
}

/// Header and data of a safetensors file.
fn split_safetensors(file: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = file.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)
}

/// The words of all folders' configurations and headers.
pub fn headers() -> &'static Words {
    static WORDS: OnceLock<Words> = OnceLock::new();
    WORDS.get_or_init(|| Words::of(folders().iter().take(3).map(|folder| &folder.header)))
}

/// Small GGUF files, with each kind of tokenizer among them.
pub fn gguf_files() -> &'static [Vec<u8>] {
    static FILES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    FILES.get_or_init(|| {
        let files = fixture_folders().into_iter().map(|folder| folder.join("model.gguf"));
        files.filter(|file| file.exists()).map(|file| read(&file)).filter(|file| file.len() < 200_000).collect()
    })
}

/// The model that the plan and the saved search below are about.
///
/// # Panics
/// If its configuration is not accepted.
pub fn spec() -> ModelSpec {
    let config = json!({
        "model_type": "llama", "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
        "num_attention_heads": 2, "vocab_size": 11,
    });
    let config: Map<String, Value> = config.as_object().cloned().unwrap_or_default();
    ModelSpec::from_config(&config).unwrap_or_else(|e| panic!("{e}"))
}

/// What the saved search below was started with.
pub fn options() -> SearchOptions {
    SearchOptions::remove(3)
}

/// What the saved search below belongs to.
pub fn fingerprint() -> Fingerprint {
    Fingerprint { weights: "w".into(), tokenizer: "t".into(), ..Fingerprint::default() }
}

fn candidate(block: BlockId, perplexity: f64) -> Candidate {
    let state = CandidateState::Complete;
    let perplexity = Some(perplexity);
    Candidate { unit: block.into(), value: perplexity, perplexity, at_least: None, state, head_tokens: 5, reason: None }
}

/// A finished search of two steps.
fn searched() -> SearchState {
    let parameters = spec().parameters();
    let step = |step: usize, removed: BlockId, candidates: Vec<Candidate>| Step {
        step,
        removed: removed.into(),
        value: 13.0,
        perplexity: 13.0,
        candidates,
        work: Work { block_tokens: 7, head_tokens: 8 },
        params_left: parameters - step as u64,
        ratio_removed: 0.1 * step as f64,
        bytes: None,
        kv_cache: None,
        seconds: 1.5,
    };
    let (mha, mlp) = (BlockId::mha, BlockId::mlp);
    let bounded = Candidate {
        value: None,
        perplexity: None,
        at_least: Some(13.5),
        state: CandidateState::Bounded,
        ..candidate(mlp(1), 0.0)
    };
    let first = vec![candidate(mha(0), 14.0), candidate(mha(1), 13.0), candidate(mlp(0), 13.0), bounded.clone()];
    let second = vec![candidate(mha(0), 14.0), candidate(mlp(0), 13.0), bounded];
    SearchState {
        dense: Some(Dense { perplexity: 12.5, mean_nll: 2.5 }),
        steps: vec![step(1, mha(1), first), step(2, mlp(0), second)],
        candidates: vec![candidate(mha(0), 15.0)],
        work: Work { block_tokens: 1, head_tokens: 2 },
        seconds: 0.5,
    }
}

/// plan.json.
pub fn plans() -> &'static Bases {
    static BASES: OnceLock<Bases> = OnceLock::new();
    BASES.get_or_init(|| vec![parsed(&plan().to_json())].into())
}

fn plan() -> Plan {
    let spec = spec();
    let state = searched();
    let mut beyond =
        Step { step: 3, value: 14.0, perplexity: 14.0, removed: BlockId::mha(0).into(), ..state.steps[1].clone() };
    beyond.candidates.retain(|candidate| candidate.unit != BlockId::mlp(0).into());
    beyond.params_left -= 1;
    Plan {
        format: PLAN_FORMAT.into(),
        status: PlanStatus::Finished,
        command: Some("blockpruner prune --remove 2".into()),
        model: PlanModel {
            name: "m".into(),
            family: spec.family.to_string(),
            layers: spec.layers.len(),
            parameters: spec.parameters(),
            absent: BlockSet::new(),
            kv_cache: Some(spec.kv_cache(&BlockSet::new())),
            bytes: Some(1000),
        },
        calibration: PlanCalibration {
            source: "builtin:sample".into(),
            field: None,
            rows: 3,
            tokens: 99,
            windows: 3,
            window: 32,
            samples: Some(3),
            seed: Some(u64::MAX),
        },
        settings: PlanSettings {
            units: Units::Blocks,
            block_types: BlockTypes::Mix,
            target: Some(Target::MaxPerplexity(13.5)),
            remove: 2,
            written_as: Some("hf".into()),
            objective: Objective::Perplexity,
            strategy: "exact".into(),
            strategy_seed: None,
            approximate: false,
        },
        device: DeviceInfo {
            name: "llvmpipe".into(),
            backend: "Vulkan".into(),
            driver: "Mesa".into(),
            tier: "baseline".into(),
            kernel: "panel".into(),
        },
        fingerprint: fingerprint(),
        dense: Dense { perplexity: 12.5, mean_nll: 2.5 },
        steps: state.steps,
        beyond: Some(beyond),
        held_out: Some(HeldOut {
            text: "other.txt".into(),
            window: 32,
            windows: 3,
            tokens: 96,
            dense_perplexity: 14.5,
            perplexity: 15.5,
        }),
    }
}

/// state/search.json.
pub fn states() -> &'static Bases {
    static BASES: OnceLock<Bases> = OnceLock::new();
    BASES.get_or_init(|| {
        let begun = SavedSearch::new(fingerprint(), SearchState::default());
        let under_way = SavedSearch::new(fingerprint(), searched());
        vec![parsed(&under_way.to_json()), parsed(&begun.to_json()), parsed(&plan().to_json())].into()
    })
}

/// The published order file.
pub fn orders() -> &'static Bases {
    static BASES: OnceLock<Bases> = OnceLock::new();
    BASES.get_or_init(|| {
        let order = [BlockId::mha(25), BlockId::mlp(7), BlockId::mha(0), BlockId::mlp(31)].map(Unit::Block);
        vec![parsed(&order_json(&order))].into()
    })
}

fn parsed(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_default()
}
