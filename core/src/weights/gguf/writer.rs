//! The header of a GGUF file that is written: version 3, little-endian.
//!
//! All sizes are known before a tensor is read, so a file is written from its first byte to its last, and the tensors'
//! bytes follow in pieces.

use super::{MetadataArray, MetadataValue, type_id};
use crate::weights::DType;

/// What the bytes of every tensor begin at a multiple of, unless `general.alignment` says otherwise.
pub(crate) const ALIGNMENT: u64 = 32;
const VERSION: u32 = 3;

/// A metadata value with the type that it is stored as, which readers insist on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum StoredValue {
    U32(u32),
    F32(f32),
    Bool(bool),
    String(String),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    Strings(Vec<String>),
    /// Type and value as a file has them.
    Raw(Vec<u8>),
}

/// A row of the table of tensors.
pub(crate) struct TensorRow<'a> {
    pub name: &'a str,
    /// Outermost dimension first.
    pub shape: &'a [usize],
    pub dtype: DType,
    /// Bytes of its content.
    pub bytes: u64,
}

impl TensorRow<'_> {
    /// Bytes of the row itself.
    pub fn header_bytes(&self) -> u64 {
        (8 + self.name.len() + 4 + 8 * self.shape.len() + 4 + 8) as u64
    }
}

/// The numbers that the format gives the types of values.
const U8: u32 = 0;
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

impl StoredValue {
    /// Type and value as they are in a file.
    pub fn bytes(&self) -> Vec<u8> {
        let one = |type_id: u32, value: &[u8]| [&type_id.to_le_bytes()[..], value].concat();
        match self {
            Self::U32(value) => one(U32, &value.to_le_bytes()),
            Self::F32(value) => one(F32, &value.to_le_bytes()),
            Self::Bool(value) => one(BOOL, &[u8::from(*value)]),
            Self::String(value) => one(STRING, &string(value)),
            Self::I32s(values) => array(I32, values, |value| value.to_le_bytes().to_vec()),
            Self::F32s(values) => array(F32, values, |value| value.to_le_bytes().to_vec()),
            Self::Strings(values) => array(STRING, values, |value| string(value)),
            Self::Raw(bytes) => bytes.clone(),
        }
    }

    /// What it reads as; None for one that a file has so.
    pub fn value(&self) -> Option<MetadataValue> {
        Some(match self {
            Self::U32(value) => MetadataValue::Unsigned((*value).into()),
            Self::F32(value) => MetadataValue::Float((*value).into()),
            Self::Bool(value) => MetadataValue::Bool(*value),
            Self::String(value) => MetadataValue::String(value.clone()),
            Self::I32s(values) => {
                MetadataValue::Array(MetadataArray::Signed(values.iter().copied().map(i64::from).collect()))
            }
            Self::F32s(values) => {
                MetadataValue::Array(MetadataArray::Float(values.iter().copied().map(f64::from).collect()))
            }
            Self::Strings(values) => MetadataValue::Array(MetadataArray::String(values.clone())),
            Self::Raw(_) => return None,
        })
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::String(text) => Some(text.clone()),
            Self::Raw(bytes) => {
                let (kind, rest) = bytes.split_first_chunk()?;
                let (_, text) = rest.split_first_chunk::<8>()?;
                let is_text = u32::from_le_bytes(*kind) == STRING;
                is_text.then(|| std::str::from_utf8(text).ok().map(str::to_string)).flatten()
            }
            _ => None,
        }
    }

    /// Elements, if it is an array.
    pub fn len(&self) -> Option<usize> {
        match self {
            Self::I32s(values) => Some(values.len()),
            Self::F32s(values) => Some(values.len()),
            Self::Strings(values) => Some(values.len()),
            Self::Raw(bytes) => raw_array(bytes).map(|(_, count, _)| count),
            Self::U32(_) | Self::F32(_) | Self::Bool(_) | Self::String(_) => None,
        }
    }

    /// Of a stored array of numbers, the elements at these places; None if it is none, or does not have them.
    pub fn picked(&self, places: &[usize]) -> Option<Self> {
        let Self::Raw(bytes) = self else { return None };
        let (type_id, _, values) = raw_array(bytes)?;
        let size = match type_id {
            U8 | 1 | BOOL => 1,
            2 | 3 => 2,
            U32 | I32 | F32 => 4,
            10..=12 => 8,
            _ => return None,
        };
        let mut picked = array_start(type_id, places.len());
        for place in places {
            picked.extend(values.get(place * size..(place + 1) * size)?);
        }
        Some(Self::Raw(picked))
    }
}

