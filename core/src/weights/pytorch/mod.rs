//! PyTorch's checkpoints: `pytorch_model.bin`, or shards and their `pytorch_model.bin.index.json`.
//!
//! Such a file is a ZIP archive (`zip.rs`) with one file of bytes for each storage, `data/0` and so on, and `data.pkl`, a pickle
//! that says which tensors are views of them (<https://docs.pytorch.org/docs/stable/notes/serialization.html>). A pickle is a
//! program; this one is only read (`pickle.rs`).

mod pickle;
mod zip;

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::source::{ByteSource, read_exact};
use super::{DType, RowOrder, TensorInfo, UnsupportedTensor, Weights, WeightsError, elements_of, index};
use crate::file_kind::FileKind;
use pickle::Stop;
use zip::Entry;

const CONTAINER: &str = "PyTorch checkpoint";
const INDEX: &str = "pytorch_model.bin.index.json";
/// Longest pickle that is read: that of some 60,000 tensors.
const PICKLE_LIMIT: u64 = 16 << 20;
/// What to do with a file that is not read.
const ADVICE: &str = "only tensors by name are read and nothing is run: take the .safetensors file, or load it where you trust it \
    and write torch.save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, FILE)";

/// Opens one file, or the shards that `index` (the text of `pytorch_model.bin.index.json`) names.
///
/// Nothing in a file is run. Tensors keep their names, and those that share their bytes are all there; those of types other than
/// F32, F16 and BF16 can be listed but not read.
///
/// # Errors
/// [`WeightsError::Malformed`] for files that are damaged, or not those that the index names; [`WeightsError::Refused`] for what is
/// more than tensors by name, or not row by row; [`WeightsError::Read`].
pub async fn open(sources: Vec<Rc<dyn ByteSource>>, index: Option<&[u8]>) -> Result<Weights, WeightsError> {
    let sources = index::shards(sources, INDEX, index, CONTAINER)?;
    let mut tensors = Vec::new();
    let mut unsupported = Vec::new();
    for (number, source) in sources.iter().enumerate() {
        open_file(number, source.as_ref(), &mut tensors, &mut unsupported).await?;
    }
    Weights::new(CONTAINER, sources, tensors, unsupported, DType::FLOATS)
}

/// The shard files that the text of a `pytorch_model.bin.index.json` names, sorted: plain names of files beside it.
///
/// # Errors
/// [`WeightsError::Malformed`] for what is no index, or names files that are not beside it.
pub fn shard_files(index: &[u8]) -> Result<Vec<String>, WeightsError> {
    index::shard_files(INDEX, index)
}

fn malformed(file: &str, reason: String) -> WeightsError {
    WeightsError::Malformed { file: file.to_string(), container: CONTAINER, reason }
}

fn refused(file: &str, problem: String) -> WeightsError {
    WeightsError::Refused { file: file.to_string(), problem, advice: ADVICE.to_string() }
}

/// The archive's files by their names without the folder that they all lie in.
struct Archive<'a> {
    source: &'a dyn ByteSource,
    entries: BTreeMap<String, Entry>,
}

impl<'a> Archive<'a> {
    async fn open(source: &'a dyn ByteSource) -> Result<Self, WeightsError> {
        let entries = zip::entries(source).await?;
        let pickle = entries.iter().find_map(|entry| entry.name.strip_suffix("data.pkl"));
        let Some(folder) = pickle.filter(|folder| folder.is_empty() || folder.ends_with('/')).map(str::to_string)
        else {
            return Err(malformed(source.name(), "it is a ZIP archive without data.pkl".to_string()));
        };
        let mut named = BTreeMap::new();
        for entry in entries {
            let Some(name) = entry.name.strip_prefix(&folder).map(str::to_string) else { continue };
            if named.insert(name.clone(), entry).is_some() {
                return Err(malformed(source.name(), format!("`{name}` is in it twice")));
            }
        }
        Ok(Self { source, entries: named })
    }

    /// A small file, if it is there.
    async fn read(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, WeightsError> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        if entry.bytes > most {
            let reason = format!("`{name}` in it has {} bytes, more than the {most} that are read", entry.bytes);
            return Err(malformed(self.source.name(), reason));
        }
        Ok(Some(read_exact(self.source, entry.data(self.source).await?, entry.bytes).await?))
    }
}

