//! Checkpoint containers: where the bytes of a tensor are and how they become floats.
//!
//! All containers, [`safetensors`], [`pytorch`] and GGUF, end in one [`Weights`]: an index of tensors, read a few rows at a time
//! from a [`ByteSource`]. Nothing here knows what a tensor is for; whoever does gives those of GGUF files their Hugging Face
//! names and row order with `Weights::renamed`.

pub(crate) mod dequantize;
mod dtype;
pub(crate) mod gguf;
mod index;
pub mod pytorch;
pub(crate) mod quantize;
mod rows;
pub mod safetensors;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::rc::Rc;

use sha2::{Digest, Sha256};

use crate::digest::hex;
pub use dtype::{DType, FloatType};
pub(crate) use rows::{Form, Tensor};
#[cfg(not(target_arch = "wasm32"))]
pub use source::FileSource;
pub use source::{ByteSource, BytesSource, NamedSources, ReadFuture, ReadIntoFuture, SharedSource};
pub(crate) use source::{NO_MEMORY, base_name, check_range};

#[cfg(target_endian = "big")]
compile_error!("checkpoints and GPU buffers are little-endian, and rows are handed on without swapping bytes");

/// What went wrong while reading a checkpoint. Every message names the file and, where there is one, the tensor.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
#[non_exhaustive]
pub enum WeightsError {
    /// A file cannot be opened at all.
    #[error("{file}: cannot be opened: {reason}")]
    Open { file: String, reason: String },
    /// The operating system, or the host page, could not read the bytes.
    #[error("{file}: cannot read {len} bytes at offset {offset}: {reason}")]
    Read { file: String, offset: u64, len: u64, reason: String },
    /// The container is not what it says it is: truncated, overlapping offsets, impossible sizes.
    #[error("{file}: not a valid {container} file: {reason}")]
    Malformed { file: String, container: &'static str, reason: String },
    /// A file that may be sound but is not what is needed: what it is, and what to do.
    #[error("{file}: {problem}; {advice}")]
    Refused { file: String, problem: String, advice: String },
    /// A tensor type that no code here can decode.
    #[error("{file}: tensor `{tensor}` has type {dtype}, which is not supported (supported: {supported})")]
    UnsupportedType { file: String, tensor: String, dtype: String, supported: String },
    /// A tensor that the model needs is not there.
    #[error("{file}: tensor `{tensor}` is missing")]
    MissingTensor { file: String, tensor: String },
    /// A tensor has another shape than the model's configuration says.
    #[error("{file}: tensor `{tensor}` has shape {found:?}, expected {expected:?}")]
    Shape { file: String, tensor: String, found: Vec<usize>, expected: Vec<usize> },
    /// Rows were asked for that the tensor does not have.
    #[error("{file}: tensor `{tensor}` has {available} rows, rows {start}..{end} were asked for")]
    Rows { file: String, tensor: String, available: usize, start: usize, end: usize },
    /// A metadata entry is missing or of another type than it should be.
    #[error("{file}: metadata key `{key}` is {found}, expected {expected}")]
    Metadata { file: String, key: String, found: String, expected: &'static str },
    /// A weight is NaN or infinite.
    #[error(
        "{file}: tensor `{tensor}` holds a value that is not finite ({value}) at row {row}; the checkpoint is damaged"
    )]
    NotFinite { file: String, tensor: String, row: usize, value: f32 },
}

/// Rows as the file stored them and in which order they are read.
///
/// Some files hold the rows of Q and K permuted for rotary embedding of neighbouring elements: within the first `rotated`
/// rows of a head, file row `2 * i + h` is row `h * rotated / 2 + i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowOrder {
    /// Row `n` of the tensor is row `n` of the file.
    Stored,
    /// Undo that permutation.
    InterleavedRope {
        /// Rows of one head, a divisor of the row count.
        head_dim: usize,
        /// Those that are permuted, an even number.
        rotated: usize,
    },
    /// The other way round: make that permutation.
    Interleaved {
        /// Rows of one head, a divisor of the row count.
        head_dim: usize,
        /// Those that are permuted, an even number.
        rotated: usize,
    },
    /// The file holds Q, K and V group by group: the query heads that share a key head, that, and its value head. Handed out
    /// are all of Q, then K, then V.
    Grouped(Heads),
    /// The other way round: the file holds all of Q, then K, then V, and they are handed out group by group.
    Regrouped(Heads),
    /// The file's columns are handed out as rows. Only whole matrices are read so.
    Transposed,
}