/// The type of the elements of a stored array, their number and their bytes.
fn raw_array(bytes: &[u8]) -> Option<(u32, usize, &[u8])> {
    let (kind, rest) = bytes.split_first_chunk()?;
    let (type_id, rest) = rest.split_first_chunk()?;
    let (count, values) = rest.split_first_chunk()?;
    let count = usize::try_from(u64::from_le_bytes(*count)).ok()?;
    (u32::from_le_bytes(*kind) == ARRAY).then_some((u32::from_le_bytes(*type_id), count, values))
}

fn string(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes()[..], value.as_bytes()].concat()
}

fn array_start(type_id: u32, count: usize) -> Vec<u8> {
    [&ARRAY.to_le_bytes()[..], &type_id.to_le_bytes(), &(count as u64).to_le_bytes()].concat()
}

fn array<T>(type_id: u32, values: &[T], bytes: impl Fn(&T) -> Vec<u8>) -> Vec<u8> {
    let mut array = array_start(type_id, values.len());
    values.iter().for_each(|value| array.extend(bytes(value)));
    array
}

/// Everything before the first tensor's bytes, padding included. The tensors follow in this order, each padded to a multiple
/// of `alignment`, a power of two.
pub(crate) fn header(entries: &[(String, StoredValue)], tensors: &[TensorRow<'_>], alignment: u64) -> Vec<u8> {
    let counts = [tensors.len() as u64, entries.len() as u64].map(u64::to_le_bytes).concat();
    let mut header = [&b"GGUF"[..], &VERSION.to_le_bytes(), &counts].concat();
    for (key, value) in entries {
        header.extend(string(key));
        header.extend(value.bytes());
    }
    let mut offset = 0u64;
    for tensor in tensors {
        header.extend(string(tensor.name));
        header.extend((tensor.shape.len() as u32).to_le_bytes());
        // The innermost dimension comes first.
        header.extend(tensor.shape.iter().rev().flat_map(|dim| (*dim as u64).to_le_bytes()));
        header.extend(type_id(tensor.dtype).to_le_bytes());
        header.extend(offset.to_le_bytes());
        offset = (offset + tensor.bytes).next_multiple_of(alignment);
    }
    header.resize(header.len().next_multiple_of(alignment as usize), 0);
    header
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::rc::Rc;

    use pollster::block_on;
    use proptest::prelude::*;

    use super::*;
    use crate::weights::BytesSource;

    fn value() -> impl Strategy<Value = StoredValue> {
        prop_oneof![
            any::<u32>().prop_map(StoredValue::U32),
            (-1e30f32..1e30).prop_map(StoredValue::F32),
            any::<bool>().prop_map(StoredValue::Bool),
            ".{0,20}".prop_map(StoredValue::String),
            prop::collection::vec(any::<i32>(), 0..9).prop_map(StoredValue::I32s),
            prop::collection::vec(-1e30f32..1e30, 0..9).prop_map(StoredValue::F32s),
            prop::collection::vec(".{0,9}", 0..9).prop_map(StoredValue::Strings),
        ]
    }

    fn dtype() -> impl Strategy<Value = DType> {
        prop::sample::select(DType::ALL)
    }

    proptest! {
        /// A file is read as what was written, its entries with their types, its tensors with their bytes.
        #[test]
        fn what_is_written_is_read(
            entries in prop::collection::btree_map("[a-z]{1,9}[.][a-z]{1,9}", value(), 0..9),
            tensors in prop::collection::btree_map("[a-z0-9.]{1,20}", (dtype(), 1usize..4, 1usize..4), 0..9),
            alignment in prop::sample::select(vec![8u64, 32, 64]),
        ) {
            let mut entries: Vec<(String, StoredValue)> = entries.into_iter().collect();
            entries.push(("general.alignment".to_string(), StoredValue::U32(alignment as u32)));
            let shapes: Vec<_> = tensors
                .iter()
                .map(|(name, (dtype, rows, blocks))| (name, *dtype, [*rows, blocks * dtype.block_elements()]))
                .collect();
            let row = |(name, dtype, shape): &(&String, DType, [usize; 2])| {
                (name.to_string(), *dtype, *shape, dtype.bytes_of(shape.iter().product()).unwrap())
            };
            let rows: Vec<_> = shapes.iter().map(row).collect();
            let table: Vec<TensorRow<'_>> = rows
                .iter()
                .map(|(name, dtype, shape, bytes)| TensorRow { name, shape, dtype: *dtype, bytes: *bytes })
                .collect();
            let mut file = header(&entries, &table, alignment);
            for (number, row) in (0u8..).zip(&table) {
                file.extend(vec![number; row.bytes as usize]);
                file.resize(file.len().next_multiple_of(alignment as usize), 0);
            }
            let read = block_on(super::super::open(Rc::new(BytesSource::new("m.gguf", file.clone())), &[])).unwrap();
            for (key, value) in &entries {
                prop_assert_eq!(read.metadata.get(key).cloned(), value.value());
            }
            let stored = block_on(read.stored_entries()).unwrap();
            let bytes = |entries: &[(String, StoredValue)]| {
                entries.iter().map(|(key, value)| (key.clone(), value.bytes())).collect::<Vec<_>>()
            };
            prop_assert_eq!(bytes(&stored), bytes(&entries));
            prop_assert_eq!(read.weights.iter().count(), table.len());
            for (number, row) in (0u8..).zip(&table) {
                let info = read.weights.get(row.name).unwrap();
                prop_assert_eq!((info.dtype, info.shape.as_slice()), (row.dtype, row.shape));
                let content = &file[info.offset as usize..][..info.bytes as usize];
                prop_assert!(content.iter().all(|byte| *byte == number) && content.len() as u64 == row.bytes);
            }
        }
    }

    #[test]
    fn elements_of_stored_arrays_are_picked() {
        let raw = |value: StoredValue| StoredValue::Raw(value.bytes());
        let numbers = raw(StoredValue::I32s(vec![5, 6, 7, 8]));
        assert_eq!((numbers.len(), numbers.text()), (Some(4), None));
        assert_eq!(numbers.picked(&[3, 0]).unwrap(), raw(StoredValue::I32s(vec![8, 5])));
        assert!(numbers.picked(&[4]).is_none(), "there is no fifth");
        let flags = StoredValue::Raw(
            [9u32.to_le_bytes(), 7u32.to_le_bytes()]
                .concat()
                .into_iter()
                .chain(2u64.to_le_bytes())
                .chain([1, 0])
                .collect(),
        );
        let expected: Vec<u8> = [9u32.to_le_bytes(), 7u32.to_le_bytes()]
            .concat()
            .into_iter()
            .chain(1u64.to_le_bytes())
            .chain([0])
            .collect();
        assert_eq!(flags.picked(&[1]).unwrap().bytes(), expected);
        let texts = raw(StoredValue::Strings(vec!["a".to_string()]));
        assert!(texts.len() == Some(1) && texts.picked(&[0]).is_none());
        let text = raw(StoredValue::String("llama".to_string()));
        assert_eq!((text.text().as_deref(), text.len()), (Some("llama"), None));
        for cut in 0..text.bytes().len() {
            let damaged = StoredValue::Raw(text.bytes()[..cut].to_vec());
            assert!(damaged.len().is_none() && damaged.picked(&[0]).is_none());
        }
    }
}
