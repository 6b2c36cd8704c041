#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use crate::weights::{BytesSource, FloatType, Renamed};
use pollster::block_on;
use proptest::prelude::*;
use safetensors::SafeTensors;

/// Written by the Python package `gguf`, see `testdata/make_fixtures.py`.
const LLAMA: &[u8] = include_bytes!("../testdata/llama.gguf");
/// The same tensors as `gguf` dequantises them, in Hugging Face row order.
const LLAMA_EXPECTED: &[u8] = include_bytes!("../testdata/llama.safetensors");

fn open_bytes(bytes: Vec<u8>) -> Result<GgufFile, WeightsError> {
    block_on(open(Rc::new(BytesSource::new("m.gguf", bytes)), &[]))
}

fn message(bytes: Vec<u8>) -> String {
    let message = open_bytes(bytes).unwrap_err().to_string();
    assert!(message.starts_with("m.gguf: "), "{message}");
    message
}

fn expected(name: &str) -> Vec<f32> {
    let file = SafeTensors::deserialize(LLAMA_EXPECTED).unwrap();
    let bytes = file.tensor(name).unwrap().data().to_vec();
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// Builds files byte by byte, also impossible ones.
#[derive(Clone)]
struct Writer {
    version: u32,
    entries: Vec<u8>,
    entry_count: u64,
    tensors: Vec<u8>,
    tensor_count: u64,
    data: Vec<u8>,
}

fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes()[..], value.as_bytes()].concat()
}

impl Writer {
    fn new(architecture: &str) -> Self {
        let empty =
            Self { version: 3, entries: vec![], entry_count: 0, tensors: vec![], tensor_count: 0, data: vec![] };
        empty.entry("general.architecture", 8, &text(architecture))
    }

    fn entry(mut self, key: &str, type_id: u32, value: &[u8]) -> Self {
        self.entries.extend([&text(key)[..], &type_id.to_le_bytes(), value].concat());
        self.entry_count += 1;
        self
    }

    fn u32(self, key: &str, value: u32) -> Self {
        self.entry(key, 4, &value.to_le_bytes())
    }

    /// `dims` innermost first, as in the file.
    fn tensor(mut self, name: &str, dims: &[u64], type_id: u32, offset: u64) -> Self {
        self.tensors.extend(text(name));
        self.tensors.extend((dims.len() as u32).to_le_bytes());
        self.tensors.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
        self.tensors.extend(type_id.to_le_bytes());
        self.tensors.extend(offset.to_le_bytes());
        self.tensor_count += 1;
        self
    }

    fn data(mut self, data: &[u8]) -> Self {
        self.data = data.to_vec();
        self
    }

    fn bytes(self) -> Vec<u8> {
        let counts = [self.tensor_count.to_le_bytes(), self.entry_count.to_le_bytes()].concat();
        let mut bytes = [b"GGUF", &self.version.to_le_bytes()[..], &counts, &self.entries, &self.tensors].concat();
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        [bytes, self.data].concat()
    }
}

fn floats(count: usize) -> Vec<u8> {
    (0..count).flat_map(|i| (i as f32).to_le_bytes()).collect()
}

/// The tensors of [`LLAMA`] as its family's table names and orders them.
fn llama_weights() -> Weights {
    let config = serde_json::json!({
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 10,
    });
    let spec = crate::model::ModelSpec::from_config(config.as_object().unwrap()).unwrap();
    spec.renamed(open_bytes(LLAMA.to_vec()).unwrap().weights).unwrap()
}

