//! The safetensors container: one file, or shards and their `model.safetensors.index.json`.
//!
//! A file is an 8-byte little-endian length, a JSON header of that length, and the tensors' bytes without holes
//! (<https://huggingface.co/docs/safetensors>). The `safetensors` crate parses it only as one slice of memory, so the
//! header is read here; the checks are the same.

use std::fmt;
use std::rc::Rc;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::source::{ByteSource, read_exact};
use super::{DType, RowOrder, TensorInfo, UnsupportedTensor, Weights, WeightsError, elements_of, index};
use crate::file_kind::FileKind;

const CONTAINER: &str = "safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Longest header that is read, the limit of the reference implementation.
const HEADER_LIMIT: u64 = 100_000_000;

/// Opens one file, or the shards that `index` (the text of `model.safetensors.index.json`) names.
///
/// Files that the index does not name are left alone. Tensors keep their names; those of types other than F32, F16 and
/// BF16 can be listed but not read.
///
/// # Errors
/// [`WeightsError::Malformed`] for files that are damaged, or not those that the index names; [`WeightsError::Read`].
pub async fn open(sources: Vec<Rc<dyn ByteSource>>, index: Option<&[u8]>) -> Result<Weights, WeightsError> {
    let sources = index::shards(sources, INDEX, index, CONTAINER)?;
    let mut tensors = Vec::new();
    let mut unsupported = Vec::new();
    for (number, source) in sources.iter().enumerate() {
        open_file(number, source.as_ref(), &mut tensors, &mut unsupported).await?;
    }
    // Tensors that only the index has are missed by whoever needs them.
    Weights::new(CONTAINER, sources, tensors, unsupported, DType::FLOATS)
}

fn malformed(file: &str, reason: String) -> WeightsError {
    WeightsError::Malformed { file: file.to_string(), container: CONTAINER, reason }
}

/// The shard files that the text of a `model.safetensors.index.json` names, sorted: plain names of files beside it.
///
/// # Errors
/// [`WeightsError::Malformed`] for what is no index, or names files that are not beside it.
pub fn shard_files(index: &[u8]) -> Result<Vec<String>, WeightsError> {
    index::shard_files(INDEX, index)
}

/// One entry of the header.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The header's tensors in the order of the file. Names that come twice are kept twice, to be found.
struct Header(Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tensors;
        impl<'de> Visitor<'de> for Tensors {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut tensors = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        tensors.push((name, map.next_value()?));
                    }
                }
                Ok(Header(tensors))
            }
        }
        deserializer.deserialize_map(Tensors)
    }
}

/// Reads and checks the header of `source` and adds what it holds.
async fn open_file(
    number: usize,
    source: &dyn ByteSource,
    tensors: &mut Vec<TensorInfo>,
    unsupported: &mut Vec<UnsupportedTensor>,
) -> Result<(), WeightsError> {
    let (data, mut entries) = read_header(source).await?;
    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    check_layout(source, data, &entries)?;
    for (name, entry) in entries {
        let bad = |reason: String| malformed(source.name(), format!("tensor `{name}` {reason}"));
        let Some(dtype) = DType::FLOATS.iter().copied().find(|dtype| dtype.as_str() == entry.dtype) else {
            unsupported.push(UnsupportedTensor { name, dtype: entry.dtype, source: number });
            continue;
        };
        let shape: Result<Vec<usize>, _> = entry.shape.iter().map(|&dim| usize::try_from(dim)).collect();
        let needed = shape.as_ref().ok().and_then(|shape| dtype.bytes_of(elements_of(shape)?));
        let (Ok(shape), Some(needed)) = (shape, needed) else {
            return Err(bad(format!("has the impossible shape {:?}", entry.shape)));
        };
        let bytes = entry.data_offsets.1 - entry.data_offsets.0;
        if bytes != needed {
            return Err(bad(format!("has {bytes} bytes, but {dtype} of shape {shape:?} takes {needed}")));
        }
        let offset = data + entry.data_offsets.0;
        tensors.push(TensorInfo {
            name,
            dtype,
            shape,
            source: number,
            offset,
            bytes,
            row_order: RowOrder::Stored,
            less_one: false,
        });
    }
    Ok(())
}

