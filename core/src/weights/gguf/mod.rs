//! The GGUF container (versions 2 and 3, little-endian): metadata and quantised tensors in one file, or in several
//! (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>).
//!
//! `header.rs` parses, `metadata.rs` holds what was parsed for others to ask, `split.rs` knows the parts of a split model, and
//! `writer.rs` makes the header of a new file.

mod header;
mod metadata;
mod split;
mod writer;

use std::ops::Range;
use std::rc::Rc;

use super::source::{ByteSource, read_exact};
use super::{DType, RowOrder, TensorInfo, UnsupportedTensor, Weights, WeightsError, elements_of};
pub use header::type_id;
use header::{Header, StoredTensor};
pub use metadata::{GgufMetadata, MetadataArray, MetadataValue};
pub use split::PartName;
pub(crate) use writer::{ALIGNMENT, StoredValue, TensorRow, header};

const CONTAINER: &str = "GGUF";
/// The key of what tensors begin at multiples of, where that is not [`ALIGNMENT`].
pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";
/// The tensors of [`RopeFactors`].
pub(crate) const ROPE_FREQS: &str = "rope_freqs.weight";
pub(crate) const ROPE_SHORT: &str = "rope_factors_short.weight";
pub(crate) const ROPE_LONG: &str = "rope_factors_long.weight";

/// An open GGUF file, or the parts of a split one.
#[derive(Clone, Debug)]
pub struct GgufFile {
    /// Everything the file says about the model and its tokenizer.
    pub metadata: GgufMetadata,
    /// The tensors, as the file names and orders them.
    pub weights: Weights,
    /// Tensors that are no weights of the model.
    pub rope_factors: RopeFactors,
    /// Where in the (first) file the type and value of each metadata entry are, in the order of the file.
    places: Vec<(String, Range<u64>)>,
}

impl GgufFile {
    /// The metadata as the (first) file stores them, in its order: keys, and the bytes of type and value.
    ///
    /// # Errors
    /// [`WeightsError::Read`].
    pub(crate) async fn stored_entries(&self) -> Result<Vec<(String, StoredValue)>, WeightsError> {
        let mut entries = Vec::with_capacity(self.places.len());
        for (key, place) in &self.places {
            let Some(source) = self.weights.sources.first() else { break };
            let bytes = read_exact(source.as_ref(), place.start, place.end - place.start).await?;
            entries.push((key.clone(), StoredValue::Raw(bytes)));
        }
        Ok(entries)
    }
}

/// What to divide the rotary frequencies by, one number for each pair of a head's dimensions.
#[derive(Clone, Debug, Default)]
pub struct RopeFactors {
    /// For every text: `rope_freqs.weight`.
    pub every: Option<Vec<f32>>,
    /// For texts within the window of the first training: `rope_factors_short.weight`.
    pub short: Option<Vec<f32>>,
    /// For longer ones: `rope_factors_long.weight`.
    pub long: Option<Vec<f32>>,
}

/// Reads the header of `first` and checks where every tensor lies. If it is the first part of a split model, the parts that
/// follow are found among `others` by their names; files that are none of them are left alone.
///
/// Tensors of types that cannot be read are no error until one is asked for.
///
/// # Errors
/// [`WeightsError::Read`], [`WeightsError::Malformed`]; [`WeightsError::Refused`] for a part that is not the first, and for parts
/// that are missing or of another model.
pub async fn open(first: Rc<dyn ByteSource>, others: &[Rc<dyn ByteSource>]) -> Result<GgufFile, WeightsError> {
    let mut tensors = Tensors::default();
    let mut header = header::read(first.as_ref()).await?;
    let places = std::mem::take(&mut header.places);
    let metadata = tensors.add(0, first.as_ref(), header)?;
    let others = split::other_parts(&metadata, others)?;
    for (number, part) in (1..).zip(&others) {
        let header = header::read(part.as_ref()).await?;
        let own = tensors.add(number, part.as_ref(), header)?;
        split::check_part(&metadata, &own, number)?;
    }
    let Tensors { readable, unsupported } = tensors;
    split::check_tensors(&metadata, readable.len() + unsupported.len())?;
    let sources = [vec![first], others].concat();
    let mut weights = Weights::new(CONTAINER, sources, readable, unsupported, DType::ALL)?;
    let mut rope_factors = RopeFactors::default();
    let RopeFactors { every, short, long } = &mut rope_factors;
    for (name, factors) in [(ROPE_FREQS, every), (ROPE_SHORT, short), (ROPE_LONG, long)] {
        if weights.tensors.contains_key(name) {
            *factors = Some(weights.read_f32(name).await?);
            weights.tensors.remove(name);
        }
    }
    Ok(GgufFile { metadata, weights, rope_factors, places })
}

