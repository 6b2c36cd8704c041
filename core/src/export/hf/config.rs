//! The config.json of an exported folder, and the Python module that folders without removed blocks' tensors need.

use serde_json::{Map, Value, json};

use super::OutputTensor;
use crate::model::families::{LAYER_TYPES, LAYERS, layer_types};
use crate::model::spec::Layer;
use crate::model::{BlockId, BlockKind, BlockSet, Family, ModelSpec, PRUNED_TYPE_PREFIX};
use crate::weights::FloatType;

/// Name of the Python module by which transformers loads a folder whose blocks are gone, without `.py`.
const MODULE: &str = "modeling_blockpruner";

/// The file of that module.
pub(super) const REMOTE_CODE: &str = "modeling_blockpruner.py";

/// What is in it: the template with a family's names.
pub(super) fn remote_code(family: &Family) -> String {
    let package = family.package;
    let list = |names: Vec<&str>| json!(names).to_string();
    // Attention is one module everywhere.
    let names = [
        ("@FAMILY@", family.name.to_string()),
        ("@CONFIGURATION@", format!("transformers.models.{package}.configuration_{package}")),
        ("@CONFIG_CLASS@", family.config_class.to_string()),
        ("@MODELING@", format!("transformers.models.{package}.modeling_{package}")),
        ("@MODEL_CLASS@", family.class.to_string()),
        ("@LAYERS@", family.layers.to_string()),
        ("@SHARED_NORMS@", list(family.shared_norms())),
        ("@ATTENTION@", family.modules(BlockKind::Mha).concat()),
        ("@FEED_FORWARD@", list(family.modules(BlockKind::Mlp))),
        ("@ATTENTION_NORMS@", list(family.norms(BlockKind::Mha))),
        ("@FEED_FORWARD_NORMS@", list(family.norms(BlockKind::Mlp))),
    ];
    let template = include_str!("../remote_code/modeling_blockpruner.py").to_string();
    names.into_iter().fold(template, |text, (placeholder, name)| text.replace(placeholder, &name))
}

/// The keys that say which blocks are gone.
const GONE_KEYS: [&str; 3] = ["per_layer_config", "drop_attn_list", "drop_mlp_list"];

/// Keys by which a JSON file beside a model makes transformers run a program of the folder, or of a repository.
const FOREIGN_CODE_KEYS: [&str; 3] = ["auto_map", "custom_pipelines", "custom_generate"];

/// Keys that choose how attention is computed, in transformers also by the name of a repository with a kernel.
const KERNEL_KEYS: [&str; 5] = [
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_internal",
    "experts_implementation",
    "_experts_implementation",
];

/// Takes the keys out that name programs, at any depth (a processor's file holds those of its parts), and says where they were. In
/// a vocabulary they are tokens, with a number.
pub(super) fn drop_foreign_code(json: &mut Map<String, Value>) -> Vec<String> {
    let mut found = Vec::new();
    drop_foreign_code_of(json, "", &mut found);
    found
}

fn drop_foreign_code_of(json: &mut Map<String, Value>, path: &str, found: &mut Vec<String>) {
    json.retain(|key, value| {
        let names_program = FOREIGN_CODE_KEYS.contains(&key.as_str()) && !value.is_number();
        if names_program || KERNEL_KEYS.contains(&key.as_str()) && names_repository(value) {
            found.push(format!("{path}{key}"));
            return false;
        }
        drop_foreign_code_in(value, &format!("{path}{key}."), found);
        true
    });
}

fn drop_foreign_code_in(value: &mut Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(json) => drop_foreign_code_of(json, path, found),
        Value::Array(values) => values.iter_mut().for_each(|value| drop_foreign_code_in(value, path, found)),
        _ => {}
    }
}

/// Whether it holds an `ORG/NAME`.
fn names_repository(value: &Value) -> bool {
    match value {
        Value::String(name) => name.contains('/'),
        Value::Array(values) => values.iter().any(names_repository),
        Value::Object(values) => values.values().any(names_repository),
        _ => false,
    }
}

/// The configuration of the plain family with every block in place.
pub(super) fn restored(config: &Map<String, Value>, spec: &ModelSpec) -> Map<String, Value> {
    let mut config = config.clone();
    let own = config.get("model_type").and_then(Value::as_str).is_some_and(|name| name.starts_with(PRUNED_TYPE_PREFIX));
    if own {
        config.insert("model_type".to_string(), spec.family.name.into());
        config.insert("architectures".to_string(), json!([spec.family.class]));
        config.shift_remove("auto_map");
    }
    if own || !spec.absent.is_empty() {
        for key in GONE_KEYS {
            config.shift_remove(key);
        }
    }
    config
}

/// Keys that list something for each layer.
const LISTS_OF_LAYERS: [&str; 2] = [LAYER_TYPES.hf, "no_rope_layers"];

/// The types of a plain model's layers, where some of those that they were taken from slide and some do not.
fn types(from: &ModelSpec, plain: &ModelSpec) -> Option<Value> {
    let slides = |layer: &Layer| layer.attention.sliding_window.is_some();
    let mixed = from.layers.iter().any(slides) && !from.layers.iter().all(slides);
    mixed.then(|| layer_types(plain.layers.iter().map(slides)))
}

