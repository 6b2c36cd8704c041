//! The header of a GGUF file: its metadata and its table of tensors.
//!
//! Parsing is plain code over a slice. If the slice ends too early, the reader fetches more of the file and starts over;
//! the slice grows fourfold each time, so that costs little. Nothing is allocated for a count or a length before it is
//! known that the file is long enough to hold that much.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{MetadataArray, MetadataValue, malformed, read_exact};
use crate::weights::{ByteSource, DType, WeightsError};

/// Bytes that are read first.
const FIRST_READ: u64 = 256 << 10;
/// Longest header that is read. The largest vocabularies take about 20 MB.
const HEADER_LIMIT: u64 = 128 << 20;
/// ggml's limit of a tensor's dimensions.
const MAX_DIMS: u32 = 4;
/// Arrays within arrays that are followed; the format allows any number, no writer uses more than one.
const MAX_ARRAY_DEPTH: usize = 3;

/// What the header says.
pub(super) struct Header {
    pub metadata: BTreeMap<String, MetadataValue>,
    /// Where in the file each entry's type and value are, in the order of the file.
    pub places: Vec<(String, Range<u64>)>,
    pub tensors: Vec<StoredTensor>,
    /// First byte after the header.
    pub end: u64,
}

/// A row of the table of tensors.
pub(super) struct StoredTensor {
    pub name: String,
    /// Row-major, outermost first: the reverse of the file's order.
    pub shape: Vec<usize>,
    pub type_id: u32,
    /// `None` if the type cannot be read.
    pub dtype: Option<DType>,
    /// From the start of the tensors' bytes.
    pub offset: u64,
}

impl StoredTensor {
    /// Bytes in the file, if type and shape go together: blocks do not reach from one row into the next.
    pub fn bytes(&self) -> Option<u64> {
        let (block, block_bytes) = block_of(self.type_id)?;
        let elements = crate::weights::elements_of(&self.shape)?;
        if self.shape.last().copied().unwrap_or(1) % block != 0 {
            return None;
        }
        ((elements / block) as u64).checked_mul(block_bytes as u64)
    }
}

/// The number that the format gives a type.
pub fn type_id(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Q4_0 => 2,
        DType::Q4_1 => 3,
        DType::Q5_0 => 6,
        DType::Q5_1 => 7,
        DType::Q8_0 => 8,
        DType::Q2K => 10,
        DType::Q3K => 11,
        DType::Q4K => 12,
        DType::Q5K => 13,
        DType::Q6K => 14,
        DType::IQ2XXS => 16,
        DType::IQ2XS => 17,
        DType::IQ3XXS => 18,
        DType::IQ1S => 19,
        DType::IQ4NL => 20,
        DType::IQ3S => 21,
        DType::IQ2S => 22,
        DType::IQ4XS => 23,
        DType::IQ1M => 29,
        DType::BF16 => 30,
        DType::TQ1_0 => 34,
        DType::TQ2_0 => 35,
        DType::MXFP4 => 39,
        DType::NVFP4 => 40,
    }
}

fn readable_type(id: u32) -> Option<DType> {
    DType::ALL.iter().copied().find(|dtype| type_id(*dtype) == id)
}

/// ggml's types that cannot be read here: id, name, elements and bytes of a block.
const UNREADABLE_TYPES: [(u32, &str, usize, usize); 11] = [
    (9, "Q8_1", 32, 40),
    (15, "Q8_K", 256, 292),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (31, "Q4_0_4_4", 32, 18),
    (32, "Q4_0_4_8", 32, 18),
    (33, "Q4_0_8_8", 32, 18),
    (41, "Q1_0", 128, 18),
];

/// Those that were Q4_0 in the order of some processors, until llama.cpp brought it into that order by itself.
const REORDERED: std::ops::RangeInclusive<u32> = 31..=33;

/// Elements and bytes of a block of the type, if ggml's tables had it when this was written.
fn block_of(type_id: u32) -> Option<(usize, usize)> {
    let readable = readable_type(type_id).map(|dtype| (dtype.block_elements(), dtype.block_bytes()));
    readable.or_else(|| {
        let (_, _, elements, bytes) = UNREADABLE_TYPES.iter().find(|(id, ..)| *id == type_id)?;
        Some((*elements, *bytes))
    })
}

/// ggml's name of a type, and what there is in its place.
pub(super) fn type_name(type_id: u32) -> String {
    match UNREADABLE_TYPES.iter().find(|(id, ..)| *id == type_id) {
        Some((id, name, ..)) if REORDERED.contains(id) => {
            format!("{name} (get the model in Q4_0, which has the same numbers)")
        }
        Some((_, name, ..)) => name.to_string(),
        None => readable_type(type_id).map_or_else(|| format!("number {type_id}"), |dtype| dtype.to_string()),
    }
}