/// Where the tensors' bytes begin, and the header's entries.
async fn read_header(source: &dyn ByteSource) -> Result<(u64, Vec<(String, Entry)>), WeightsError> {
    let error = |reason: String| malformed(source.name(), reason);
    if source.len() < 8 {
        return Err(error(format!("it has only {} bytes; download it again", source.len())));
    }
    let start = read_exact(source, 0, source.len().min(FileKind::START as u64)).await?;
    if let Some(kind) = FileKind::of(&start) {
        return Err(error(kind.problem()));
    }
    if start[0] == b'{' && start[1].is_ascii() && start[7] != 0 {
        return Err(error("it is JSON text, perhaps a server's answer in place of the file; download it again".into()));
    }
    let length = start[..8].iter().rev().fold(0u64, |length, byte| length << 8 | u64::from(*byte));
    if length > HEADER_LIMIT {
        return Err(error(format!("its header would take {length} bytes, more than the format's {HEADER_LIMIT}")));
    }
    let data = 8 + length;
    if data > source.len() {
        let reason = format!("its header ends at byte {data}, the file at byte {}; download it again", source.len());
        return Err(error(reason));
    }
    let header = read_exact(source, 8, length).await?;
    let header: Header =
        serde_json::from_slice(&header).map_err(|e| error(format!("its header does not parse: {e}")))?;
    Ok((data, header.0))
}