/// The configuration of an ordinary model, whose layers take their attention and feed-forward blocks from these layers.
pub(super) fn of_layers(
    config: &Map<String, Value>,
    spec: &ModelSpec,
    layers: &[(usize, usize)],
) -> Map<String, Value> {
    let mut config = restored(config, spec);
    let own = spec.family.key_names.iter().find(|(name, _)| *name == LAYERS.hf).map_or(LAYERS.hf, |(_, own)| own);
    // It may go by both names.
    let there = [LAYERS.hf, own].into_iter().filter(|key| config.contains_key(*key)).collect::<Vec<_>>();
    for key in if there.is_empty() { vec![own] } else { there } {
        config.insert(key.to_string(), json!(layers.len()));
    }
    let plain = spec.of_layers(layers);
    let implied = spec.family.gguf.as_ref().map(|gguf| (gguf.config)(&plain));
    for key in LISTS_OF_LAYERS {
        // What such a list is about belongs to attention.
        let listed = config.get(key).and_then(Value::as_array).filter(|list| list.len() >= spec.layers.len());
        let trimmed = listed.map(|list| layers.iter().map(|(mha, _)| list[*mha].clone()).collect::<Value>());
        // A rule by a layer's number is not one any more.
        let implied = implied.as_ref().and_then(|implied| implied.get(key)).cloned();
        let slide = || (key == LAYER_TYPES.hf).then(|| types(spec, &plain)).flatten();
        if let Some(list) = trimmed.or(implied).or_else(slide) {
            config.insert(key.to_string(), list);
        }
    }
    config
}

/// Says in a plain configuration that the blocks in `gone` are not there.
///
/// In three ways, because readers differ: `per_layer_config` is transformers' (and NVIDIA ModelOpt's), the `drop_` lists
/// are LLM-Drop's. The own `model_type` keeps transformers from filling the missing tensors at random under the plain one.
pub(super) fn mark_removed(config: &mut Map<String, Value>, family: &Family, gone: &BlockSet) {
    let class = format!("BlockPruner{}", family.class);
    let config_class = format!("BlockPruner{}", family.config_class);
    config.insert("model_type".to_string(), format!("{PRUNED_TYPE_PREFIX}{family}").into());
    config.insert("architectures".to_string(), json!([class]));
    let auto_map = json!({
        "AutoConfig": format!("{MODULE}.{config_class}"),
        "AutoModelForCausalLM": format!("{MODULE}.{class}"),
    });
    config.insert("auto_map".to_string(), auto_map);
    let mut by_depth: Vec<_> = gone.iter().collect();
    by_depth.sort_by_key(BlockId::by_layer);
    let mut per_layer = Map::new();
    for block in by_depth {
        let entry = per_layer.entry(block.layer.to_string()).or_insert_with(|| json!({"skip": []}));
        if let Some(skip) = entry.get_mut("skip").and_then(Value::as_array_mut) {
            skip.push(sub_layer(block.kind).into());
        }
    }
    config.insert("per_layer_config".to_string(), Value::Object(per_layer));
    for (key, kind) in [("drop_attn_list", BlockKind::Mha), ("drop_mlp_list", BlockKind::Mlp)] {
        let layers: Vec<usize> = gone.iter().filter(|block| block.kind == kind).map(|block| block.layer).collect();
        config.insert(key.to_string(), json!(layers));
    }
}

/// What `skip` calls a block.
fn sub_layer(kind: BlockKind) -> &'static str {
    match kind {
        BlockKind::Mha => "attention",
        BlockKind::Mlp => "mlp",
    }
}

/// The type that config.json has to state anew: that of a conversion, or one that holds all tensors of a GGUF file.
pub(super) fn dtype_to_state(
    converted: Option<FloatType>,
    from_gguf: bool,
    tensors: &[OutputTensor],
) -> Option<FloatType> {
    if converted.is_some() || !from_gguf {
        return converted;
    }
    let first = tensors.first()?.dtype;
    // F32 holds both other types exactly, so nothing is lost where a file mixes them.
    Some(if tensors.iter().all(|tensor| tensor.dtype == first) { first } else { FloatType::F32 })
}

/// Writes the type under the keys that are there: `torch_dtype`, or `dtype` since transformers 5.
pub(super) fn set_dtype(config: &mut Map<String, Value>, dtype: FloatType) {
    let name = match dtype {
        FloatType::F32 => "float32",
        FloatType::F16 => "float16",
        FloatType::BF16 => "bfloat16",
    };
    let there: Vec<&str> = ["torch_dtype", "dtype"].into_iter().filter(|key| config.contains_key(*key)).collect();
    let keys = if there.is_empty() { vec!["torch_dtype"] } else { there };
    for key in keys {
        config.insert(key.to_string(), name.into());
    }
}

/// As it stands in the file: indented, with a final newline.
pub(super) fn to_bytes(config: &Map<String, Value>) -> Vec<u8> {
    format!("{:#}\n", Value::Object(config.clone())).into_bytes()
}