/// Reads as much of `source` as the header takes, and parses it.
pub(super) async fn read(source: &dyn ByteSource) -> Result<Header, WeightsError> {
    let mut bytes = Vec::new();
    let mut wanted = FIRST_READ;
    loop {
        let have = bytes.len() as u64;
        let more = wanted.min(source.len()).min(HEADER_LIMIT).saturating_sub(have);
        bytes.append(&mut read_exact(source, have, more).await?);
        let mut cursor = Cursor { bytes: &bytes, position: 0, file_len: source.len() };
        match parse(&mut cursor) {
            Ok(header) => return Ok(header),
            Err(Stop::Malformed(reason)) => return Err(malformed(source.name(), reason)),
            Err(Stop::Incomplete(end)) if end > HEADER_LIMIT => {
                let reason = format!("its header reaches beyond {HEADER_LIMIT} bytes; no real one does");
                return Err(malformed(source.name(), reason));
            }
            // The cursor compares with the file's length before it says so: there is more to read.
            Err(Stop::Incomplete(end)) => wanted = end.max(4 * bytes.len() as u64),
        }
    }
}

/// Why parsing stopped.
enum Stop {
    /// Bytes up to here are needed; the file has them.
    Incomplete(u64),
    Malformed(String),
}

fn stop<T>(reason: String) -> Result<T, Stop> {
    Err(Stop::Malformed(reason))
}

/// A place in the part of the file that is there.
struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
    file_len: u64,
}

impl<'a> Cursor<'a> {
    /// The next `len` bytes.
    fn take(&mut self, len: u64, what: &str) -> Result<&'a [u8], Stop> {
        self.check_room(len, 1, what)?;
        // Fits: the sum is at most the file's length, and the comparison with a slice's length comes first.
        let end = self.position as u64 + len;
        if end > self.bytes.len() as u64 {
            return Err(Stop::Incomplete(end));
        }
        let taken = &self.bytes[self.position..end as usize];
        self.position = end as usize;
        Ok(taken)
    }

    /// Whether the file is long enough for `count` things of at least `size` bytes each.
    fn check_room(&self, count: u64, size: u64, what: &str) -> Result<(), Stop> {
        let left = self.file_len - self.position as u64;
        match count.checked_mul(size) {
            Some(bytes) if bytes <= left => Ok(()),
            _ => stop(format!(
                "{what} at byte {} would take at least {count} times {size} bytes, the file ends after {left}; \
                 if it was cut short, download it again",
                self.position
            )),
        }
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Stop> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N as u64, what)?);
        Ok(bytes)
    }

    fn u32(&mut self, what: &str) -> Result<u32, Stop> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, Stop> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    fn string(&mut self, what: &str) -> Result<String, Stop> {
        let len = self.u64(what)?;
        let start = self.position;
        match std::str::from_utf8(self.take(len, what)?) {
            Ok(text) => Ok(text.to_string()),
            Err(_) => stop(format!("{what} at byte {start} is not UTF-8")),
        }
    }
}

fn parse(cursor: &mut Cursor<'_>) -> Result<Header, Stop> {
    check_version(cursor)?;
    let tensor_count = cursor.u64("the number of tensors")?;
    let entry_count = cursor.u64("the number of metadata entries")?;
    // The shortest entry is a string of no bytes and one byte, the shortest tensor one without name and dimensions.
    cursor.check_room(entry_count, 8 + 4 + 1, "the metadata")?;
    cursor.check_room(tensor_count, 8 + 4 + 4 + 8, "the table of tensors")?;
    let mut metadata = BTreeMap::new();
    let mut places = Vec::new();
    for _ in 0..entry_count {
        let key = cursor.string("a metadata key")?;
        let start = cursor.position as u64;
        let type_id = cursor.u32("a metadata type")?;
        let entry = value(cursor, type_id, &format!("metadata `{key}`"))?;
        if metadata.insert(key.clone(), entry).is_some() {
            return stop(format!("metadata key `{key}` is there twice"));
        }
        places.push((key, start..cursor.position as u64));
    }
    let mut tensors = Vec::new();
    for _ in 0..tensor_count {
        tensors.push(tensor(cursor)?);
    }
    Ok(Header { metadata, places, tensors, end: cursor.position as u64 })
}

fn check_version(cursor: &mut Cursor<'_>) -> Result<(), Stop> {
    let magic: [u8; 4] = cursor.array("the magic number")?;
    if &magic != b"GGUF" {
        return stop(format!("it begins with {:?} instead of \"GGUF\"", String::from_utf8_lossy(&magic)));
    }
    let version = cursor.u32("the version")?;
    match version {
        2 | 3 => Ok(()),
        _ if version.swap_bytes() < 1 << 16 => {
            stop("it is big-endian; convert the model to a little-endian file".to_string())
        }
        _ => stop(format!("it is of version {version}, expected 2 or 3; convert the model with a current llama.cpp")),
    }
}

