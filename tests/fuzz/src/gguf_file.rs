//! GGUF files written from metadata and a table of tensors, both changed before.

use std::rc::Rc;
use std::sync::OnceLock;

use arbitrary::{Result, Unstructured};
use blockpruner::model::families;
use blockpruner::testing::{GgufFile, MetadataArray, MetadataValue, gguf_type_id, open_gguf};
use blockpruner::weights::{BytesSource, DType};
use pollster::block_on;

use crate::bases;
use crate::edits::{change_bytes, text};

const ALIGNMENT: usize = 32;
const MOST_CHANGES: usize = 6;
const NUMBERS: [u64; 14] = [0, 1, 2, 3, 4, 8, 31, 32, 64, 1 << 16, 1 << 31, 1 << 40, 1 << 63, u64::MAX];

/// A file in parts.
#[derive(Clone, Debug)]
struct File {
    metadata: Vec<(String, MetadataValue)>,
    tensors: Vec<Tensor>,
    data: Vec<u8>,
}

/// A row of the table of tensors.
#[derive(Clone, Debug)]
struct Tensor {
    name: String,
    /// Innermost first.
    dims: Vec<u64>,
    type_id: u32,
    offset: u64,
}

/// The base files, taken apart.
fn files() -> &'static [File] {
    static FILES: OnceLock<Vec<File>> = OnceLock::new();
    FILES.get_or_init(|| bases::gguf_files().iter().map(|bytes| take_apart(bytes)).collect())
}

fn take_apart(bytes: &[u8]) -> File {
    let opened = block_on(open_gguf(Rc::new(BytesSource::new("base.gguf", bytes.to_vec())), &[]));
    let GgufFile { metadata, weights, rope_factors, .. } = opened.unwrap_or_else(|e| panic!("{e}"));
    let start = weights.iter().map(|info| info.offset).min().unwrap_or(0);
    let mut tensors: Vec<Tensor> = weights
        .iter()
        .map(|info| Tensor {
            name: info.name.clone(),
            dims: info.shape.iter().rev().map(|dim| *dim as u64).collect(),
            type_id: gguf_type_id(info.dtype),
            offset: info.offset - start,
        })
        .collect();
    let mut data = bytes[start as usize..].to_vec();
    // They are no weights of the model, so they are not among them.
    let factors = [
        ("rope_freqs.weight", rope_factors.every),
        ("rope_factors_short.weight", rope_factors.short),
        ("rope_factors_long.weight", rope_factors.long),
    ];
    for (name, factors) in factors {
        let Some(factors) = factors else { continue };
        data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
        let (dims, offset) = (vec![factors.len() as u64], data.len() as u64);
        tensors.push(Tensor { name: name.to_string(), dims, type_id: gguf_type_id(DType::F32), offset });
        data.extend(factors.iter().flat_map(|factor| factor.to_le_bytes()));
    }
    let entry = |key: &str| Some((key.to_string(), metadata.get(key)?.clone()));
    let metadata = metadata.keys().filter_map(entry).collect();
    File { metadata, tensors, data }
}

/// A base file after the changes that `data` describes.
pub fn changed(data: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut file = data.choose(files())?.clone();
    if data.ratio(1, 3)? {
        become_another_family(data, &mut file)?;
    }
    for _ in 0..data.int_in_range(0..=MOST_CHANGES)? {
        let changed = match data.ratio(1, 3)? {
            true => change_tensor(data, &mut file),
            false => change_metadata(data, &mut file),
        };
        if changed.is_err() {
            break;
        }
    }
    let mut header = file.header();
    if data.ratio(1, 4)? {
        change_bytes(data, &mut header)?;
    }
    header.resize(header.len().next_multiple_of(ALIGNMENT), 0);
    header.extend(&file.data);
    if data.ratio(1, 16)? {
        header.truncate(data.int_in_range(0..=header.len())?);
    }
    Ok(header)
}

/// The same settings under the keys of another family.
fn become_another_family(data: &mut Unstructured<'_>, file: &mut File) -> Result<()> {
    let Some(new) = data.choose(families::ALL)?.gguf_architecture() else { return Ok(()) };
    for (key, value) in &mut file.metadata {
        match key.split_once('.') {
            Some(("general", "architecture")) => *value = MetadataValue::String(new.to_string()),
            Some((prefix, rest)) if prefix != "general" && prefix != "tokenizer" => *key = format!("{new}.{rest}"),
            _ => {}
        }
    }
    Ok(())
}

fn number(data: &mut Unstructured<'_>) -> Result<u64> {
    if data.ratio(1, 4)? { data.arbitrary() } else { data.choose(&NUMBERS).copied() }
}

fn change_metadata(data: &mut Unstructured<'_>, file: &mut File) -> Result<()> {
    let from = data.choose(&file.metadata)?.clone();
    let at = data.choose_index(file.metadata.len())?;
    let (key, value) = &mut file.metadata[at];
    match data.int_in_range(0..=9)? {
        0 => drop(file.metadata.remove(at)),
        1 => *key = from.0,
        2 => key.push_str(&text(data)?),
        3 => *value = from.1,
        4 => *value = MetadataValue::Unsigned(number(data)?),
        5 => *value = MetadataValue::Signed(number(data)? as i64),
        6 => *value = MetadataValue::Float(data.arbitrary()?),
        7 => *value = MetadataValue::Bool(data.arbitrary()?),
        8 => *value = MetadataValue::String(text(data)?),
        _ => match value {
            MetadataValue::Array(array) => change_array(data, array)?,
            MetadataValue::Unsigned(value) => *value = value.wrapping_add_signed(data.int_in_range(-2..=2)?),
            MetadataValue::String(value) => value.push_str(&text(data)?),
            other => *other = MetadataValue::Array(MetadataArray::Unsigned(vec![number(data)?; 3])),
        },
    }
    Ok(())
}