/// Heads of Q, K and V in one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads, a divisor of `heads`.
    pub kv_heads: usize,
    /// Rows of one head.
    pub head_dim: usize,
}

/// A tensor's name, and how it is handed out under it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Renamed {
    pub name: String,
    /// The row of the file's matrix that this is, as a vector; None: all of the tensor.
    pub row: Option<usize>,
    pub row_order: RowOrder,
    /// Whether 1 is taken off every value.
    pub less_one: bool,
}

impl Renamed {
    /// As it is stored.
    pub fn only(name: String) -> Self {
        Self { name, row: None, row_order: RowOrder::Stored, less_one: false }
    }

    /// What it makes of the file's tensor.
    fn of(self, stored: &TensorInfo) -> TensorInfo {
        let mut tensor = stored.clone();
        if let Some(row) = self.row {
            tensor.bytes = stored.bytes / stored.rows().max(1) as u64;
            tensor.offset += row as u64 * tensor.bytes;
            tensor.shape.remove(0);
        }
        if self.row_order == RowOrder::Transposed {
            tensor.shape.reverse();
        }
        TensorInfo { name: self.name, row_order: self.row_order, less_one: self.less_one, ..tensor }
    }
}

impl RowOrder {
    /// The file row that holds row `row` as it is handed out.
    fn stored_row(self, row: usize) -> usize {
        match self {
            RowOrder::Stored | RowOrder::Transposed => row,
            RowOrder::InterleavedRope { head_dim, rotated } => {
                let (head, within, half) = (row / head_dim, row % head_dim, rotated / 2);
                if within >= rotated { row } else { head * head_dim + 2 * (within % half) + within / half }
            }
            RowOrder::Interleaved { head_dim, rotated } => {
                let (head, within, half) = (row / head_dim, row % head_dim, rotated / 2);
                if within >= rotated { row } else { head * head_dim + within % 2 * half + within / 2 }
            }
            RowOrder::Grouped(Heads { heads, kv_heads, head_dim }) => {
                let (head, within, shared) = (row / head_dim, row % head_dim, heads / kv_heads);
                let (group, place) = match head.checked_sub(heads) {
                    None => (head / shared, head % shared),
                    // K, then V.
                    Some(other) => (other % kv_heads, shared + other / kv_heads),
                };
                (group * (shared + 2) + place) * head_dim + within
            }
            RowOrder::Regrouped(Heads { heads, kv_heads, head_dim }) => {
                let (head, within, shared) = (row / head_dim, row % head_dim, heads / kv_heads);
                let (group, place) = (head / (shared + 2), head % (shared + 2));
                let head = match place.checked_sub(shared) {
                    None => group * shared + place,
                    Some(other) => heads + other * kv_heads + group,
                };
                head * head_dim + within
            }
        }
    }

    /// This order, and then another one on what is handed out.
    pub(crate) fn then(self, next: Self) -> Self {
        match (self, next) {
            (first, RowOrder::Stored) => first,
            (first, next) if next == first.inverse() => RowOrder::Stored,
            // Nothing else is put in order twice.
            _ => next,
        }
    }

    /// What undoes it.
    pub(crate) fn inverse(self) -> Self {
        match self {
            RowOrder::Stored | RowOrder::Transposed => self,
            RowOrder::InterleavedRope { head_dim, rotated } => RowOrder::Interleaved { head_dim, rotated },
            RowOrder::Interleaved { head_dim, rotated } => RowOrder::InterleavedRope { head_dim, rotated },
            RowOrder::Grouped(heads) => RowOrder::Regrouped(heads),
            RowOrder::Regrouped(heads) => RowOrder::Grouped(heads),
        }
    }

    /// The smallest range of file rows that holds all of `rows`, which must not be empty.
    fn stored_range(self, rows: &Range<usize>) -> Range<usize> {
        if self == RowOrder::Stored {
            return rows.clone();
        }
        let first = rows.clone().map(|row| self.stored_row(row)).min().unwrap_or(0);
        let last = rows.clone().map(|row| self.stored_row(row)).max().unwrap_or(0);
        first..last + 1
    }
}

