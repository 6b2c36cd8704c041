//! Checkpoint containers: where the bytes of a tensor are and how they become floats.
//!
//! Both containers, [`safetensors`] and [`gguf`], end in one [`Weights`]: an index of tensors under their Hugging Face
//! names and in Hugging Face row order, whatever the file calls them, read a few rows at a time from a [`ByteSource`].
//! Nothing here knows what a tensor is for.

pub mod dequantize;
pub mod dtype;
pub mod gguf;
pub mod safetensors;
pub mod source;

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

pub use dtype::{DType, FloatType};
pub use source::{ByteSource, BytesSource};

/// What went wrong while reading a checkpoint. Every message names the file and, where there is one, the tensor.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The operating system, or the host page, could not read the bytes.
    #[error("{file}: cannot read {len} bytes at offset {offset}: {reason}")]
    Read { file: String, offset: u64, len: u64, reason: String },
    /// The container is not what it says it is: truncated, overlapping offsets, impossible sizes.
    #[error("{file}: not a valid {container} file: {reason}")]
    Malformed { file: String, container: &'static str, reason: String },
    /// A tensor type that no code here can decode.
    #[error("{file}: tensor `{tensor}` has type {dtype}, which is not supported (supported: {supported})")]
    UnsupportedType { file: String, tensor: String, dtype: String, supported: String },
    /// A tensor that the model needs is not there.
    #[error("{file}: tensor `{tensor}` is missing")]
    MissingTensor { file: String, tensor: String },
    /// A tensor has another shape than the model's configuration says.
    #[error("{file}: tensor `{tensor}` has shape {found:?}, expected {expected:?}")]
    Shape { file: String, tensor: String, found: Vec<usize>, expected: Vec<usize> },
    /// A weight is NaN or infinite.
    #[error(
        "{file}: tensor `{tensor}` holds a value that is not finite ({value}) at row {row}; the checkpoint is damaged"
    )]
    NotFinite { file: String, tensor: String, row: usize, value: f32 },
}

/// Rows as the file stored them and in which order they are read.
///
/// GGUF `llama` files hold the rows of Q and K permuted for interleaved rotary embedding: within a head of
/// `head_dim` rows, file row `2 * i + h` is Hugging Face row `h * head_dim / 2 + i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOrder {
    /// Row `n` of the tensor is row `n` of the file.
    Stored,
    /// Undo the interleaved-RoPE permutation of heads of `head_dim` rows.
    InterleavedRope { head_dim: usize },
}

/// Where a tensor lies and what it looks like.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// Hugging Face name, for example `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// Stored type.
    pub dtype: DType,
    /// Row-major shape in elements, outermost first (`[out_features, in_features]` for a linear layer).
    pub shape: Vec<usize>,
    /// Which of the container's sources holds it.
    pub source: usize,
    /// First byte, from the start of the source.
    pub offset: u64,
    /// Stored bytes.
    pub bytes: u64,
    /// Order in which rows are handed out.
    pub row_order: RowOrder,
}

/// Rows of a tensor as floats the GPU understands, little-endian, row-major, without padding.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Type of the elements of `bytes`: the stored type, or F32 if the tensor was quantised.
    pub dtype: FloatType,
    /// `rows * columns` elements.
    pub bytes: Vec<u8>,
}

/// An open checkpoint: its tensors by Hugging Face name.
#[derive(Clone)]
pub struct Weights {
    sources: Vec<Rc<dyn ByteSource>>,
    tensors: BTreeMap<String, TensorInfo>,
}
