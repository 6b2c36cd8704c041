//! The containers of weights.

use std::rc::Rc;

use arbitrary::Unstructured;
use blockpruner::model::Checkpoint;
use blockpruner::testing::dequantize as dequantized;
use blockpruner::weights::{ByteSource, BytesSource, DType, Weights, WeightsError, pytorch, safetensors as container};
use pollster::block_on;
use serde_json::{Value, json};

use crate::edits::{self, Words};
use crate::gguf_file;
use crate::models::use_checkpoint;
use crate::texts::use_tokenizer;

/// Bytes after the header of a file that `header` describes.
const DATA_BYTES: usize = 44;

fn header() -> Value {
    json!({
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "BF16", "shape": [3], "data_offsets": [24, 30]},
        "empty": {"dtype": "F16", "shape": [0, 5], "data_offsets": [30, 30]},
        "c": {"dtype": "F16", "shape": [3, 1], "data_offsets": [30, 36]},
        "other": {"dtype": "I64", "shape": [], "data_offsets": [36, 44]},
    })
}

fn index() -> Value {
    json!({
        "metadata": {"total_size": 88},
        "weight_map": {"a": "1.safetensors", "b": "./1.safetensors", "c": "2.safetensors"},
    })
}

/// A safetensors file; its length of the header is right unless `data` says otherwise.
pub(crate) fn safetensors_file(data: &mut Unstructured<'_>, header: &[u8], weights: &[u8]) -> Vec<u8> {
    let length = match data.ratio(1, 16).unwrap_or(false) {
        true => data.arbitrary().unwrap_or(0),
        false => header.len() as u64,
    };
    [&length.to_le_bytes(), header, weights].concat()
}

pub(crate) fn source(name: &str, bytes: Vec<u8>) -> Rc<dyn ByteSource> {
    Rc::new(BytesSource::new(name, bytes))
}

/// One safetensors file, or shards with an index.
pub fn safetensors(bytes: &[u8]) {
    // A file that begins with the length of a short header is taken as it is.
    if bytes.get(2..8).is_some_and(|high| high.iter().all(|byte| *byte == 0)) {
        return read_all(block_on(container::open(vec![source("model.safetensors", bytes.to_vec())], None)));
    }
    let data = &mut Unstructured::new(bytes);
    let (header, index) = (header(), index());
    let words = Words::of([&header, &index]);
    let file = |data: &mut Unstructured<'_>, name: &str| {
        let header = edits::changed(data, &header, &words);
        let weights = [0x3c; DATA_BYTES];
        source(name, safetensors_file(data, &header, &weights))
    };
    let sharded = data.ratio(1, 3).unwrap_or(false);
    let first = file(data, "1.safetensors");
    if !sharded {
        return read_all(block_on(container::open(vec![first], None)));
    }
    let index = edits::changed(data, &index, &words);
    for shard in container::shard_files(&index).unwrap_or_default() {
        assert!(!shard.contains(['/', '\\']) && shard != "..", "{shard} leads out of the folder");
    }
    let mut header = json!({"c": {"dtype": "F16", "shape": [3, 1], "data_offsets": [0, 6]}});
    if data.ratio(1, 4).unwrap_or(false) {
        header["a"] = header["c"].clone();
    }
    let second = source("2.safetensors", safetensors_file(data, header.to_string().as_bytes(), &[0; 6]));
    read_all(block_on(container::open(vec![first, second], Some(&index))));
}

fn read_all(opened: Result<Weights, WeightsError>) {
    let Ok(weights) = opened else { return };
    for info in weights.iter() {
        let _ = block_on(weights.read_rows(&info.name, 0..info.rows()));
        let _ = block_on(weights.read_rows(&info.name, info.rows() / 2..info.rows()));
        let _ = block_on(weights.read_f32(&info.name));
    }
    let _ = block_on(weights.fingerprint());
}

/// A state dict as `torch.save` pickles it, of tensors in `data/0` to `data/6`.
const STATE_DICT: &[u8] = include_bytes!("../corpus/pickle/state_dict.pkl");
const MOST_PICKLE_CHANGES: usize = 4;