#[test]
fn a_llama_file_reads_as_the_hugging_face_checkpoint() {
    let rope_freqs = open_bytes(LLAMA.to_vec()).unwrap().rope_factors.every;
    let weights = llama_weights();
    let reference = SafeTensors::deserialize(LLAMA_EXPECTED).unwrap();
    let mut names = reference.names();
    names.retain(|name| *name != ROPE_FREQS);
    names.sort_unstable();
    assert_eq!(weights.names().collect::<Vec<_>>(), names);
    for name in names {
        let values = block_on(weights.read_f32(name)).unwrap();
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&values), bits(&expected(name)), "{name}");
        assert_eq!(weights.get(name).unwrap().shape, reference.tensor(name).unwrap().shape(), "{name}");
    }
    assert_eq!(rope_freqs, Some(expected(ROPE_FREQS)));
    let k_proj = "model.layers.0.self_attn.k_proj.weight";
    assert_eq!(block_on(weights.read_rows(k_proj, 0..1)).unwrap().dtype, FloatType::F16);
}

#[test]
fn metadata_is_what_the_writer_wrote() {
    let metadata = open_bytes(LLAMA.to_vec()).unwrap().metadata;
    assert_eq!(metadata.architecture(), "llama");
    assert_eq!(metadata.require_string("general.name").unwrap(), "one tiny layer");
    assert_eq!(metadata.unsigned("llama.embedding_length").unwrap(), Some(32));
    let epsilon = metadata.float("llama.attention.layer_norm_rms_epsilon").unwrap();
    assert_eq!(epsilon.map(|epsilon| epsilon as f32), Some(1e-5));
    assert_eq!(metadata.bool("tokenizer.ggml.add_bos_token").unwrap(), Some(false));
    let tokens = metadata.require_strings("tokenizer.ggml.tokens").unwrap();
    assert_eq!((tokens.len(), tokens[9].as_str()), (10, "token 9"));
    assert_eq!(metadata.integers("tokenizer.ggml.token_type").unwrap(), Some(vec![1; 10]));
    assert_eq!(metadata.floats("tokenizer.ggml.scores").unwrap().unwrap()[3], -0.75);
}

#[test]
fn any_range_of_rows_is_part_of_the_whole() {
    let weights = llama_weights();
    for name in ["q_proj.weight", "q_proj.bias", "k_proj.weight", "o_proj.weight"] {
        let name = format!("model.layers.0.self_attn.{name}");
        let whole = expected(&name);
        let (rows, columns) = (weights.get(&name).unwrap().rows(), weights.get(&name).unwrap().columns());
        for start in 0..=rows {
            for end in start..=rows {
                let found = block_on(weights.read_rows(&name, start..end)).unwrap().to_f32();
                assert_eq!(found, whole[start * columns..end * columns], "{name} {start}..{end}");
            }
        }
    }
}

#[test]
fn two_tensors_of_one_new_name_are_refused() {
    let writer = Writer::new("x").tensor("a", &[2], 0, 0).tensor("b", &[2], 0, 32).data(&floats(10));
    let weights = open_bytes(writer.bytes()).unwrap().weights;
    let renamed = Renamed::only("c".to_string());
    let name = |_: &str| Some(renamed.clone());
    let error = weights.renamed(name).unwrap_err().to_string();
    assert!(error.contains("`c` is there twice") && error.contains("m.gguf"), "{error}");
}

#[test]
fn quantised_vectors_can_be_read_from_the_middle_of_a_block() {
    let mut block = vec![0x00, 0x3c]; // f16 1.0
    block.extend(0..32);
    let writer = Writer::new("x").tensor("v", &[64], 8, 0).data(&[block.clone(), block].concat());
    let weights = open_bytes(writer.bytes()).unwrap().weights;
    let values = block_on(weights.read_rows("v", 30..34)).unwrap().to_f32();
    assert_eq!(values, [30.0, 31.0, 0.0, 1.0]);
}

#[test]
fn versions_two_and_three_are_read_others_explained() {
    let version = |version| Writer { version, ..Writer::new("x") }.bytes();
    assert!(open_bytes(version(2)).is_ok());
    assert!(message(version(1)).contains("version 1, expected 2 or 3"));
    assert!(message(version(4)).contains("version 4, expected 2 or 3"));
    assert!(message(version(3u32.swap_bytes())).contains("big-endian"));
    assert!(message(b"PK\x03\x04, a zip file, not a model".to_vec()).contains("instead of \"GGUF\""));
    assert!(message(vec![]).contains("magic number"));
}

