//! The safetensors files of a folder: which tensor goes where, their headers and their index.
//!
//! Format: <https://github.com/huggingface/safetensors#format>.

use serde_json::{Map, Value, json};

use super::OutputTensor;

/// Name of the file that says which tensor is in which weight file.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// One weight file.
pub(super) struct Shard {
    pub file: String,
    /// In the order of their bytes.
    pub tensors: Vec<OutputTensor>,
}

/// Distributes tensors over files of at most `limit` bytes, a larger tensor alone in its own.
pub(super) fn split(tensors: Vec<OutputTensor>, limit: u64) -> Vec<Shard> {
    let mut groups: Vec<Vec<OutputTensor>> = vec![Vec::new()];
    let mut filled = 0;
    for tensor in tensors {
        let bytes = tensor.bytes();
        if filled + bytes > limit && groups.last().is_some_and(|group| !group.is_empty()) {
            groups.push(Vec::new());
            filled = 0;
        }
        filled += bytes;
        if let Some(group) = groups.last_mut() {
            group.push(tensor);
        }
    }
    let count = groups.len();
    let file = |number: usize| match count {
        1 => "model.safetensors".to_string(),
        _ => format!("model-{number:05}-of-{count:05}.safetensors"),
    };
    groups
        .into_iter()
        .enumerate()
        .map(|(at, tensors)| Shard { file: file(at + 1), tensors: aligned(tensors) })
        .collect()
}

/// Wide elements first: every tensor then begins at a multiple of its element size, as readers that map the file want.
fn aligned(mut tensors: Vec<OutputTensor>) -> Vec<OutputTensor> {
    tensors.sort_by_key(|tensor| std::cmp::Reverse(tensor.dtype.bytes()));
    tensors
}

/// Bytes of a header beside its rows, at most: the length, the metadata, the padding.
pub(super) const FRAME_BYTES: u64 = 64;

/// Bytes of a tensor's row in a header, at most, where all tensors together take `all` bytes.
pub(super) fn row_bytes(tensor: &OutputTensor, all: u64) -> u64 {
    let entry = json!({"dtype": tensor.dtype.as_str(), "shape": tensor.shape, "data_offsets": [all, all]});
    // With a colon and a comma.
    (Value::from(tensor.written.as_str()).to_string().len() + entry.to_string().len() + 2) as u64
}

/// The bytes before the tensors: the length of the JSON, then the JSON padded with spaces to a multiple of 8.
pub(super) fn header(tensors: &[OutputTensor]) -> Vec<u8> {
    let mut entries = Map::new();
    entries.insert("__metadata__".to_string(), json!({"format": "pt"}));
    let mut offset = 0;
    for tensor in tensors {
        let end = offset + tensor.bytes();
        let entry = json!({"dtype": tensor.dtype.as_str(), "shape": tensor.shape, "data_offsets": [offset, end]});
        entries.insert(tensor.written.clone(), entry);
        offset = end;
    }
    let mut text = Value::Object(entries).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut text);
    bytes
}

/// The index, if there is more than one file.
pub(super) fn index(shards: &[Shard], total_size: u64) -> Option<(&'static str, Vec<u8>)> {
    if shards.len() < 2 {
        return None;
    }
    let mut weight_map = Map::new();
    for shard in shards {
        for tensor in &shard.tensors {
            weight_map.insert(tensor.written.clone(), Value::String(shard.file.clone()));
        }
    }
    let index = json!({"metadata": {"total_size": total_size}, "weight_map": weight_map});
    Some((INDEX, format!("{index:#}\n").into_bytes()))
}