/// Where a tensor lies and what it looks like.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TensorInfo {
    /// For example `model.embed_tokens.weight`.
    pub name: String,
    /// Stored type.
    pub dtype: DType,
    /// Row-major shape in elements, outermost first (`[out_features, in_features]` for a linear layer).
    pub shape: Vec<usize>,
    /// Which of the container's sources holds it.
    pub(crate) source: usize,
    /// First byte, from the start of the source.
    pub offset: u64,
    /// Stored bytes.
    pub bytes: u64,
    /// Order in which rows are handed out.
    pub(crate) row_order: RowOrder,
    /// Whether values are handed out less 1: those of a float type.
    pub(crate) less_one: bool,
}

impl TensorInfo {
    /// Rows that [`Weights::read_rows`] counts: the outermost dimension (1 for a scalar).
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Elements of one row: all dimensions but the outermost (1 for vectors and scalars).
    pub fn columns(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// Where it is handed out with rows for columns: as the file holds it.
    fn untransposed(&self) -> Option<Self> {
        (self.row_order == RowOrder::Transposed).then(|| {
            let shape = self.shape.iter().rev().copied().collect();
            Self { shape, row_order: RowOrder::Stored, ..self.clone() }
        })
    }

    /// Elements in all.
    pub fn elements(&self) -> usize {
        self.rows() * self.columns()
    }
}

/// A tensor that is in the file but in a type that nothing here can decode. It is an error only if it is needed.
#[derive(Clone, Debug)]
pub(crate) struct UnsupportedTensor {
    /// As [`TensorInfo::name`].
    pub(crate) name: String,
    /// Stored type, as the file's format calls it.
    pub(crate) dtype: String,
    /// Which of the container's sources holds it.
    pub(crate) source: usize,
}

/// Rows of a tensor as floats the GPU understands, little-endian, row-major, without padding.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rows {
    /// Type of the elements of `bytes`: the stored type, or F32 if the tensor was quantised.
    pub dtype: FloatType,
    /// `rows * columns` elements.
    pub bytes: Vec<u8>,
}

impl Rows {
    /// Rows whose bytes are little-endian f32.
    pub(crate) fn of_f32(bytes: Vec<u8>) -> Self {
        Self { dtype: FloatType::F32, bytes }
    }

    /// The elements as f32, converted exactly.
    pub fn to_f32(&self) -> Vec<f32> {
        // Floats have blocks of one element, and `bytes` holds whole elements.
        dequantize::dequantize(self.dtype.into(), &self.bytes).unwrap_or_default()
    }
}

/// An open checkpoint: its tensors by name.
#[derive(Clone)]
pub struct Weights {
    container: &'static str,
    sources: Vec<Rc<dyn ByteSource>>,
    tensors: BTreeMap<String, TensorInfo>,
    unsupported: BTreeMap<String, UnsupportedTensor>,
    /// What the container could have held; for the message about the unsupported ones.
    supported: &'static [DType],
}

/// A file is read whole for its fingerprint up to this size ..
const FINGERPRINT_WHOLE: u64 = 64 << 20;
/// .. and beyond it, so many pieces of every tensor are, spread evenly from its first to its last byte,
const FINGERPRINT_PIECES: u64 = 4;
/// each of so many bytes.
const FINGERPRINT_PIECE: u64 = 16 << 10;
/// Bytes that are read at once where the order of reading does not matter.
const READ_AT_ONCE: u64 = 4 << 20;

impl Weights {
    /// The readable tensors of `container` files. Two of one name are an error.
    pub(crate) fn new(
        container: &'static str,
        sources: Vec<Rc<dyn ByteSource>>,
        tensors: Vec<TensorInfo>,
        unsupported: Vec<UnsupportedTensor>,
        supported: &'static [DType],
    ) -> Result<Self, WeightsError> {
        let mut weights =
            Self { container, sources, tensors: BTreeMap::new(), unsupported: BTreeMap::new(), supported };
        for tensor in tensors {
            weights.check_new(&tensor.name, tensor.source)?;
            weights.tensors.insert(tensor.name.clone(), tensor);
        }
        for tensor in unsupported {
            weights.check_new(&tensor.name, tensor.source)?;
            weights.unsupported.insert(tensor.name.clone(), tensor);
        }
        Ok(weights)
    }

    fn check_new(&self, name: &str, source: usize) -> Result<(), WeightsError> {
        let readable = self.tensors.get(name).map(|tensor| tensor.source);
        let Some(first) = readable.or_else(|| self.unsupported.get(name).map(|tensor| tensor.source)) else {
            return Ok(());
        };
        let reason = format!("tensor `{name}` is there twice; the other one is in {}", self.source_name(first));
        Err(WeightsError::Malformed { file: self.source_name(source).to_string(), container: self.container, reason })
    }

