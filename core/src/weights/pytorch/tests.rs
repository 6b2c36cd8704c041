#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use pollster::block_on;
use proptest::prelude::*;

use super::*;
use crate::weights::{BytesSource, safetensors};

/// Written by `torch.save`, see `tests/reference/pytorch_fixtures.py`.
const TORCH: &[u8] = include_bytes!("../testdata/pytorch_model.bin");
/// The same tensors as the Python package `safetensors` writes them.
const EXPECTED: &[u8] = include_bytes!("../testdata/pytorch_model.safetensors");

fn source(name: &str, bytes: Vec<u8>) -> Rc<dyn ByteSource> {
    Rc::new(BytesSource::new(name, bytes))
}

fn open_one(bytes: Vec<u8>) -> Result<Weights, WeightsError> {
    block_on(open(vec![source("m/pytorch_model.bin", bytes)], None))
}

fn message(bytes: Vec<u8>) -> String {
    let message = open_one(bytes).unwrap_err().to_string();
    assert!(message.starts_with("m/pytorch_model.bin: "), "{message}");
    message
}

#[test]
fn tensors_are_those_that_torch_saved() {
    let weights = open_one(TORCH.to_vec()).unwrap();
    let expected = block_on(safetensors::open(vec![source("e", EXPECTED.to_vec())], None)).unwrap();
    let names = ["bf16", "empty", "f16", "matrix", "one column", "rows", "scalar", "tied"];
    assert_eq!(weights.names().collect::<Vec<_>>(), names);
    for name in names {
        let (found, expected) = (weights.get(name).unwrap(), expected.get(name).unwrap());
        assert_eq!((found.dtype, &found.shape), (expected.dtype, &expected.shape), "{name}");
    }
    for name in names {
        let rows = |weights: &Weights| {
            let rows = weights.get(name).unwrap().rows();
            block_on(weights.read_rows(name, 0..rows)).unwrap().bytes
        };
        assert_eq!(rows(&weights), rows(&expected), "{name}");
    }
    let place = |name: &str| weights.get(name).unwrap().offset;
    assert_eq!((place("tied"), place("rows")), (place("matrix"), place("matrix") + 2 * 5 * 4));
    let error = block_on(weights.read_f32("position_ids")).unwrap_err().to_string();
    assert!(error.contains("`position_ids` has type I64"), "{error}");
}

fn little(number: usize, width: usize) -> Vec<u8> {
    number.to_le_bytes()[..width].to_vec()
}

/// An archive as `torch.save` writes it; `large` with its sizes where only ZIP64 has them.
fn archive(files: &[(&str, &[u8])], large: bool) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in files {
        let size = |number: usize| if large { vec![0xff; 4] } else { little(number, 4) };
        let place = out.len();
        let padding: &[u8] = b"FB\x03\0ZZZ";
        out.extend([&b"PK\x03\x04"[..], &[0; 22], &little(name.len(), 2), &little(padding.len(), 2)].concat());
        out.extend([name.as_bytes(), padding, bytes].concat());
        let sizes = [bytes.len(), bytes.len(), place].map(|number| little(number, 8)).concat();
        let extra = if large { [&b"XX\x01\0?\x01\0\x18\0"[..], &sizes].concat() } else { Vec::new() };
        directory.extend([&b"PK\x01\x02"[..], &[0; 16], &size(bytes.len()), &size(bytes.len())].concat());
        directory.extend([little(name.len(), 2), little(extra.len(), 2), vec![0; 10], size(place)].concat());
        directory.extend([name.as_bytes(), &extra].concat());
    }
    let (place, count) = (out.len(), files.len());
    out.extend(&directory);
    let (mut short, wide) = ([little(count, 2), little(count, 2)].concat(), [count, count, directory.len(), place]);
    short.extend([little(directory.len(), 4), little(place, 4)].concat());
    if large {
        let end = out.len();
        out.extend([&b"PK\x06\x06"[..], &[0; 20], &wide.map(|number| little(number, 8)).concat()].concat());
        out.extend([&b"PK\x06\x07"[..], &[0; 4], &little(end, 8), &[0; 4]].concat());
        short = vec![0xff; 12];
    }
    [&out, &b"PK\x05\x06\0\0\0\0"[..], &short, &[0; 2]].concat()
}

fn text(text: &str) -> Vec<u8> {
    [&b"X"[..], &little(text.len(), 4), text.as_bytes()].concat()
}

fn tuple(numbers: &[u8]) -> Vec<u8> {
    [b"(".to_vec(), numbers.iter().flat_map(|number| [b'K', *number]).collect(), b"t".to_vec()].concat()
}