fn change_array(data: &mut Unstructured<'_>, array: &mut MetadataArray) -> Result<()> {
    match array {
        MetadataArray::Unsigned(list) => change_list(data, list, number),
        MetadataArray::Signed(list) => change_list(data, list, |data| Ok(number(data)? as i64)),
        MetadataArray::Float(list) => change_list(data, list, |data| data.arbitrary()),
        MetadataArray::Bool(list) => change_list(data, list, |data| data.arbitrary()),
        MetadataArray::String(list) => change_list(data, list, text),
        MetadataArray::Array(list) => data.choose_index(list.len()).and_then(|at| change_array(data, &mut list[at])),
    }
}

fn change_list<T: Clone>(
    data: &mut Unstructured<'_>,
    list: &mut Vec<T>,
    new: impl Fn(&mut Unstructured<'_>) -> Result<T>,
) -> Result<()> {
    let at = data.int_in_range(0..=list.len())?;
    match data.int_in_range(0..=3)? {
        0 => list.truncate(at),
        1 => list.insert(at, new(data)?),
        2 if at < list.len() => list[at] = new(data)?,
        _ if at < list.len() => list[at] = data.choose(list)?.clone(),
        _ => list.push(new(data)?),
    }
    Ok(())
}

fn change_tensor(data: &mut Unstructured<'_>, file: &mut File) -> Result<()> {
    let from = data.choose(&file.tensors)?.clone();
    let at = data.choose_index(file.tensors.len())?;
    let tensor = &mut file.tensors[at];
    match data.int_in_range(0..=7)? {
        0 => drop(file.tensors.remove(at)),
        1 => tensor.name = from.name,
        2 => tensor.name = text(data)?,
        3 => tensor.dims.push(number(data)?),
        4 => tensor.dims.reverse(),
        5 => change_list(data, &mut tensor.dims, number)?,
        6 => tensor.type_id = data.int_in_range(0..=41)?,
        _ => tensor.offset = if data.arbitrary()? { from.offset } else { number(data)? },
    }
    Ok(())
}

impl File {
    fn header(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            write_string(&mut out, key);
            write_value(&mut out, value);
        }
        for tensor in &self.tensors {
            write_string(&mut out, &tensor.name);
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().for_each(|dim| out.extend(dim.to_le_bytes()));
            out.extend(tensor.type_id.to_le_bytes());
            out.extend(tensor.offset.to_le_bytes());
        }
        out
    }
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// In the widest type of its kind, as which every type is read.
fn write_value(out: &mut Vec<u8>, value: &MetadataValue) {
    let mut typed = |type_id: u32, bytes: &[u8]| {
        out.extend(type_id.to_le_bytes());
        out.extend(bytes);
    };
    match value {
        MetadataValue::Unsigned(value) => typed(10, &value.to_le_bytes()),
        MetadataValue::Signed(value) => typed(11, &value.to_le_bytes()),
        MetadataValue::Float(value) => typed(12, &value.to_le_bytes()),
        MetadataValue::Bool(value) => typed(7, &[u8::from(*value)]),
        MetadataValue::String(value) => {
            typed(8, &[]);
            write_string(out, value);
        }
        MetadataValue::Array(array) => {
            typed(9, &[]);
            write_array(out, array);
        }
    }
}

fn write_array(out: &mut Vec<u8>, array: &MetadataArray) {
    let mut begin = |type_id: u32, count: usize| {
        out.extend(type_id.to_le_bytes());
        out.extend((count as u64).to_le_bytes());
    };
    match array {
        MetadataArray::Unsigned(list) => {
            begin(10, list.len());
            list.iter().for_each(|value| out.extend(value.to_le_bytes()));
        }
        MetadataArray::Signed(list) => {
            begin(11, list.len());
            list.iter().for_each(|value| out.extend(value.to_le_bytes()));
        }
        MetadataArray::Float(list) => {
            begin(12, list.len());
            list.iter().for_each(|value| out.extend(value.to_le_bytes()));
        }
        MetadataArray::Bool(list) => {
            begin(7, list.len());
            out.extend(list.iter().map(|value| u8::from(*value)));
        }
        MetadataArray::String(list) => {
            begin(8, list.len());
            list.iter().for_each(|value| write_string(out, value));
        }
        MetadataArray::Array(list) => {
            begin(9, list.len());
            list.iter().for_each(|value| write_array(out, value));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn base_files_written_again_are_accepted() {
        for file in files() {
            let mut bytes = file.header();
            bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
            bytes.extend(&file.data);
            let source = Rc::new(BytesSource::new("model.gguf", bytes));
            let opened = block_on(blockpruner::model::Checkpoint::from_gguf("model", source)).unwrap();
            opened.tokenizer().unwrap();
        }
    }
}