#[test]
fn unsupported_types_are_refused_by_name_when_they_are_needed() {
    for (id, name) in [
        (9, "Q8_1"),
        (28, "F64"),
        (31, "Q4_0_4_4 (get the model in Q4_0"),
        (33, "Q4_0_8_8 (get the model in Q4_0"),
        (4, "number 4"),
        (4_000_000_000, "number 4000000000"),
    ] {
        let writer = Writer::new("x").tensor("output.weight", &[32, 1], id, 0);
        let writer = writer.tensor("output_norm.weight", &[1], 0, 256).data(&[0; 260]);
        let weights = open_bytes(writer.bytes()).unwrap().weights;
        assert_eq!(block_on(weights.read_f32("output_norm.weight")).unwrap(), [0.0]);
        assert!(weights.get("output.weight").is_none());
        for error in [
            block_on(weights.read_f32("output.weight")).unwrap_err(),
            weights.require("output.weight", &[1, 32]).unwrap_err(),
        ] {
            let message = error.to_string();
            for part in ["m.gguf", "`output.weight`", name, "Q4_K, Q5_K, Q6_K, "] {
                assert!(message.contains(part), "{message}");
            }
        }
    }
}

#[test]
fn a_piece_of_a_file_is_told_from_one_that_was_cut_short() {
    let bytes = Writer::new("x").tensor("a", &[65], 0, 0).data(&floats(64)).bytes();
    let message =
        |name: &str| block_on(open(Rc::new(BytesSource::new(name, bytes.clone())), &[])).unwrap_err().to_string();
    for (name, advice) in [
        ("m.gguf.part1of2", "join the pieces"),
        ("m.partial.gguf", "download it again"),
        ("m.gguf.part1", "download it again"),
    ] {
        assert!(message(name).contains(advice), "{}", message(name));
    }
}