/// The opcodes of a tensor in the storage `data/0`.
fn tensor(storage: &str, offset: u8, shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let storage =
        [&b"("[..], &text("storage"), b"ctorch\n", storage.as_bytes(), b"\n", &text("0"), &text("cpu")].concat();
    let storage = [&storage, &b"K\x06tQ"[..]].concat();
    let rest = b"\x89ccollections\nOrderedDict\n)RtR";
    let function = b"ctorch._utils\n_rebuild_tensor_v2\n(";
    [&function[..], &storage, &[b'K', offset], &tuple(shape), &tuple(strides), rest].concat()
}

/// A pickle of a dict of these entries.
fn dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<u8> = entries.iter().flat_map(|(name, value)| [text(name), value.clone()].concat()).collect();
    [&b"\x80\x02}("[..], &entries, b"u."].concat()
}

fn file(pickle: &[u8]) -> Vec<u8> {
    archive(&[("a/data.pkl", pickle), ("a/byteorder", b"little"), ("a/data/0", &[7; 24])], false)
}

#[test]
fn archives_that_need_zip64_are_read() {
    let pickle = dict(&[("w", tensor("FloatStorage", 1, &[2, 1], &[1, 9]))]);
    for large in [false, true] {
        let bytes = archive(&[("a/data/0", &[7; 24]), ("a/data.pkl", &pickle), ("b/data/0", b"x")], large);
        let weights = open_one(bytes).unwrap();
        assert_eq!(weights.get("w").unwrap().shape, [2, 1]);
        assert_eq!(block_on(weights.read_f32("w")).unwrap(), [f32::from_bits(0x0707_0707); 2]);
    }
}

/// PyTorch marks a tensor as negated and keeps the storage as it was.
#[test]
fn tensors_that_are_views_of_other_values_are_refused() {
    let plain = tensor("FloatStorage", 0, &[6], &[1]);
    let with = |changes: &[u8]| {
        let open = plain.strip_suffix(b"tR").unwrap();
        file(&dict(&[("w", [open, changes, b"tR"].concat())]))
    };
    for changes in [&b""[..], b"}", b"N"] {
        assert!(open_one(with(changes)).is_ok(), "{changes:?}");
    }
    for changes in [[&b"}"[..], &text("neg"), b"\x88s"].concat(), [&b"}"[..], &text("conj"), b"\x88s"].concat()] {
        assert!(message(with(&changes)).contains("negated or conjugated"));
    }
    assert!(message(with(b"K\x01")).contains("negated or conjugated"));
}