    /// The same tensors under other names, handed out in another way than the file has them: each as one, or as its rows. A
    /// tensor for which there is nothing else keeps its name.
    ///
    /// # Errors
    /// [`WeightsError::Malformed`] if two come to have one name; [`WeightsError::Shape`] if a matrix has not as many rows as
    /// there are names for them.
    pub(crate) fn renamed<I>(self, names: impl Fn(&str) -> I) -> Result<Self, WeightsError>
    where
        I: IntoIterator<Item = Renamed>,
    {
        let (mut tensors, mut unsupported) = (Vec::new(), Vec::new());
        for (name, tensor) in &self.tensors {
            let renamed: Vec<Renamed> = names(name).into_iter().collect();
            if renamed.iter().any(|renamed| renamed.row.is_some()) {
                self.require(name, &[renamed.len(), tensor.elements() / renamed.len()])?;
            }
            match renamed.is_empty() {
                true => tensors.push(tensor.clone()),
                false => tensors.extend(renamed.into_iter().map(|renamed| renamed.of(tensor))),
            }
        }
        for (name, tensor) in &self.unsupported {
            let mut renamed: Vec<String> = names(name).into_iter().map(|renamed| renamed.name).collect();
            if renamed.is_empty() {
                renamed.push(name.clone());
            }
            unsupported.extend(renamed.into_iter().map(|name| UnsupportedTensor { name, ..tensor.clone() }));
        }
        Self::new(self.container, self.sources, tensors, unsupported, self.supported)
    }

    /// The same tensors, the rows of some, which are handed out so far as in Hugging Face's files, in another order.
    pub(crate) fn reordered(&self, orders: BTreeMap<String, RowOrder>) -> Self {
        let mut weights = self.clone();
        for (name, order) in orders {
            if let Some(tensor) = weights.tensors.get_mut(&name) {
                tensor.row_order = tensor.row_order.then(order);
            }
        }
        weights
    }

    /// Some of the matrices with rows for columns: in memory, or as the file has them where that is how they lie there.
    ///
    /// # Errors
    /// Those of [`Weights::read_rows`].
    pub(crate) async fn transposed(&self, names: &BTreeSet<&str>) -> Result<Self, WeightsError> {
        let (mut sources, mut tensors): (Vec<Rc<dyn ByteSource>>, _) = (Vec::new(), Vec::new());
        for name in names {
            let info = self.find(name)?;
            if let Some(stored) = info.untransposed() {
                tensors.push(TensorInfo { source: sources.len(), ..stored });
                sources.extend(self.sources.get(info.source).cloned());
                continue;
            }
            let Rows { dtype, bytes } = self.read_rows(name, 0..info.rows()).await?;
            let bytes = transpose(&bytes, info.rows(), info.columns(), dtype.bytes());
            tensors.push(TensorInfo {
                name: name.to_string(),
                dtype: dtype.into(),
                shape: vec![info.columns(), info.rows()],
                source: sources.len(),
                offset: 0,
                bytes: bytes.len() as u64,
                row_order: RowOrder::Stored,
                less_one: false,
            });
            sources.push(Rc::new(BytesSource::new(self.file_of(info), bytes)));
        }
        Self::new(self.container, sources, tensors, Vec::new(), self.supported)
    }

    /// The tensor of this name, if it is there in a type that can be read.
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// The tensor of this name, whatever its shape; else [`WeightsError::MissingTensor`] or
    /// [`WeightsError::UnsupportedType`].
    fn find(&self, name: &str) -> Result<&TensorInfo, WeightsError> {
        if let Some(info) = self.tensors.get(name) {
            return Ok(info);
        }
        let tensor = name.to_string();
        if let Some(found) = self.unsupported.get(name) {
            let supported: Vec<_> = self.supported.iter().map(|dtype| dtype.as_str()).collect();
            return Err(WeightsError::UnsupportedType {
                file: self.source_name(found.source).to_string(),
                tensor,
                dtype: found.dtype.clone(),
                supported: supported.join(", "),
            });
        }
        let more = self.sources.len().saturating_sub(1);
        let first = self.source_name(0);
        let file = if more == 0 { first.to_string() } else { format!("{first} and {more} more shards") };
        Err(WeightsError::MissingTensor { file, tensor })
    }

