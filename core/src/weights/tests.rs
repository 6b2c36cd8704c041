#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use half::{bf16, f16};
use pollster::block_on;

fn tensor(name: &str, dtype: DType, shape: &[usize], offset: u64) -> TensorInfo {
    let bytes = dtype.bytes_of(shape.iter().product()).unwrap();
    TensorInfo {
        name: name.to_string(),
        dtype,
        shape: shape.to_vec(),
        source: 0,
        offset,
        bytes,
        row_order: RowOrder::Stored,
        less_one: false,
    }
}

fn weights(bytes: Vec<u8>, tensors: Vec<TensorInfo>) -> Weights {
    let source: Rc<dyn ByteSource> = Rc::new(BytesSource::new("w.bin", bytes));
    Weights::new("test", vec![source], tensors, vec![], DType::ALL).unwrap()
}

#[test]
fn requests_that_do_not_fit_the_tensor_are_explained() {
    let weights = weights(vec![0; 24], vec![tensor("a", DType::F32, &[3, 2], 0)]);
    assert!(weights.require("a", &[3, 2]).is_ok());
    let cases = [
        (weights.require("a", &[2, 3]).unwrap_err(), "w.bin: tensor `a` has shape [3, 2], expected [2, 3]"),
        (weights.require("b", &[]).unwrap_err(), "w.bin: tensor `b` is missing"),
        (block_on(weights.read_rows("b", 0..1)).unwrap_err(), "w.bin: tensor `b` is missing"),
        (block_on(weights.read_rows("a", 2..4)).unwrap_err(), "w.bin: tensor `a` has 3 rows, rows 2..4 were asked for"),
        (block_on(weights.read_rows("a", Range { start: 2, end: 1 })).unwrap_err(), "rows 2..1 were asked for"),
    ];
    for (error, part) in cases {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(block_on(weights.read_rows("a", 3..3)).unwrap().bytes.is_empty());
}

#[test]
fn every_float_type_is_searched_for_values_that_are_not_finite() {
    // More than one chunk of the search, so that places in later chunks are counted right.
    const ROWS: usize = 3000;
    const COLUMNS: usize = 2;
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for place in [0, 2047, 2048, ROWS * COLUMNS - 1] {
            let values: Vec<f32> = (0..ROWS * COLUMNS)
                .map(|i| if i == place { bad } else { f32::from(f16::MAX) * (-1f32).powi(i as i32) })
                .collect();
            let stored: [(DType, Vec<u8>); 3] = [
                (DType::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
                (DType::F16, values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect()),
                (DType::BF16, values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect()),
            ];
            for (dtype, bytes) in stored {
                let weights = weights(bytes, vec![tensor("a", dtype, &[ROWS, COLUMNS], 0)]);
                match block_on(weights.read_rows("a", 0..ROWS)).unwrap_err() {
                    WeightsError::NotFinite { row, value, .. } => {
                        assert_eq!(row, place / COLUMNS, "{dtype}");
                        assert_eq!(value.is_nan(), bad.is_nan(), "{dtype}");
                    }
                    other => panic!("{other}"),
                }
                let good = if place < ROWS { ROWS / 2 + 1..ROWS } else { 0..ROWS / 2 };
                assert!(block_on(weights.read_rows("a", good)).is_ok(), "{dtype}");
            }
        }
    }
}

#[test]
fn the_largest_finite_values_pass() {
    let bytes = [f32::MAX, f32::MIN, f32::MIN_POSITIVE, -0.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(block_on(weights(bytes, vec![tensor("a", DType::F32, &[4], 0)]).read_f32("a")).unwrap()[0], f32::MAX);
}

#[test]
fn the_interleaved_order_is_a_permutation_within_heads() {
    let order = RowOrder::InterleavedRope { head_dim: 6, rotated: 6 };
    let rows: Vec<_> = (0..12).map(|row| order.stored_row(row)).collect();
    assert_eq!(rows, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    assert_eq!(order.stored_range(&(5..6)), 5..6);
    assert_eq!(order.stored_range(&(5..8)), 5..9);
    assert_eq!(order.stored_range(&(1..12)), 1..12);
    let part = RowOrder::InterleavedRope { head_dim: 6, rotated: 4 };
    let rows: Vec<_> = (0..12).map(|row| part.stored_row(row)).collect();
    assert_eq!(rows, [0, 2, 1, 3, 4, 5, 6, 8, 7, 9, 10, 11]);
}

#[test]
fn groups_are_put_together_as_they_were_taken_apart() {
    // Two query heads share each of the three key heads.
    let heads = Heads { heads: 6, kv_heads: 3, head_dim: 2 };
    let (apart, together) = (RowOrder::Grouped(heads), RowOrder::Regrouped(heads));
    assert_eq!(apart.then(apart), apart);
    assert_eq!(together.then(apart), RowOrder::Stored);
    for row in 0..24 {
        assert_eq!(together.stored_row(apart.stored_row(row)), row);
        assert_eq!(apart.stored_row(together.stored_row(row)), row);
    }
    // The first group: its query heads, its key head, which is behind all six, and its value head.
    let rows: Vec<_> = (0..8).map(|row| together.stored_row(row)).collect();
    assert_eq!(rows, [0, 1, 2, 3, 12, 13, 18, 19]);
}

#[test]
fn values_of_every_float_type_come_less_one() {
    let stored: [(DType, Vec<u8>); 3] = [
        (DType::F32, [1.5f32, 0.25].iter().flat_map(|v| v.to_le_bytes()).collect()),
        (DType::F16, [1.5, 0.25].iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect()),
        (DType::BF16, [1.5, 0.25].iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect()),
    ];
    for (dtype, bytes) in stored {
        let renamed = |_: &str| Some(Renamed { less_one: true, ..Renamed::only("b".into()) });
        let weights = weights(bytes, vec![tensor("a", dtype, &[2], 0)]).renamed(renamed).unwrap();
        assert_eq!(block_on(weights.read_f32("b")).unwrap(), [0.5, -0.75], "{dtype}");
        assert_eq!(block_on(weights.read_rows("b", 1..2)).unwrap().to_f32(), [-0.75], "{dtype}");
    }
}

fn two_tensors() -> Vec<TensorInfo> {
    vec![tensor("a", DType::F32, &[4], 0), tensor("b", DType::F16, &[2, 2], 16)]
}

#[test]
fn the_fingerprint_sees_names_shapes_types_and_every_byte() {
    let print = |bytes: &[u8], tensors| block_on(weights(bytes.to_vec(), tensors).fingerprint()).unwrap();
    let bytes: Vec<u8> = (0..24).collect();
    let original = print(&bytes, two_tensors());
    assert!(original.len() == 64 && original.bytes().all(|digit| digit.is_ascii_hexdigit()));
    assert_eq!(print(&bytes, two_tensors()), original);
    for place in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[place] ^= 1;
        assert_ne!(print(&changed, two_tensors()), original, "byte {place}");
    }
    let changes: [fn(&mut TensorInfo); 4] = [
        |info| info.name = "c".to_string(),
        |info| info.dtype = DType::BF16,
        |info| info.shape = vec![4],
        |info| info.row_order = RowOrder::InterleavedRope { head_dim: 2, rotated: 2 },
    ];
    for change in changes {
        let mut tensors = two_tensors();
        change(&mut tensors[1]);
        assert_ne!(print(&bytes, tensors), original);
    }
}

#[test]
fn the_fingerprint_does_not_depend_on_where_tensors_lie() {
    let shifted = |by: u64| {
        let bytes = [vec![0xff; by as usize], (0..24).collect()].concat();
        let tensors = two_tensors().into_iter().map(|info| TensorInfo { offset: info.offset + by, ..info }).collect();
        block_on(weights(bytes, tensors).fingerprint()).unwrap()
    };
    assert_eq!(shifted(0), shifted(7));
}

#[test]
fn large_tensors_are_sampled_from_first_to_last_byte() {
    let pieces = fingerprint_pieces(1_000_003, false);
    assert_eq!(pieces.len(), 4);
    assert_eq!((pieces[0].start, pieces[3].end), (0, 1_000_003));
    assert!(pieces.iter().all(|piece| piece.end - piece.start == 16 << 10));
    assert!(pieces.windows(2).all(|pair| pair[0].end < pair[1].start));
    for (bytes, whole) in [(0, false), (5, false), (64 << 10, false), ((64 << 10) + 1, false), (9 << 20, true)] {
        let pieces = fingerprint_pieces(bytes, whole);
        assert_eq!(pieces.last().map_or(0, |piece| piece.end), bytes);
        let read: u64 = pieces.iter().map(|piece| piece.end - piece.start).sum();
        assert_eq!(read, if whole { bytes } else { bytes.min(64 << 10) });
    }
}

#[test]
fn a_large_checkpoint_is_fingerprinted_without_reading_it_whole() {
    use std::cell::Cell;
    struct Counting(Cell<u64>);
    impl ByteSource for Counting {
        fn name(&self) -> &str {
            "large.bin"
        }
        fn len(&self) -> u64 {
            1 << 32
        }
        fn read<'a>(&'a self, _: u64, len: usize) -> ReadFuture<'a> {
            self.0.set(self.0.get() + len as u64);
            Box::pin(std::future::ready(Ok(vec![0; len])))
        }
    }
    let source = Rc::new(Counting(Cell::new(0)));
    let info = tensor("a", DType::F32, &[1 << 30], 0);
    let weights = Weights::new("test", vec![source.clone()], vec![info], vec![], DType::ALL).unwrap();
    block_on(weights.fingerprint()).unwrap();
    assert_eq!(source.0.get(), 64 << 10);
}