#[test]
fn what_is_more_than_tensors_by_name_is_refused() {
    let float = |shape: &[u8], strides: &[u8]| tensor("FloatStorage", 0, shape, strides);
    let one = |value: Vec<u8>| file(&dict(&[("w", value)]));
    let whole = || one(float(&[6], &[1]));
    let cases: Vec<(Vec<u8>, &[&str])> = vec![
        // What a hostile file does.
        (file(b"\x80\x02cos\nsystem\nX\x02\0\0\0idR."), &["names `os.system`", "nothing is run", ".safetensors"]),
        (file(b"\x80\x02cbuiltins\neval\n."), &["names `builtins.eval`"]),
        (file(b"\x80\x02ctorch._utils\n_rebuild_tensor_v3\n."), &["_rebuild_tensor_v3"]),
        (one(b"]".to_vec()), &["opcode 0x5d"]),
        (one(b"K\x01".to_vec()), &["entry `w` is an integer, not a tensor"]),
        (one(b"}".to_vec()), &["entry `w` is a dict, not a tensor"]),
        (file(b"\x80\x02}(K\x01K\x02u."), &["the name of an entry is an integer"]),
        (file(b"\x80\x02)."), &["holds a tuple"]),
        (file(b"\x80\x04."), &["protocol 4"]),
        (file(b"\x80\x02}\x8a\x09."), &["an integer of 9 bytes"]),
        (file(b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R."), &["OrderedDict", "other arguments"]),
        (file(b"\x80\x02K\x01}b."), &["attributes of something else"]),
        (file(b"\x80\x02)Q."), &["no storage"]),
        (one(float(&[2, 3], &[1, 2])), &["tensor `w` does not lie row by row", "strides [1, 2]", "contiguous()"]),
        (one(float(&[3], &[2])), &["tensor `w` does not lie row by row"]),
        (one(float(&[2], &[0])), &["tensor `w` does not lie row by row"]),
        (one(float(&[1; 9], &[1; 9])), &["9 dimensions"]),
        // Damage.
        (one(float(&[7], &[1])), &["tensor `w` takes 28 bytes from element 0 of `data/0`, which has 24"]),
        (one(tensor("FloatStorage", 1, &[6], &[1])), &["takes 24 bytes from element 1"]),
        (one(float(&[2, 3], &[1])), &["2 sizes and 1 strides"]),
        (file(b"\x80\x02}h\x05."), &["no value number 5"]),
        (file(b"\x80\x02q\0."), &["remembers nothing"]),
        (file(b"\x80\x02."), &["takes more than there is"]),
        (file(b"\x80\x02K\x01(0."), &["opcode 0x30"]),
        (file(b"\x80\x02K\x01(\x85."), &["takes more than there is"]),
        (file(b"\x80\x02}u."), &["a mark is missing"]),
        (file(b"\x80\x02}(K\x01u."), &["has no value"]),
        (file(b"\x80\x02K\x01(u."), &["something else than a dict"]),
        (file(b"\x80\x02X\xff\xff\xff\xff"), &["it ends within"]),
        (file(b"\x80\x02cos"), &["ends within a name"]),
        (file(b"\x80\x02X\x01\0\0\0\xff."), &["not UTF-8"]),
        (file(b""), &["it ends within"]),
        (archive(&[("a/model.txt", b"x")], false), &["without data.pkl"]),
        (archive(&[("a/data.pkl", &dict(&[("w", float(&[6], &[1]))]))], false), &["`data/0`, which is missing"]),
        (archive(&[("a/data.pkl", b"x"), ("a/data.pkl", b"x")], false), &["`data.pkl` is in it twice"]),
        (archive(&[("a/data.pkl", &dict(&[])), ("a/byteorder", b"big")], false), &["big-endian", "convert it"]),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.".to_vec(), &["before PyTorch 1.6", "torch.load"]),
        (b"version https://git-lfs.github.com/spec/v1".to_vec(), &["git lfs pull"]),
        (b"weights".to_vec(), &["does not begin as a ZIP archive"]),
        (vec![], &["does not begin as a ZIP archive"]),
        ([whole(), b"more".to_vec()].concat(), &["ZIP directory is missing"]),
    ];
    assert!(open_one(whole()).is_ok());
    for (bytes, parts) in cases {
        let message = message(bytes);
        assert!(parts.iter().all(|part| message.contains(part)), "{parts:?}: {message}");
    }
    // The local header of a stored file and its entry in the directory both say how it is stored; the directory counts.
    let mut compressed = whole();
    let entry = compressed.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
    compressed[entry + 10] = 8;
    assert!(message(compressed).contains("`a/data.pkl` in it is compressed"));
}

/// Values that nest, or hold themselves, are only numbers.
#[test]
fn a_pickle_may_nest_and_go_round_in_circles() {
    let deep = [&b"\x80\x02}"[..], &b"\x85".repeat(1 << 20), b"."].concat();
    assert!(message(file(&deep)).contains("holds a tuple"));
    let circle = b"\x80\x02}q\0X\x01\0\0\0wh\0s.";
    assert!(message(file(circle)).contains("entry `w` is a dict"));
}

#[test]
fn shards_are_one_checkpoint() {
    let shard = |name: &str, tensor: &str| {
        source(&format!("m/{name}"), file(&dict(&[(tensor, self::tensor("FloatStorage", 0, &[2, 3], &[3, 1]))])))
    };
    let (one, two) = (shard("pytorch_model-1.bin", "a"), shard("pytorch_model-2.bin", "b"));
    let index = br#"{"weight_map":{"a":"pytorch_model-1.bin","b":"pytorch_model-2.bin"}}"#;
    assert_eq!(shard_files(index).unwrap(), ["pytorch_model-1.bin", "pytorch_model-2.bin"]);
    let weights = block_on(open(vec![two.clone(), one.clone()], Some(index))).unwrap();
    assert_eq!(weights.file_of(weights.get("b").unwrap()), "m/pytorch_model-2.bin");
    let error = |sources, index: Option<&[u8]>| block_on(open(sources, index)).unwrap_err().to_string();
    let missing = error(vec![one.clone()], Some(index));
    assert!(
        missing.starts_with("pytorch_model.bin.index.json: ") && missing.contains("`pytorch_model-2.bin`"),
        "{missing}"
    );
    assert!(error(vec![one, two], None).contains("pytorch_model.bin.index.json is missing"));
}

#[test]
fn a_file_cut_anywhere_is_refused_by_name() {
    for len in 0..TORCH.len() {
        message(TORCH[..len].to_vec());
    }
}

proptest! {
    #[test]
    fn damaged_files_never_panic(flips in prop::collection::vec((0..TORCH.len(), any::<u8>()), 1..6)) {
        let mut bytes = TORCH.to_vec();
        for (place, value) in flips {
            bytes[place] ^= value;
        }
        if let Ok(weights) = open_one(bytes) {
            for info in weights.iter() {
                let _ = block_on(weights.read_rows(&info.name, 0..info.rows()));
            }
        }
    }
}