    /// The tensor of this name, which must have this shape: else [`WeightsError::MissingTensor`],
    /// [`WeightsError::UnsupportedType`] or [`WeightsError::Shape`].
    pub(crate) fn require(&self, name: &str, shape: &[usize]) -> Result<&TensorInfo, WeightsError> {
        let info = self.find(name)?;
        if info.shape == shape {
            return Ok(info);
        }
        Err(WeightsError::Shape {
            file: self.file_of(info).to_string(),
            tensor: name.to_string(),
            found: info.shape.clone(),
            expected: shape.to_vec(),
        })
    }

    /// The type of the tensor of this name; else [`WeightsError::MissingTensor`] or [`WeightsError::UnsupportedType`].
    pub(crate) fn require_type(&self, name: &str) -> Result<DType, WeightsError> {
        Ok(self.find(name)?.dtype)
    }

    /// Names of all readable tensors, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Names of all tensors, those that cannot be read at the end.
    pub(crate) fn all_names(&self) -> impl Iterator<Item = &str> {
        self.names().chain(self.unsupported.keys().map(String::as_str))
    }

    /// All readable tensors, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.values()
    }

    /// Bytes of all readable tensors as they are stored.
    pub fn stored_bytes(&self) -> u64 {
        self.iter().map(|tensor| tensor.bytes).sum()
    }

    /// The tensors whose type cannot be read, sorted by name.
    pub(crate) fn unsupported(&self) -> impl Iterator<Item = &UnsupportedTensor> {
        self.unsupported.values()
    }

    /// The name of the file that holds `info`'s tensor.
    pub fn file_of(&self, info: &TensorInfo) -> &str {
        self.source_name(info.source)
    }

    fn source_name(&self, source: usize) -> &str {
        self.sources.get(source).map_or("checkpoint", |source| source.name())
    }

    /// Rows `rows` of a tensor in Hugging Face order. A row is everything behind the outermost dimension; a vector
    /// has one element a row.
    ///
    /// Quantised tensors come as F32, others as they are stored.
    ///
    /// # Errors
    /// [`WeightsError::MissingTensor`], [`WeightsError::UnsupportedType`] and [`WeightsError::Rows`] for what is not there;
    /// [`WeightsError::NotFinite`] if a value is NaN or infinite; [`WeightsError::Read`].
    pub async fn read_rows(&self, name: &str, rows: Range<usize>) -> Result<Rows, WeightsError> {
        let tensor = self.tensor(name)?;
        tensor.check_rows(&rows)?;
        let Some(stored) = tensor.info.untransposed() else { return tensor.rows(rows).await };
        let Rows { dtype, bytes } = Tensor { info: &stored, ..tensor }.rows(0..stored.rows()).await?;
        let bytes = transpose(&bytes, stored.rows(), stored.columns(), dtype.bytes());
        let row = stored.rows() * dtype.bytes();
        Ok(Rows { dtype, bytes: bytes[rows.start * row..rows.end * row].to_vec() })
    }

    /// Rows `rows` of what `order` makes of a tensor as the file has it, in `form`. In [`Form::Stored`] quantised rows stay so;
    /// a quantised vector, whose rows are no whole blocks, cannot be had in it, nor a quantised matrix with rows for columns.
    ///
    /// # Errors
    /// Those of [`Weights::read_rows`].
    pub(crate) async fn read_in_order(
        &self,
        name: &str,
        order: RowOrder,
        rows: Range<usize>,
        form: Form,
    ) -> Result<Vec<u8>, WeightsError> {
        let Tensor { info, source } = self.tensor(name)?;
        let mut stored = info.untransposed().unwrap_or_else(|| info.clone());
        stored.less_one = false;
        if order != RowOrder::Transposed {
            stored.row_order = order;
            return Tensor { info: &stored, source }.in_form(rows, form).await;
        }
        stored.row_order = RowOrder::Stored;
        let bytes = Tensor { info: &stored, source }.in_form(0..stored.rows(), form).await?;
        let element = bytes.len() / stored.elements().max(1);
        let row = stored.rows() * element;
        let transposed = transpose(&bytes, stored.rows(), stored.columns(), element);
        let there = TensorInfo { shape: vec![stored.columns(), stored.rows()], ..stored };
        Tensor { info: &there, source }.check_rows(&rows)?;
        Ok(transposed[rows.start * row..rows.end * row].to_vec())
    }

    /// What reads the rows of the tensor of this name.
    pub(crate) fn tensor(&self, name: &str) -> Result<Tensor<'_, dyn ByteSource>, WeightsError> {
        let info = self.find(name)?;
        Ok(Tensor { info, source: self.source(info)? })
    }

    fn source(&self, info: &TensorInfo) -> Result<&(dyn ByteSource + 'static), WeightsError> {
        match self.sources.get(info.source) {
            Some(source) => Ok(source.as_ref()),
            None => Err(WeightsError::Open {
                file: "checkpoint".to_string(),
                reason: format!("there is no file number {}", info.source),
            }),
        }
    }

    /// A whole tensor in Hugging Face order, converted to f32.
    ///
    /// # Errors
    /// Those of [`Weights::read_rows`].
    pub async fn read_f32(&self, name: &str) -> Result<Vec<f32>, WeightsError> {
        let rows = self.find(name)?.rows();
        Ok(self.read_rows(name, 0..rows).await?.to_f32())
    }

    /// SHA-256, in hexadecimal, over the table of readable tensors and their stored bytes.
    ///
    /// Up to 64 MiB all bytes count. Of a larger checkpoint 64 KiB of every tensor do, in four pieces spread evenly
    /// from its first byte to its last, so that it stays quick.
    ///
    /// # Errors
    /// [`WeightsError::Read`].
    pub async fn fingerprint(&self) -> Result<String, WeightsError> {
        let whole = self.stored_bytes() <= FINGERPRINT_WHOLE;
        let mut hash = Sha256::new();
        hash.update(b"blockpruner weights 1\n");
        for info in self.tensors.values() {
            let order = match info.row_order {
                RowOrder::Stored | RowOrder::Transposed => 0,
                RowOrder::InterleavedRope { head_dim, .. } | RowOrder::Interleaved { head_dim, .. } => head_dim,
                RowOrder::Grouped(heads) | RowOrder::Regrouped(heads) => heads.head_dim,
            };
            hash.update(format!("{:?} {} {:?} {order}\n", info.name, info.dtype, info.shape));
            for piece in fingerprint_pieces(info.bytes, whole) {
                let (offset, length) = (info.offset + piece.start, piece.end - piece.start);
                hash.update(source::read_exact(self.source(info)?, offset, length).await?);
            }
        }
        Ok(hex(hash.finalize()))
    }
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files: Vec<_> = self.sources.iter().map(|source| source.name()).collect();
        f.debug_struct("Weights").field("files", &files).field("tensors", &self.tensors.len()).finish_non_exhaustive()
    }
}