/// A PyTorch checkpoint: an archive, the pickle in one, or changes to that of `STATE_DICT`.
pub fn pickle(bytes: &[u8]) {
    let open = |file: Vec<u8>| read_all(block_on(pytorch::open(vec![source("pytorch_model.bin", file)], None)));
    if bytes.starts_with(b"PK") {
        return open(bytes.to_vec());
    }
    if bytes.starts_with(b"\x80\x02") {
        return open(pytorch_archive(bytes));
    }
    let data = &mut Unstructured::new(bytes);
    let mut pickle = STATE_DICT.to_vec();
    for _ in 0..data.int_in_range(0..=MOST_PICKLE_CHANGES).unwrap_or(0) {
        if edits::change_bytes(data, &mut pickle).is_err() {
            break;
        }
    }
    let mut file = pytorch_archive(&pickle);
    if data.ratio(1, 4).unwrap_or(false) {
        let _ = edits::change_bytes(data, &mut file);
    }
    open(file);
}

/// A ZIP archive of stored files as `torch.save` lays it out.
fn pytorch_archive(pickle: &[u8]) -> Vec<u8> {
    let storages = (0..7).map(|number| (format!("model/data/{number}"), &[0x3c; 120][..]));
    let small = [("model/data.pkl".to_string(), pickle), ("model/byteorder".to_string(), b"little")];
    let (mut file, mut directory, mut count) = (Vec::new(), Vec::new(), 0u16);
    for (name, bytes) in small.into_iter().chain(storages) {
        let name_len = (name.len() as u16).to_le_bytes();
        let (len, place) = ((bytes.len() as u32).to_le_bytes(), (file.len() as u32).to_le_bytes());
        file.extend([b"PK\x03\x04", &[0; 22][..], &name_len, &[0; 2], name.as_bytes(), bytes].concat());
        directory
            .extend([b"PK\x01\x02", &[0; 16][..], &len, &len, &name_len, &[0; 12], &place, name.as_bytes()].concat());
        count += 1;
    }
    let (len, place) = ((directory.len() as u32).to_le_bytes(), (file.len() as u32).to_le_bytes());
    let count = count.to_le_bytes();
    [&file, &directory, &b"PK\x05\x06\0\0\0\0"[..], &count, &count, &len, &place, &[0; 2]].concat()
}

/// A GGUF file: weights, architecture, tokenizer, export.
pub fn gguf(bytes: &[u8]) {
    let data = &mut Unstructured::new(bytes);
    let file = match bytes.starts_with(b"GGUF") {
        true => bytes.to_vec(),
        false => gguf_file::changed(data).unwrap_or_default(),
    };
    let Ok(checkpoint) = block_on(Checkpoint::from_gguf("model", source("model.gguf", file))) else { return };
    // The rows of a tensor are all alike.
    for info in checkpoint.weights.iter() {
        let _ = block_on(checkpoint.weights.read_rows(&info.name, 0..info.rows().min(1)));
        let _ = block_on(checkpoint.weights.read_rows(&info.name, info.rows().saturating_sub(1)..info.rows()));
    }
    if let Ok(tokenizer) = checkpoint.tokenizer() {
        use_tokenizer(data, tokenizer);
    }
    // It takes most of the time.
    if data.ratio(1, 8).unwrap_or(false) {
        use_checkpoint(data, &checkpoint);
    }
}

/// Blocks of every type: as many elements as there are whole blocks, or nothing.
///
/// # Panics
/// If something is wrong.
pub fn dequantize(bytes: &[u8]) {
    let data = &mut Unstructured::new(bytes);
    let Ok(dtype) = data.choose(DType::ALL) else { return };
    let blocks = data.peek_bytes(data.len()).unwrap_or_default();
    let count = blocks.len() / dtype.block_bytes();
    let (whole, rest) = blocks.split_at(count * dtype.block_bytes());
    let elements = |bytes| dequantized(*dtype, bytes).map(|values| values.len());
    assert_eq!(elements(whole), Some(count * dtype.block_elements()), "{count} blocks of {dtype}");
    if !rest.is_empty() {
        assert_eq!(elements(blocks), None, "{count} blocks of {dtype} and {} bytes", rest.len());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn the_base_of_changes_to_pickles_is_accepted() {
        let file = source("pytorch_model.bin", pytorch_archive(STATE_DICT));
        let weights = block_on(pytorch::open(vec![file], None)).unwrap();
        assert_eq!(weights.iter().count(), 8);
    }
}