fn malformed(file: &str, reason: String) -> WeightsError {
    WeightsError::Malformed { file: file.to_string(), container: CONTAINER, reason }
}

/// The first byte that tensor offsets count from: the end of the header, aligned.
fn data_start(source: &dyn ByteSource, metadata: &GgufMetadata, end: u64) -> Result<u64, WeightsError> {
    let alignment = metadata.unsigned(ALIGNMENT_KEY)?.unwrap_or(ALIGNMENT);
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

/// The tensors of all files.
#[derive(Default)]
struct Tensors {
    readable: Vec<TensorInfo>,
    unsupported: Vec<UnsupportedTensor>,
}

impl Tensors {
    /// Adds those of a file, which is source `number`, and gives its metadata.
    fn add(&mut self, number: usize, source: &dyn ByteSource, header: Header) -> Result<GgufMetadata, WeightsError> {
        let metadata = GgufMetadata::new(source.name(), header.metadata);
        let data = data_start(source, &metadata, header.end)?;
        check_overlaps(source.name(), &header.tensors)?;
        for tensor in header.tensors {
            self.place(number, source, &metadata, data, tensor)?;
        }
        Ok(metadata)
    }

    /// Checks one tensor of the table and adds it.
    fn place(
        &mut self,
        number: usize,
        source: &dyn ByteSource,
        metadata: &GgufMetadata,
        data: u64,
        tensor: StoredTensor,
    ) -> Result<(), WeightsError> {
        let bad = |reason: String| malformed(source.name(), format!("tensor `{}` {reason}", tensor.name));
        let alignment = metadata.unsigned(ALIGNMENT_KEY)?.unwrap_or(ALIGNMENT);
        if !tensor.offset.is_multiple_of(alignment) {
            return Err(bad(format!("lies at offset {}, which is no multiple of {alignment}", tensor.offset)));
        }
        let bytes = tensor.bytes();
        let end = data.checked_add(tensor.offset).and_then(|start| start.checked_add(bytes.unwrap_or(0)));
        if end.is_none_or(|end| end > source.len() && bytes != Some(0)) {
            let reason = format!("lies beyond the end of the file ({} bytes)", source.len());
            let advice = match split::is_piece(source.name()) {
                true => "it is a piece of a file: join the pieces in their order to one file, and give that",
                false => "if it was cut short, download it again",
            };
            return Err(bad(format!("{reason}; {advice}")));
        }
        let name = tensor.name.clone();
        let Some(dtype) = tensor.dtype else {
            let dtype = header::type_name(tensor.type_id);
            self.unsupported.push(UnsupportedTensor { name, dtype, source: number });
            return Ok(());
        };
        let (Some(bytes), Some(_)) = (bytes, elements_of(&tensor.shape)) else {
            return Err(bad(format!("has the impossible shape {:?} for type {dtype}", tensor.shape)));
        };
        let offset = data + tensor.offset;
        let (shape, row_order) = (tensor.shape, RowOrder::Stored);
        self.readable.push(TensorInfo {
            name,
            dtype,
            shape,
            source: number,
            offset,
            bytes,
            row_order,
            less_one: false,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