#[test]
fn impossible_tensors_are_explained() {
    let x = || Writer::new("x").data(&floats(64));
    let array_of = |count: u64| [&4u32.to_le_bytes()[..], &count.to_le_bytes()].concat();
    let nested =
        |depth: u32| [9u32.to_le_bytes().to_vec(), 1u64.to_le_bytes().to_vec()].concat().repeat(depth as usize);
    let cases = [
        (x().tensor("a", &[4], 0, 0).tensor("b", &[8], 0, 16), "no multiple of 32"),
        (x().tensor("a", &[9], 0, 0).tensor("b", &[8], 0, 32), "`a` (36 bytes at offset 0) overlaps tensor `b`"),
        (x().tensor("a", &[32], 8, 0).tensor("b", &[8], 0, 32), "overlaps"),
        (x().tensor("a", &[32], 20, 64).tensor("b", &[32], 20, 64), "overlaps"),
        (x().tensor("a", &[8], 0, 0).tensor("a", &[8], 0, 32), "`a` is there twice"),
        (x().tensor("a", &[65], 0, 0), "beyond the end"),
        (x().tensor("a", &[1], 0, 256), "beyond the end"),
        (x().tensor("a", &[1], 0, u64::MAX - 31), "beyond the end"),
        (x().tensor("a", &[1], 999, 1 << 40), "beyond the end"),
        (x().tensor("a", &[33], 8, 0), "impossible shape [33] for type Q8_0"),
        (x().tensor("a", &[16, 2], 8, 0), "impossible shape [2, 16] for type Q8_0"),
        (x().tensor("a", &[1 << 40, 1 << 40], 0, 0), "impossible shape"),
        (x().tensor("a", &[1 << 40, 1 << 40, 0], 0, 0), "impossible shape"),
        (x().tensor("a", &[1; 5], 0, 0), "5 dimensions"),
        (x().u32("general.alignment", 0), "power of two"),
        (x().u32("general.alignment", 48), "power of two"),
        (x().entry("general.alignment", 8, &text("a")), "`general.alignment` is the string"),
        (x().u32("n", 1).u32("n", 1), "`n` is there twice"),
        (x().entry("n", 13, &[0; 64]), "unknown type 13"),
        (x().entry("n", 7, &[2]), "expected 0 or 1"),
        (x().entry("n", 8, &[2, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]), "not UTF-8"),
        (x().entry("n", 8, &u64::MAX.to_le_bytes()), "metadata `n`"),
        (x().entry("n", 9, &array_of(u64::MAX)), "metadata `n`"),
        (x().entry("n", 9, &array_of(1 << 40)), "metadata `n`"),
        (x().entry("n", 9, &nested(50)), "nests arrays"),
        (Writer { tensor_count: u64::MAX, ..x() }, "the table of tensors"),
        (Writer { entry_count: 1 << 50, ..x() }, "the metadata"),
    ];
    for (writer, part) in cases {
        let message = message(writer.bytes());
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn headers_longer_than_one_read_are_read_in_pieces() {
    let long: String = "x".repeat(3 << 20);
    let array = [&8u32.to_le_bytes()[..], &2u64.to_le_bytes(), &text(&long), &text("end")].concat();
    let writer = Writer::new("x").entry("long", 9, &array).tensor("a", &[2], 0, 0).data(&floats(2));
    let file = open_bytes(writer.bytes()).unwrap();
    assert_eq!(file.metadata.require_strings("long").unwrap(), [long.as_str(), "end"]);
    assert_eq!(block_on(file.weights.read_f32("a")).unwrap(), [0.0, 1.0]);
}

#[test]
fn a_header_that_is_too_long_is_not_read() {
    /// A file of 1 TiB of zeros behind a few real bytes; reading much of it would not end.
    struct Endless(Vec<u8>);
    impl ByteSource for Endless {
        fn name(&self) -> &str {
            "endless.gguf"
        }
        fn len(&self) -> u64 {
            1 << 40
        }
        fn read<'a>(&'a self, offset: u64, len: usize) -> crate::weights::ReadFuture<'a> {
            assert!(offset + len as u64 <= 1 << 20, "reads too much");
            let mut bytes = vec![0; len];
            for (byte, real) in bytes.iter_mut().zip(self.0.iter().skip(offset as usize)) {
                *byte = *real;
            }
            Box::pin(std::future::ready(Ok(bytes)))
        }
    }
    let bytes = Writer::new("x").entry("n", 8, &(1u64 << 39).to_le_bytes()).bytes();
    let message = block_on(open(Rc::new(Endless(bytes)), &[])).unwrap_err().to_string();
    assert!(message.starts_with("endless.gguf: ") && message.contains("reaches beyond"), "{message}");
}

#[test]
fn names_of_parts_are_taken_apart() {
    let part = PartName::parse("a-00001-of-00002-00002-of-00003.gguf").unwrap();
    assert_eq!((part.model, part.number, part.count), ("a-00001-of-00002", 1, 3));
    let files: Vec<_> = PartName::parse("m-00003-of-00003.GGUF").unwrap().files().collect();
    assert_eq!(files, ["m-00001-of-00003.GGUF", "m-00002-of-00003.GGUF", "m-00003-of-00003.GGUF"]);
    assert_eq!(PartName::parse("-00001-of-00001.gguf").unwrap().model, "");
    for file in [
        "m.gguf",
        "m-00000-of-00003.gguf",
        "m-00004-of-00003.gguf",
        "m-1-of-3.gguf",
        "m-00001-of-3.gguf",
        "m-000001-of-00003.gguf",
        "m-+0001-of-00003.gguf",
        "m-00001-of-99999.gguf",
        "m00001-of-00003.gguf",
        "m-00001-of-00003.bin",
        "\u{e9}gguf",
        "gguf",
        "",
    ] {
        assert_eq!(PartName::parse(file), None, "{file}");
    }
}