/// `entries`, sorted by offset, must fill the file from `data` to its end, without overlap or hole.
fn check_layout(source: &dyn ByteSource, data: u64, entries: &[(String, Entry)]) -> Result<(), WeightsError> {
    let error = |reason: String| Err(malformed(source.name(), reason));
    let available = source.len() - data;
    let mut end = 0;
    for (name, Entry { data_offsets: (start, stop), .. }) in entries {
        if stop < start {
            return error(format!("tensor `{name}` ends at {stop}, before it starts at {start}"));
        }
        if *stop > available {
            let reason = format!("tensor `{name}` ends at {stop}, but only {available} bytes follow the header");
            return error(format!("{reason}; if the file was cut short, download it again"));
        }
        if *start < end {
            return error(format!("tensor `{name}` starts at {start} and overlaps one that ends at {end}"));
        }
        if *start > end {
            return error(format!("nothing uses the {} bytes before tensor `{name}`", start - end));
        }
        end = *stop;
    }
    if end != available {
        return error(format!("nothing uses its last {} bytes", available - end));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::weights::{BytesSource, FloatType};
    use pollster::block_on;
    use proptest::prelude::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
    }

    fn source(name: &str, bytes: Vec<u8>) -> Rc<dyn ByteSource> {
        Rc::new(BytesSource::new(name, bytes))
    }

    fn open_one(bytes: Vec<u8>) -> Result<Weights, WeightsError> {
        block_on(open(vec![source("folder/model.safetensors", bytes)], None))
    }

    fn entry(name: &str, dtype: &str, shape: &str, start: u64, end: u64) -> String {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}"#)
    }

    /// `a` is F32 [2, 3] of 0..6, `b` BF16 [2] of 1 and -2, `mask` U8 [3].
    fn small_file() -> Vec<u8> {
        let header = format!(
            r#"{{"__metadata__":{{"format":"pt"}},{},{},{}}}"#,
            entry("b", "BF16", "[2]", 24, 28),
            entry("a", "F32", "[2,3]", 0, 24),
            entry("mask", "U8", "[3]", 28, 31),
        );
        let a: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
        file(&header, &[&a[..], &[0x80, 0x3f, 0x00, 0xc0], &[1, 2, 3]].concat())
    }

    #[test]
    fn tensors_are_read_as_they_were_written() {
        let weights = open_one(small_file()).unwrap();
        assert_eq!(weights.names().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(block_on(weights.read_f32("a")).unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(block_on(weights.read_f32("b")).unwrap(), [1.0, -2.0]);
        let row = block_on(weights.read_rows("a", 1..2)).unwrap();
        assert_eq!((row.dtype, row.to_f32()), (FloatType::F32, vec![3.0, 4.0, 5.0]));
        let element = block_on(weights.read_rows("b", 1..2)).unwrap();
        assert_eq!((element.dtype, element.bytes), (FloatType::BF16, vec![0x00, 0xc0]));
        assert_eq!(weights.unsupported().map(|tensor| tensor.name.as_str()).collect::<Vec<_>>(), ["mask"]);
        let message = block_on(weights.read_f32("mask")).unwrap_err().to_string();
        for part in ["folder/model.safetensors", "`mask`", "type U8", "F32, F16, BF16"] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn what_the_reference_crate_writes_is_read() {
        use safetensors::tensor::{Dtype, TensorView, serialize};
        let data: Vec<u8> = (0..12).map(|i| f32::from(i as u8)).flat_map(f32::to_le_bytes).collect();
        let empty = TensorView::new(Dtype::F16, vec![0, 7], &[]).unwrap();
        let scalar = TensorView::new(Dtype::F32, vec![], &data[4..8]).unwrap();
        let matrix = TensorView::new(Dtype::F32, vec![3, 4], &data).unwrap();
        let bytes = serialize([("matrix", matrix), ("scalar", scalar), ("empty", empty)], None).unwrap();
        let weights = open_one(bytes).unwrap();
        assert_eq!(weights.get("matrix").unwrap().shape, [3, 4]);
        assert_eq!(block_on(weights.read_rows("matrix", 2..3)).unwrap().to_f32(), [8.0, 9.0, 10.0, 11.0]);
        assert_eq!(block_on(weights.read_f32("scalar")).unwrap(), [1.0]);
        assert!(block_on(weights.read_f32("empty")).unwrap().is_empty());
    }

    /// Lengths whose bytes are also the first ones of a pickle, of gzip, of zeros before a small number.
    #[test]
    fn a_header_may_have_any_length() {
        for length in [0x280, 0x480, 0x8b1f, 0x100] {
            let text = format!("{{{}}}", entry("a", "F32", "[1]", 0, 4));
            let padded = format!("{text}{}", " ".repeat(length - text.len()));
            assert_eq!(open_one(file(&padded, &[0; 4])).unwrap().names().collect::<Vec<_>>(), ["a"], "{length}");
        }
    }

    #[test]
    fn damaged_headers_are_explained() {
        let one = |entry: String, bytes: usize| file(&format!("{{{entry}}}"), &vec![0; bytes]);
        let two = |a: String, b: String, bytes: usize| one(format!("{a},{b}"), bytes);
        let cases = [
            (vec![], "only 0 bytes"),
            (vec![1, 0, 0], "only 3 bytes"),
            (b"version https://git-lfs.github.com/spec/v1".to_vec(), "git lfs pull"),
            (b"<!doctype html><html><body>Sign in</body></html>".to_vec(), "web page"),
            (b"{\"error\": \"Access to this model is restricted\"}".to_vec(), "JSON text"),
            (vec![0; 4096], "zeros"),
            (u64::MAX.to_le_bytes().to_vec(), "more than the format's"),
            (99_000_000u64.to_le_bytes().to_vec(), "download it again"),
            (file("[]", &[]), "does not parse"),
            (file("{\"a\":1}", &[]), "does not parse"),
            (file("{\"a\":\u{1}}", &[]), "does not parse"),
            (one(entry("a", "F32", "[2]", 0, 8), 7), "only 7 bytes follow the header"),
            (one(entry("a", "F32", "[2]", 0, 8), 9), "last 1 bytes"),
            (one(entry("a", "F32", "[2]", 4, 12), 12), "nothing uses the 4 bytes before"),
            (one(entry("a", "F32", "[2]", 8, 0), 8), "before it starts"),
            (one(entry("a", "F32", "[3]", 0, 8), 8), "takes 12"),
            (one(entry("a", "F32", "[-3]", 0, 8), 8), "does not parse"),
            (one(entry("a", "F32", "[0,18446744073709551615,3]", 0, 0), 0), "impossible shape"),
            (one(entry("a", "F16", "[4294967296,4294967296]", 0, 8), 8), "impossible shape"),
            (two(entry("a", "F32", "[2]", 0, 8), entry("b", "F32", "[1]", 4, 8), 8), "overlaps"),
            (two(entry("a", "F32", "[1]", 0, 4), entry("a", "F32", "[1]", 4, 8), 8), "there twice"),
            (two(entry("a", "F32", "[1]", 0, 4), entry("a", "U8", "[4]", 4, 8), 8), "there twice"),
        ];
        for (bytes, part) in cases {
            let message = open_one(bytes).unwrap_err().to_string();
            assert!(message.starts_with("folder/model.safetensors: ") && message.contains(part), "{part}: {message}");
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_refused_by_name() {
        let whole = small_file();
        for len in 0..whole.len() {
            let message = open_one(whole[..len].to_vec()).unwrap_err().to_string();
            assert!(message.contains("folder/model.safetensors"), "{len}: {message}");
        }
    }

    fn shards() -> (Rc<dyn ByteSource>, Rc<dyn ByteSource>) {
        let one = file(&format!("{{{}}}", entry("a", "F32", "[1]", 0, 4)), &1f32.to_le_bytes());
        let two = file(&format!("{{{}}}", entry("b", "F32", "[1]", 0, 4)), &2f32.to_le_bytes());
        (source("m/model-1.safetensors", one), source("m/model-2.safetensors", two))
    }

    const TWO_SHARDS: &str =
        r#"{"metadata":{"total_size":8},"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors"}}"#;

    #[test]
    fn shards_are_one_checkpoint() {
        let (one, two) = shards();
        let unnamed = source("m/consolidated.safetensors", vec![]);
        let weights = block_on(open(vec![two, unnamed, one], Some(TWO_SHARDS.as_bytes()))).unwrap();
        assert_eq!(block_on(weights.read_f32("a")).unwrap(), [1.0]);
        assert_eq!(block_on(weights.read_f32("b")).unwrap(), [2.0]);
        assert_eq!(weights.file_of(weights.get("b").unwrap()), "m/model-2.safetensors");
        let message = block_on(weights.read_f32("c")).unwrap_err().to_string();
        assert!(message.contains("m/model-1.safetensors and 1 more"), "{message}");
    }

    #[test]
    fn shard_files_are_plain_names_beside_the_index() {
        let index = |shard: &str| serde_json::json!({ "weight_map": { "a": shard, "b": "z" } }).to_string();
        let named = |shard: &str| shard_files(index(shard).as_bytes());
        assert_eq!(named("x.safetensors").unwrap(), ["x.safetensors", "z"]);
        assert_eq!(named("./z").unwrap(), ["z"]);
        assert_eq!(named("..x").unwrap(), ["..x", "z"]);
        for wrong in ["", ".", "..", "./", "./..", "../x", "sub/x", "/x", "././x", "..\\x", "https://example.org/x"] {
            let message = named(wrong).unwrap_err().to_string();
            assert!(message.contains(&format!("`{wrong}`")), "{message}");
        }
    }

    /// What is in the shards counts: other programs do not ask the index for more than the shards' names.
    #[test]
    fn faults_of_an_index_that_do_no_harm_are_overlooked() {
        let (one, two) = shards();
        for index in [
            r#"{"weight_map":{"a":"./model-1.safetensors","b":"./model-2.safetensors"}}"#,
            r#"{"weight_map":{"a":"model-2.safetensors","b":"model-1.safetensors","z":"model-1.safetensors"}}"#,
        ] {
            let weights = block_on(open(vec![one.clone(), two.clone()], Some(index.as_bytes()))).unwrap();
            assert_eq!(weights.names().collect::<Vec<_>>(), ["a", "b"]);
            assert!(block_on(weights.read_f32("z")).is_err());
        }
    }

    #[test]
    fn incomplete_or_contradictory_shards_are_explained() {
        let (one, two) = shards();
        let fail = |sources: &[&Rc<dyn ByteSource>], index: Option<&str>| {
            let sources = sources.iter().map(|source| (*source).clone()).collect();
            block_on(open(sources, index.map(str::as_bytes))).unwrap_err().to_string()
        };
        let cases = [
            (fail(&[], None), "no file with weights"),
            (fail(&[&one, &two], None), "model.safetensors.index.json is missing"),
            (fail(&[&one], Some(TWO_SHARDS)), "`model-2.safetensors`"),
            (fail(&[&one], Some("{")), "model.safetensors.index.json: "),
            (fail(&[&one], Some(r#"{"weight_map":{}}"#)), "is empty"),
            (fail(&[&one], Some(r#"{"weight_map":{"z":"../model-1.safetensors"}}"#)), "`../model-1.safetensors`"),
        ];
        for (message, part) in cases {
            assert!(message.contains(part), "{part}: {message}");
        }
        let again = block_on(one.read(0, one.len() as usize)).unwrap();
        let twice = fail(&[&one, &source("m/model-2.safetensors", again)], Some(TWO_SHARDS));
        assert!(twice.contains("model-2.safetensors") && twice.contains("there twice"), "{twice}");
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic(flips in prop::collection::vec((0usize..400, any::<u8>()), 1..6)) {
            let mut bytes = small_file();
            for (place, value) in flips {
                let place = place % bytes.len();
                bytes[place] ^= value;
            }
            if let Ok(weights) = open_one(bytes) {
                for info in weights.iter() {
                    // Reading may succeed or find the value that is not finite, but it has to end.
                    if let Ok(rows) = block_on(weights.read_rows(&info.name, 0..info.rows())) {
                        prop_assert_eq!(rows.bytes.len() as u64, info.bytes);
                    }
                }
            }
        }
    }
}