/// Reads the pickle of `source` and adds the tensors that it names.
async fn open_file(
    number: usize,
    source: &dyn ByteSource,
    tensors: &mut Vec<TensorInfo>,
    unsupported: &mut Vec<UnsupportedTensor>,
) -> Result<(), WeightsError> {
    let file = source.name();
    let start = read_exact(source, 0, source.len().min(FileKind::START as u64)).await?;
    match FileKind::of(&start) {
        Some(FileKind::Zip) => {}
        Some(FileKind::Pickle) => return Err(old_format(file)),
        Some(kind) => return Err(malformed(file, kind.problem())),
        None => return Err(malformed(file, "it does not begin as a ZIP archive does; download it again".to_string())),
    }
    let archive = Archive::open(source).await?;
    if archive.read("byteorder", 16).await?.is_some_and(|order| order == b"big") {
        let advice = "convert it: load it in PyTorch on a little-endian machine and save it there".to_string();
        let problem = "its numbers are big-endian".to_string();
        return Err(WeightsError::Refused { file: file.to_string(), problem, advice });
    }
    let pickle = archive.read("data.pkl", PICKLE_LIMIT).await?.unwrap_or_default();
    let state_dict = pickle::state_dict(&pickle).map_err(|stop| match stop {
        Stop::Malformed(reason) => malformed(file, format!("{reason}; download it again")),
        Stop::Refused(problem) => refused(file, problem),
    })?;
    let mut starts = HashMap::new();
    for (name, tensor) in state_dict {
        let bad = |reason: String| malformed(file, format!("tensor `{name}` {reason}"));
        let Some(dtype) = DType::FLOATS.iter().copied().find(|dtype| dtype.as_str() == tensor.storage.dtype) else {
            unsupported.push(UnsupportedTensor { name, dtype: tensor.storage.dtype.to_string(), source: number });
            continue;
        };
        let shape: Result<Vec<usize>, _> = tensor.shape.iter().map(|&dim| usize::try_from(dim)).collect();
        let bytes = shape.as_ref().ok().and_then(|shape| dtype.bytes_of(elements_of(shape)?));
        let (Ok(shape), Some(bytes)) = (shape, bytes) else {
            return Err(bad(format!("has the impossible shape {:?}", tensor.shape)));
        };
        if bytes > 0 && !is_contiguous(&tensor) {
            let layout = format!("shape {shape:?} with strides {:?}", tensor.strides);
            return Err(refused(file, format!("tensor `{name}` does not lie row by row ({layout})")));
        }
        let key = tensor.storage.key;
        let Some(entry) = archive.entries.get(&format!("data/{key}")) else {
            return Err(bad(format!("is in `data/{key}`, which is missing; download it again")));
        };
        let within = tensor.offset.checked_mul(dtype.block_bytes() as u64);
        let Some(within) = within.filter(|within| within.checked_add(bytes).is_some_and(|end| end <= entry.bytes))
        else {
            let reason = format!("takes {bytes} bytes from element {} of `data/{key}`", tensor.offset);
            return Err(bad(format!("{reason}, which has {}", entry.bytes)));
        };
        let start = match starts.get(&key) {
            Some(start) => *start,
            None => entry.data(source).await?,
        };
        starts.insert(key, start);
        let (offset, row_order) = (start + within, RowOrder::Stored);
        tensors.push(TensorInfo { name, dtype, shape, source: number, offset, bytes, row_order, less_one: false });
    }
    Ok(())
}

/// Whether the elements of a tensor that has some follow each other in the order of their indices.
fn is_contiguous(tensor: &pickle::Tensor) -> bool {
    let mut expected = 1u64;
    tensor.shape.iter().zip(&tensor.strides).rev().all(|(&dim, &stride)| {
        let follows = dim == 1 || stride == expected;
        expected = expected.saturating_mul(dim);
        follows
    })
}

fn old_format(file: &str) -> WeightsError {
    WeightsError::Refused {
        file: file.to_string(),
        problem: "it is in the format that torch.save wrote before PyTorch 1.6".to_string(),
        advice:
            "convert it with python -c \"import sys, torch; torch.save(torch.load(sys.argv[1], weights_only=True), \
            sys.argv[1])\" FILE"
                .to_string(),
    }
}

#[cfg(test)]
mod tests;