/// Part `number` of `count`, with `tensors` of two numbers each from the part's number on.
fn part(number: u32, count: u32, tensors: &[&str], total: u32) -> Writer {
    let writer =
        if number == 0 { Writer::new("x") } else { Writer { entries: vec![], entry_count: 0, ..Writer::new("x") } };
    let mut writer = writer.u32("split.no", number).u32("split.count", count).u32("split.tensors.count", total);
    for (i, name) in tensors.iter().enumerate() {
        writer = writer.tensor(name, &[2], 0, 32 * i as u64);
    }
    let values = (0..8 * tensors.len()).flat_map(|i| (number as f32 + i as f32 / 8.0).to_le_bytes());
    writer.data(&values.collect::<Vec<u8>>())
}

fn open_parts(parts: &[(&str, Writer)]) -> Result<GgufFile, WeightsError> {
    let mut sources = parts.iter().map(|(name, part)| {
        Rc::new(BytesSource::new(format!("folder/{name}"), part.clone().bytes())) as Rc<dyn ByteSource>
    });
    let first = sources.next().unwrap();
    block_on(open(first, &sources.collect::<Vec<_>>()))
}

const PARTS: [&str; 3] = ["m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"];

#[test]
fn the_parts_of_a_split_model_are_one() {
    let first = || part(0, 3, &[], 3);
    let second = || part(1, 3, &["a", "b"], 3);
    let third = || part(2, 3, &["c"], 3);
    let parts = [(PARTS[0], first()), (PARTS[2], third()), ("m.gguf", Writer::new("y")), (PARTS[1], second())];
    let file = open_parts(&parts).unwrap();
    assert_eq!(file.metadata.architecture(), "x");
    for (name, values, number) in [("a", [1.0, 1.125], 1), ("b", [2.0, 2.125], 1), ("c", [2.0, 2.125], 2)] {
        assert_eq!(block_on(file.weights.read_f32(name)).unwrap(), values, "{name}");
        assert_eq!(file.weights.file_of(file.weights.get(name).unwrap()), format!("folder/{}", PARTS[number]));
    }
    // A whole model that is called as a part is.
    let whole = Writer::new("x").tensor("a", &[2], 0, 0).data(&floats(2));
    assert_eq!(open_parts(&[(PARTS[0], whole)]).unwrap().weights.names().count(), 1);

    let without = |key: &str| {
        let of = |writer: Writer, entry: &str, value| if entry == key { writer } else { writer.u32(entry, value) };
        of(of(Writer::new("x").u32("split.count", 3), "split.no", 0), "split.tensors.count", 0)
    };
    let all = |second: Writer, third: Writer| vec![(PARTS[0], first()), (PARTS[1], second), (PARTS[2], third)];
    type Case<'a> = (Vec<(&'a str, Writer)>, &'a str, &'a [&'a str]);
    let cases: [Case<'_>; 12] = [
        (vec![(PARTS[1], second())], PARTS[1], &["part 2 of 3", "give m-00001-of-00003.gguf"]),
        (vec![("b.gguf", second())], "b.gguf", &["part 2 of 3", "give the first one"]),
        (vec![("a.gguf", first())], "a.gguf", &["part 1 of 3", "-00001-of-00003.gguf"]),
        (vec![("m-00001-of-00002.gguf", first())], "m-00001-of-00002.gguf", &["part 1 of 3", "-00001-of-00003.gguf"]),
        (vec![(PARTS[0], first()), (PARTS[2], third())], PARTS[0], &["m-00002-of-00003.gguf is missing", "put it"]),
        (all(third(), second()), PARTS[1], &["part 3 of 3, its name part 2 of 3"]),
        (all(part(1, 4, &["a", "b"], 3), third()), PARTS[1], &["part 2 of 4, its name part 2 of 3"]),
        (all(Writer::new("x"), third()), PARTS[1], &["a model of its own, its name part 2 of 3"]),
        (all(second(), part(2, 3, &["c", "d"], 3)), PARTS[0], &["`split.tensors.count` is 3", "have 4 tensors"]),
        (all(second(), part(2, 3, &["b"], 3)), PARTS[2], &["`b` is there twice", "m-00002-of-00003.gguf"]),
        (vec![(PARTS[0], without("split.no"))], PARTS[0], &["`split.no` is missing"]),
        (all(Writer { version: 1, ..second() }, third()), PARTS[1], &["version 1"]),
    ];
    for (parts, file, expected) in cases {
        let message = open_parts(&parts).unwrap_err().to_string();
        assert!(message.starts_with(&format!("folder/{file}: ")), "{message}");
        assert!(expected.iter().all(|part| message.contains(part)), "{message}");
    }
    let parts = [(PARTS[0], without("split.tensors.count")), (PARTS[1], second()), (PARTS[2], third())];
    assert!(open_parts(&parts).unwrap_err().to_string().contains("`split.tensors.count` is missing"));
}