#[test]
fn the_embedded_model_opens() {
    let source: Rc<dyn ByteSource> = Rc::new(BytesSource::new("builtin:tiny", blockpruner_tiny::WEIGHTS));
    let weights = block_on(safetensors::open(vec![source], None)).unwrap();
    let norm = weights.get("model.norm.weight").unwrap();
    assert_eq!(norm.dtype, DType::BF16);
    let embedding = weights.get("model.embed_tokens.weight").unwrap();
    let values = block_on(weights.read_f32("model.embed_tokens.weight")).unwrap();
    assert_eq!(values.len(), embedding.elements());
}

#[test]
fn a_transposed_tensor_has_the_files_columns_for_rows() {
    let bytes = (0..6u8).flat_map(|value| f32::from(value).to_le_bytes()).collect();
    let renamed = |_: &str| Some(Renamed { row_order: RowOrder::Transposed, ..Renamed::only("b".into()) });
    let weights = weights(bytes, vec![tensor("a", DType::F32, &[2, 3], 0)]).renamed(renamed).unwrap();
    assert!(weights.require("b", &[3, 2]).is_ok());
    assert_eq!(block_on(weights.read_f32("b")).unwrap(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert_eq!(block_on(weights.read_rows("b", 1..2)).unwrap().to_f32(), [1.0, 4.0]);
    assert!(block_on(weights.read_rows("b", 2..4)).is_err());
    // Transposed once more, it is read as it lies there.
    let twice = block_on(weights.transposed(&BTreeSet::from(["b"]))).unwrap();
    assert_eq!(block_on(twice.read_rows("b", 1..2)).unwrap().to_f32(), [3.0, 4.0, 5.0]);
}

#[test]
fn rows_of_a_matrix_come_as_vectors() {
    let bytes: Vec<u8> = (0..8u8).flat_map(|value| f32::from(value).to_le_bytes()).collect();
    let renamed = |rows: usize| {
        let row = |row| Renamed { row: Some(row), ..Renamed::only(format!("norms.{row}")) };
        let names = move |name: &str| if name == "a" { (0..rows).map(row).collect() } else { Vec::new() };
        let tensors = vec![tensor("a", DType::F32, &[2, 3], 0), tensor("b", DType::F32, &[2], 24)];
        weights(bytes.clone(), tensors).renamed(names)
    };
    let apart = renamed(2).unwrap();
    assert_eq!(apart.names().collect::<Vec<_>>(), ["b", "norms.0", "norms.1"]);
    for (name, expected) in [("norms.0", [0.0, 1.0, 2.0]), ("norms.1", [3.0, 4.0, 5.0])] {
        apart.require(name, &[3]).unwrap();
        assert_eq!(block_on(apart.read_f32(name)).unwrap(), expected);
    }
    assert_eq!(block_on(apart.read_rows("norms.1", 1..3)).unwrap().to_f32(), [4.0, 5.0]);
    let error = renamed(3).unwrap_err().to_string();
    assert!(error.contains("`a` has shape [2, 3], expected [3, 2]"), "{error}");
}

#[test]
fn a_matrix_is_transposed_whatever_its_sides() {
    for (rows, columns, size) in [(1, 1, 2), (3, 5, 4), (64, 65, 2), (130, 67, 4)] {
        let matrix: Vec<u8> = (0..rows * columns * size).map(|byte| (byte % 251) as u8).collect();
        let transposed = transpose(&matrix, rows, columns, size);
        for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
            let (from, to) = ((row * columns + column) * size, (column * rows + row) * size);
            assert_eq!(matrix[from..from + size], transposed[to..to + size], "{rows} x {columns}");
        }
        assert_eq!(transpose(&transposed, columns, rows, size), matrix);
    }
}

/// An order and what undoes it, one after the other, leave every row where it is.
#[test]
fn orders_of_rows_are_undone_by_their_inverses() {
    let heads = Heads { heads: 4, kv_heads: 2, head_dim: 6 };
    let orders = [
        (RowOrder::Stored, 48),
        (RowOrder::InterleavedRope { head_dim: 12, rotated: 12 }, 48),
        (RowOrder::InterleavedRope { head_dim: 12, rotated: 8 }, 48),
        (RowOrder::Grouped(heads), 48),
    ];
    for (order, rows) in orders {
        for (order, inverse) in [(order, order.inverse()), (order.inverse(), order)] {
            assert_eq!((order.then(inverse), order.then(RowOrder::Stored)), (RowOrder::Stored, order));
            // What is handed out as row `n` of the second is row `stored_row(n)` of what the first hands out.
            let both = |row| order.stored_row(inverse.stored_row(row));
            assert!((0..rows).all(|row| both(row) == row), "{order:?}");
            assert!(order == RowOrder::Stored || (0..rows).any(|row| order.stored_row(row) != row), "{order:?}");
        }
    }
    assert_eq!(RowOrder::Transposed.then(RowOrder::Transposed), RowOrder::Stored);
}
