//! The GGUF container (versions 2 and 3, little-endian): metadata and quantised tensors in one file
//! (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>).
//!
//! `header.rs` parses, `metadata.rs` holds what was parsed for others to ask, `names.rs` knows what Hugging Face calls
//! the tensors.

mod header;
mod metadata;
mod names;

use std::rc::Rc;

use super::source::{ByteSource, read_exact};
use super::{DType, RowOrder, TensorInfo, UnsupportedTensor, Weights, WeightsError, elements_of};
use header::{Header, StoredTensor};
pub use metadata::{GgufMetadata, MetadataArray, MetadataValue};

const CONTAINER: &str = "GGUF";
/// Frequency factors of rotary embedding, one for each pair of a head's dimensions.
const ROPE_FREQS: &str = "rope_freqs.weight";

/// An open GGUF file.
#[derive(Clone, Debug)]
pub struct GgufFile {
    /// Everything the file says about the model and its tokenizer.
    pub metadata: GgufMetadata,
    /// The tensors. Those of the architectures `llama` and `qwen2` have their Hugging Face names and row order, others
    /// those of the file.
    pub weights: Weights,
    /// `rope_freqs.weight`, which is no weight of the model: what to divide the rotary frequencies by.
    pub rope_freqs: Option<Vec<f32>>,
}

/// Reads the header of `source` and checks where every tensor lies.
///
/// Tensors of types that cannot be read are no error until one is asked for.
pub async fn open(source: Rc<dyn ByteSource>) -> Result<GgufFile, WeightsError> {
    let Header { metadata, tensors, end } = header::read(source.as_ref()).await?;
    let metadata = GgufMetadata::new(source.name(), metadata);
    let data = data_start(source.as_ref(), &metadata, end)?;
    check_overlaps(source.name(), &tensors)?;
    let mut readable = Vec::new();
    let mut unsupported = Vec::new();
    for tensor in tensors {
        place(source.as_ref(), &metadata, data, tensor, &mut readable, &mut unsupported)?;
    }
    let mut weights = Weights::new(CONTAINER, vec![source], readable, unsupported, DType::ALL)?;
    let rope_freqs = match weights.tensors.contains_key(ROPE_FREQS) {
        true => Some(weights.read_f32(ROPE_FREQS).await?),
        false => None,
    };
    weights.tensors.remove(ROPE_FREQS);
    Ok(GgufFile { metadata, weights, rope_freqs })
}

fn malformed(file: &str, reason: String) -> WeightsError {
    WeightsError::Malformed { file: file.to_string(), container: CONTAINER, reason }
}

/// The first byte that tensor offsets count from: the end of the header, aligned.
fn data_start(source: &dyn ByteSource, metadata: &GgufMetadata, end: u64) -> Result<u64, WeightsError> {
    let alignment = metadata.unsigned("general.alignment")?.unwrap_or(32);
    if !alignment.is_power_of_two() || alignment > 1 << 30 {
        let reason = format!("`general.alignment` is {alignment}, expected a power of two");
        return Err(malformed(source.name(), reason));
    }
    Ok(end.next_multiple_of(alignment))
}

/// No byte may belong to two tensors. Those whose size is not known, for their type is not, are left out.
fn check_overlaps(file: &str, tensors: &[StoredTensor]) -> Result<(), WeightsError> {
    let mut places: Vec<_> = tensors.iter().filter_map(|tensor| Some((tensor, tensor.bytes()?))).collect();
    places.retain(|(_, bytes)| *bytes > 0);
    places.sort_by_key(|(tensor, _)| tensor.offset);
    for pair in places.windows(2) {
        let [(first, bytes), (second, _)] = pair else { continue };
        if first.offset.checked_add(*bytes).is_none_or(|end| end > second.offset) {
            let reason = format!(
                "tensor `{}` ({bytes} bytes at offset {}) overlaps tensor `{}` at offset {}",
                first.name, first.offset, second.name, second.offset
            );
            return Err(malformed(file, reason));
        }
    }
    Ok(())
}

/// Checks one tensor of the table and adds it under its Hugging Face name.
fn place(
    source: &dyn ByteSource,
    metadata: &GgufMetadata,
    data: u64,
    tensor: StoredTensor,
    readable: &mut Vec<TensorInfo>,
    unsupported: &mut Vec<UnsupportedTensor>,
) -> Result<(), WeightsError> {
    let bad = |reason: String| malformed(source.name(), format!("tensor `{}` {reason}", tensor.name));
    let alignment = metadata.unsigned("general.alignment")?.unwrap_or(32);
    if !tensor.offset.is_multiple_of(alignment) {
        return Err(bad(format!("lies at offset {}, which is no multiple of {alignment}", tensor.offset)));
    }
    let bytes = tensor.bytes();
    let end = data.checked_add(tensor.offset).and_then(|start| start.checked_add(bytes.unwrap_or(0)));
    if end.is_none_or(|end| end > source.len() && bytes != Some(0)) {
        let reason = format!("lies beyond the end of the file ({} bytes)", source.len());
        return Err(bad(format!("{reason}; if it was cut short, download it again")));
    }
    let renamed = names::hugging_face(metadata.architecture(), &tensor.name);
    let name = renamed.clone().unwrap_or_else(|| tensor.name.clone());
    let Some(dtype) = tensor.dtype else {
        unsupported.push(UnsupportedTensor { name, dtype: header::type_name(tensor.type_id), source: 0 });
        return Ok(());
    };
    let (Some(bytes), Some(_)) = (bytes, elements_of(&tensor.shape)) else {
        return Err(bad(format!("has the impossible shape {:?} for type {dtype}", tensor.shape)));
    };
    let row_order = match renamed {
        Some(_) if names::has_interleaved_rope(metadata.architecture(), &tensor.name) => {
            let head_dim = head_dim(metadata)?;
            let rows = tensor.shape.first().copied().unwrap_or(1);
            if head_dim == 0 || head_dim % 2 != 0 || rows % head_dim != 0 {
                return Err(bad(format!("has {rows} rows, expected whole heads of an even number of {head_dim} rows")));
            }
            RowOrder::InterleavedRope { head_dim }
        }
        _ => RowOrder::Stored,
    };
    let offset = data + tensor.offset;
    readable.push(TensorInfo { name, dtype, shape: tensor.shape, source: 0, offset, bytes, row_order });
    Ok(())
}

/// Rows of one attention head, from `ARCH.attention.key_length` or else the embedding length and head count.
fn head_dim(metadata: &GgufMetadata) -> Result<usize, WeightsError> {
    let key = |suffix: &str| format!("{}.{suffix}", metadata.architecture());
    let found = match metadata.unsigned(&key("attention.key_length"))? {
        Some(length) => length,
        None => {
            let width = metadata.require_unsigned(&key("embedding_length"))?;
            let heads = metadata.require_unsigned(&key("attention.head_count"))?;
            if heads == 0 || width % heads != 0 {
                let reason = format!("embedding_length {width} is no multiple of attention.head_count {heads}");
                return Err(malformed(metadata.file(), reason));
            }
            width / heads
        }
    };
    // Any number that does not fit is no divisor of a row count either.
    Ok(usize::try_from(found).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests;