/// A matrix of elements of `size` bytes with rows for columns, square by square, so that both sides stay in the cache.
fn transpose(matrix: &[u8], rows: usize, columns: usize, size: usize) -> Vec<u8> {
    const SQUARE: usize = 64;
    let mut transposed = vec![0; matrix.len()];
    for (first_row, first_column) in
        (0..rows).step_by(SQUARE).flat_map(|row| (0..columns).step_by(SQUARE).map(move |column| (row, column)))
    {
        for row in first_row..rows.min(first_row + SQUARE) {
            for column in first_column..columns.min(first_column + SQUARE) {
                let (from, to) = ((row * columns + column) * size, (column * rows + row) * size);
                transposed[to..to + size].copy_from_slice(&matrix[from..from + size]);
            }
        }
    }
    transposed
}

/// The byte ranges of a tensor of `bytes` bytes that count for the fingerprint.
fn fingerprint_pieces(bytes: u64, whole: bool) -> Vec<Range<u64>> {
    if whole || bytes <= FINGERPRINT_PIECES * FINGERPRINT_PIECE {
        let starts = (0..bytes).step_by(READ_AT_ONCE as usize);
        return starts.map(|start| start..bytes.min(start + READ_AT_ONCE)).collect();
    }
    let stride = (bytes - FINGERPRINT_PIECE) / (FINGERPRINT_PIECES - 1);
    let starts = (0..FINGERPRINT_PIECES - 1).map(|piece| piece * stride).chain([bytes - FINGERPRINT_PIECE]);
    starts.map(|start| start..start + FINGERPRINT_PIECE).collect()
}

/// The number of elements of a tensor of this shape, if that and the size of any of its parts can be expressed.
fn elements_of(shape: &[usize]) -> Option<usize> {
    // Zeros count as ones first, so that no partial product can overflow later.
    let product = shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim.max(1)))?;
    Some(if shape.contains(&0) { 0 } else { product })
}

#[cfg(test)]
mod tests;