fn tensor(cursor: &mut Cursor<'_>) -> Result<StoredTensor, Stop> {
    let name = cursor.string("a tensor name")?;
    let dims = cursor.u32("the number of dimensions of a tensor")?;
    if dims > MAX_DIMS {
        return stop(format!("tensor `{name}` has {dims} dimensions, expected at most {MAX_DIMS}"));
    }
    let mut shape = Vec::new();
    for _ in 0..dims {
        let dim = cursor.u64("a tensor dimension")?;
        match usize::try_from(dim) {
            Ok(dim) => shape.push(dim),
            Err(_) => return stop(format!("tensor `{name}` has a dimension of {dim}, too large for this machine")),
        }
    }
    // The file lists the innermost dimension first.
    shape.reverse();
    let type_id = cursor.u32("a tensor type")?;
    let offset = cursor.u64("a tensor offset")?;
    Ok(StoredTensor { name, shape, type_id, dtype: readable_type(type_id), offset })
}

fn value(cursor: &mut Cursor<'_>, type_id: u32, what: &str) -> Result<MetadataValue, Stop> {
    use MetadataValue::{Array, Bool, Float, Signed, String, Unsigned};
    Ok(match type_id {
        0 => Unsigned(u8::from_le_bytes(cursor.array(what)?).into()),
        1 => Signed(i8::from_le_bytes(cursor.array(what)?).into()),
        2 => Unsigned(u16::from_le_bytes(cursor.array(what)?).into()),
        3 => Signed(i16::from_le_bytes(cursor.array(what)?).into()),
        4 => Unsigned(u32::from_le_bytes(cursor.array(what)?).into()),
        5 => Signed(i32::from_le_bytes(cursor.array(what)?).into()),
        6 => Float(f32::from_le_bytes(cursor.array(what)?).into()),
        7 => Bool(boolean(cursor.array(what)?, what)?),
        8 => String(cursor.string(what)?),
        9 => Array(array(cursor, what, MAX_ARRAY_DEPTH)?),
        10 => Unsigned(u64::from_le_bytes(cursor.array(what)?)),
        11 => Signed(i64::from_le_bytes(cursor.array(what)?)),
        12 => Float(f64::from_le_bytes(cursor.array(what)?)),
        _ => return stop(format!("{what} has the unknown type {type_id}")),
    })
}

fn boolean([byte]: [u8; 1], what: &str) -> Result<bool, Stop> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => stop(format!("{what} is a boolean of value {byte}, expected 0 or 1")),
    }
}

fn array(cursor: &mut Cursor<'_>, what: &str, depth: usize) -> Result<MetadataArray, Stop> {
    use MetadataArray::{Array, Bool, Float, Signed, String, Unsigned};
    if depth == 0 {
        return stop(format!("{what} nests arrays more than {MAX_ARRAY_DEPTH} deep"));
    }
    let type_id = cursor.u32(what)?;
    let count = cursor.u64(what)?;
    Ok(match type_id {
        0 => Unsigned(numbers(cursor, count, what, |b| u8::from_le_bytes(b).into())?),
        1 => Signed(numbers(cursor, count, what, |b| i8::from_le_bytes(b).into())?),
        2 => Unsigned(numbers(cursor, count, what, |b| u16::from_le_bytes(b).into())?),
        3 => Signed(numbers(cursor, count, what, |b| i16::from_le_bytes(b).into())?),
        4 => Unsigned(numbers(cursor, count, what, |b| u32::from_le_bytes(b).into())?),
        5 => Signed(numbers(cursor, count, what, |b| i32::from_le_bytes(b).into())?),
        6 => Float(numbers(cursor, count, what, |b| f32::from_le_bytes(b).into())?),
        7 => {
            let bytes = numbers(cursor, count, what, |byte: [u8; 1]| byte)?;
            Bool(bytes.into_iter().map(|byte| boolean(byte, what)).collect::<Result<_, _>>()?)
        }
        8 => String(many(cursor, count, 8, what, |cursor| cursor.string(what))?),
        9 => Array(many(cursor, count, 4 + 8, what, |cursor| array(cursor, what, depth - 1))?),
        10 => Unsigned(numbers(cursor, count, what, u64::from_le_bytes)?),
        11 => Signed(numbers(cursor, count, what, i64::from_le_bytes)?),
        12 => Float(numbers(cursor, count, what, f64::from_le_bytes)?),
        _ => return stop(format!("{what} is an array of the unknown type {type_id}")),
    })
}

/// `count` numbers of `N` bytes.
fn numbers<const N: usize, T>(
    cursor: &mut Cursor<'_>,
    count: u64,
    what: &str,
    convert: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>, Stop> {
    cursor.check_room(count, N as u64, what)?;
    let bytes = cursor.take(count * N as u64, what)?;
    Ok(bytes.as_chunks().0.iter().map(|bytes| convert(*bytes)).collect())
}

/// `count` things that take at least `size` bytes each.
fn many<T>(
    cursor: &mut Cursor<'_>,
    count: u64,
    size: u64,
    what: &str,
    mut next: impl FnMut(&mut Cursor<'_>) -> Result<T, Stop>,
) -> Result<Vec<T>, Stop> {
    cursor.check_room(count, size, what)?;
    let mut things = Vec::new();
    for _ in 0..count {
        things.push(next(cursor)?);
    }
    Ok(things)
}