#[test]
fn a_file_cut_anywhere_is_refused_by_name() {
    // Behind the last tensor there may be padding, without which the file is still whole.
    let file = open_bytes(LLAMA.to_vec()).unwrap();
    let rope_freqs = 32;
    let end = file.weights.iter().map(|info| info.offset + info.bytes).max().unwrap() + rope_freqs;
    assert_eq!(end, LLAMA.len() as u64);
    for len in 0..LLAMA.len() {
        message(LLAMA[..len].to_vec());
    }
}

#[test]
fn values_that_are_not_finite_are_named_by_their_hugging_face_row() {
    // A head of 4 rows of 2: file row 2 is row 1.
    let mut data = floats(8);
    data[5 * 4..6 * 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let writer = Writer::new("x").tensor("q", &[2, 4], 0, 0).data(&data);
    let name = "q";
    let row_order = RowOrder::InterleavedRope { head_dim: 4, rotated: 4 };
    let renamed = Renamed { row_order, ..Renamed::only(name.to_string()) };
    let weights = open_bytes(writer.bytes()).unwrap().weights.renamed(|_| Some(renamed.clone())).unwrap();
    match block_on(weights.read_rows(name, 1..3)).unwrap_err() {
        WeightsError::NotFinite { row, value, .. } => assert!(row == 1 && value.is_nan()),
        other => panic!("{other}"),
    }
    assert_eq!(block_on(weights.read_rows(name, 2..4)).unwrap().to_f32(), [2.0, 3.0, 6.0, 7.0]);

    let mut block = vec![0u8; 34];
    block[..2].copy_from_slice(&half::f16::INFINITY.to_le_bytes());
    let writer = Writer::new("x").tensor("q", &[32, 2], 8, 0).data(&[vec![0; 34], block].concat());
    let weights = open_bytes(writer.bytes()).unwrap().weights;
    assert!(block_on(weights.read_rows("q", 0..1)).is_ok());
    let message = block_on(weights.read_f32("q")).unwrap_err().to_string();
    assert!(message.contains("m.gguf") && message.contains("`q`") && message.contains("row 1"), "{message}");
}

proptest! {
    #[test]
    fn damaged_files_never_panic(
        header in prop::collection::vec((0usize..1400, any::<u8>()), 0..4),
        anywhere in prop::collection::vec((0usize..LLAMA.len(), any::<u8>()), 0..4),
    ) {
        let mut bytes = LLAMA.to_vec();
        for (place, flip) in header.into_iter().chain(anywhere) {
            bytes[place] ^= flip;
        }
        match open_bytes(bytes) {
            Err(error) => prop_assert!(error.to_string().starts_with("m.gguf: ")),
            Ok(file) => {
                for info in file.weights.iter() {
                    match block_on(file.weights.read_f32(&info.name)) {
                        Ok(values) => prop_assert_eq!(values.len(), info.elements()),
                        Err(error) => prop_assert!(error.to_string().starts_with("m.gguf: ")),
                    }
                }
            }
        }
    }
}
