//! Every shader against its CPU twin, for every kernel choice that the default device has.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use blockpruner::gpu::{AttentionBuffers, Gpu, GpuOptions, Heads, Matrix, Operand, Recording, Residual, Resource};
use blockpruner::weights::{DType, dequantize::dequantize};
use blockpruner_shaders::{
    Kernel, WeightFormat, attention, embedding, gemm, groups_of_64, log_sum_exp, rms_norm, rotary, stride, swiglu,
};
use blockpruner_tests::{assert_close, every_kernel, open, random};
use half::{bf16, f16};
use pollster::block_on;

fn bytes(values: &[f32]) -> &[u8] {
    bytemuck::cast_slice(values)
}

/// The elements as a checkpoint stores them, and what they are worth after rounding.
fn stored(format: WeightFormat, values: &[f32]) -> (Vec<u8>, Vec<f32>) {
    match format {
        WeightFormat::F32 => (bytes(values).to_vec(), values.to_vec()),
        WeightFormat::F16 => {
            let rounded: Vec<f16> = values.iter().map(|x| f16::from_f32(*x)).collect();
            (bytemuck::cast_slice(&rounded).to_vec(), rounded.iter().map(|x| x.to_f32()).collect())
        }
        WeightFormat::Bf16 => {
            let rounded: Vec<bf16> = values.iter().map(|x| bf16::from_f32(*x)).collect();
            (bytemuck::cast_slice(&rounded).to_vec(), rounded.iter().map(|x| x.to_f32()).collect())
        }
        WeightFormat::Q8_0 => blocks(DType::Q8_0, values),
        WeightFormat::Q4_0 => blocks(DType::Q4_0, values),
        WeightFormat::Q4_1 => blocks(DType::Q4_1, values),
    }
}

/// Blocks with scales and elements from the bits of `values`, and what the library's reader makes of them.
fn blocks(dtype: DType, values: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let mut bytes = Vec::new();
    for block in values.chunks_exact(32) {
        bytes.extend(f16::from_f32(block[0] / 16.0).to_le_bytes());
        if dtype == DType::Q4_1 {
            bytes.extend(f16::from_f32(block[1]).to_le_bytes());
        }
        let elements = if dtype == DType::Q8_0 { 32 } else { 16 };
        bytes.extend(block[..elements].iter().map(|x| (x.to_bits() >> 9) as u8));
    }
    let values = dequantize(dtype, &bytes).unwrap();
    (bytes, values)
}

/// Whether rows of `inner` elements are whole blocks.
fn is_whole(format: WeightFormat, inner: usize) -> bool {
    inner.is_multiple_of(format.block_elements() as usize)
}

/// A matrix in as many shards as the device's options ask for.
fn matrix(gpu: &Gpu, format: WeightFormat, inner: u32, rows: &[u8], bias: Option<&[f32]>) -> (Matrix, usize) {
    let row_bytes = format.row_bytes(inner);
    let columns = (rows.len() / row_bytes) as u32;
    // Padded as the shaders ask for: what lies past the end of a binding reads as zero on some drivers.
    let bias = bias.map(|bias| gpu.upload("bias", bytes(&padded(bias, bias.len(), 0.0))).unwrap());
    let mut matrix = Matrix::new(format, columns, inner, bias);
    let shards = Matrix::shards(gpu, format, columns, inner).unwrap();
    for range in &shards {
        let part = &rows[range.start as usize * row_bytes..range.end as usize * row_bytes];
        matrix.push(gpu, "weight", range.clone(), part).unwrap();
    }
    (matrix, shards.len())
}

/// Rows as activations lie on the device: `fill` between the end of a row and the next.
fn padded(values: &[f32], columns: usize, fill: f32) -> Vec<f32> {
    let mut rows = Vec::new();
    for row in values.chunks(columns) {
        rows.extend_from_slice(row);
        rows.resize(rows.len().next_multiple_of(4), fill);
    }
    rows
}

/// Takes out what [`padded`] puts in.
fn unpadded(rows: &[f32], columns: usize) -> Vec<f32> {
    rows.chunks(columns.next_multiple_of(4)).flat_map(|row| &row[..columns]).copied().collect()
}

/// The left side of a product from values `[rows, inner]`.
fn operand(gpu: &Gpu, values: &[f32], inner: u32) -> Operand {
    let packed = gemm::pack_operand(gpu.gemm(), inner, values);
    Operand::new(&gpu.upload_readable("a", &packed).unwrap(), values.len() as u32 / inner)
}

fn product(gpu: &Gpu, matrix: &Matrix, a: &Operand, rows: usize) -> Vec<f32> {
    let columns = matrix.columns() as usize;
    let width = stride(columns as u32);
    let bytes = gemm::output_bytes(gpu.gemm(), rows as u32, width);
    let output = gpu.readable("c", bytes).unwrap();
    let mut recording = Recording::new();
    matrix.record_product(gpu, &mut recording, a, &output);
    block_on(gpu.submit(&recording)).unwrap();
    let found = block_on(gpu.read(&output, bytes as usize / 4)).unwrap();
    unpadded(&gemm::unpack_output(gpu.gemm(), rows as u32, width, &found), columns)
}

/// What a shader wrote as the left side of a product, seen by multiplying with the identity, which changes nothing.
fn read_operand(gpu: &Gpu, recording: &Recording, storage: &Resource, rows: usize, columns: usize) -> Vec<f32> {
    block_on(gpu.submit(recording)).unwrap();
    let mut ones = vec![0.0; columns * columns];
    ones.iter_mut().step_by(columns + 1).for_each(|x| *x = 1.0);
    let (identity, _) = matrix(gpu, WeightFormat::F32, columns as u32, bytes(&ones), None);
    product(gpu, &identity, &Operand::new(storage, rows as u32), rows)
}

fn operand_storage(gpu: &Gpu, rows: usize, columns: usize) -> Resource {
    let bytes = gemm::operand_bytes(gpu.gemm(), rows as u32, columns as u32);
    gpu.readable("operand", bytes).unwrap()
}

/// The least number of shards that the largest weight here must come in, so that forced sharding is really tested.
fn check_gemm(gpu: &Gpu, label: &str, formats: &[WeightFormat], least_shards: usize) {
    for (seed, format) in (1..).zip(formats) {
        let shapes = [
            [(1, 1, 1), (1, 307, 5), (43, 1, 7), (33, 65, 72), (130, 70, 101), (7, 33, 16), (8, 32, 8), (9, 129, 31)],
            [
                (1, 1, 32),
                (1, 307, 64),
                (43, 1, 96),
                (33, 65, 160),
                (130, 70, 96),
                (7, 33, 32),
                (8, 32, 64),
                (9, 129, 576),
            ],
        ];
        for (rows, columns, inner) in shapes.into_iter().flatten().filter(|(.., inner)| is_whole(*format, *inner)) {
            for with_bias in [false, true] {
                let what = format!("{label}: gemm {} {rows}x{columns}x{inner}, bias {with_bias}", format.name());
                let a = random(seed, rows * inner);
                let (packed, w) = stored(*format, &random(seed + 10, columns * inner));
                let bias = random(seed + 20, columns);
                let bias = with_bias.then_some(bias.as_slice());
                let (matrix, shards) = matrix(gpu, *format, inner as u32, &packed, bias);
                if columns == 307 {
                    assert!(shards >= least_shards, "{what}: {shards} shards");
                }
                let found = product(gpu, &matrix, &operand(gpu, &a, inner as u32), rows);
                let expected = gemm::cpu(&a, &w, inner, bias);
                assert_close(&what, &found, &expected);
                check_residual(gpu, &what, &matrix, &operand(gpu, &a, inner as u32), &expected);
                // Rows do not depend on which rows are computed beside them.
                let row = rows / 2;
                let alone = operand(gpu, &a[row * inner..(row + 1) * inner], inner as u32);
                let alone = product(gpu, &matrix, &alone, 1);
                let within = &found[row * columns..(row + 1) * columns];
                let same = alone.iter().zip(within).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{what}: row {row} alone has other bits than in the batch");
            }
        }
    }
}

/// The product added to rows 3.. of a state; what is before and after stays.
fn check_residual(gpu: &Gpu, what: &str, matrix: &Matrix, a: &Operand, product: &[f32]) {
    let columns = matrix.columns() as usize;
    let before = random(30, product.len() + 5 * columns);
    let states = gpu.upload("states", bytes(&padded(&before, columns, 0.0))).unwrap();
    let mut recording = Recording::new();
    let copy = Residual::copy(gpu, a.rows(), columns as u32).unwrap();
    let sums = gpu.readable("sums", gemm::output_bytes(gpu.gemm(), a.rows(), stride(columns as u32))).unwrap();
    let residual = Residual::new(&mut recording, &states, 3, (a.rows(), columns as u32), copy.as_ref());
    matrix.record_residual(gpu, &mut recording, a, &residual, &sums);
    block_on(gpu.submit(&recording)).unwrap();
    let count = before.len() / columns * columns.next_multiple_of(4);
    let found = unpadded(&block_on(gpu.read(&states, count)).unwrap(), columns);
    let mut expected = before.clone();
    expected[3 * columns..].iter_mut().zip(product).for_each(|(state, branch)| *state += branch);
    assert_close(&format!("{what}, added to states"), &found, &expected);
    let rows = 3 * columns..3 * columns + product.len();
    assert!(found[..rows.start] == before[..rows.start], "{what}: rows before it changed");
    assert!(found[rows.end..] == before[rows.end..], "{what}: rows after it changed");
}

fn check_embedding(gpu: &Gpu, label: &str, formats: &[WeightFormat]) {
    let tokens: Vec<u32> = (0..43).map(|i| i * 101 % 307).chain([0, 306]).collect();
    for format in formats {
        for columns in [1, 50, 72, 131, 32, 96, 160].into_iter().filter(|columns| is_whole(*format, *columns)) {
            let (packed, table) = stored(*format, &random(3, 307 * columns));
            let (matrix, _) = matrix(gpu, *format, columns as u32, &packed, None);
            let buffer = gpu.upload("tokens", bytemuck::cast_slice(&tokens)).unwrap();
            let output = gpu.storage("rows", (tokens.len() * columns.next_multiple_of(4) * 4) as u64).unwrap();
            let mut recording = Recording::new();
            matrix.record_lookup(gpu, &mut recording, &buffer, tokens.len() as u32, 0, &output);
            block_on(gpu.submit(&recording)).unwrap();
            let found = block_on(gpu.read(&output, tokens.len() * columns.next_multiple_of(4))).unwrap();
            let found = unpadded(&found, columns);
            let mut expected = vec![0.0; tokens.len() * columns];
            embedding::cpu(&tokens, &table, columns, 0, &mut expected);
            assert_eq!(found, expected, "{label}: embedding {} of {columns} columns", format.name());
        }
    }
}

fn check_rms_norm(gpu: &Gpu, label: &str) {
    let window = 5;
    for (columns, kept, first_row, rows) in
        [(1, 5, 0, 15), (72, 5, 0, 15), (200, 4, 0, 12), (65, 4, 5, 8), (64, 1, 0, 3), (63, 5, 10, 1)]
    {
        let params = rms_norm::Params {
            rows,
            columns,
            stride: stride(columns),
            inner4: gemm::inner_texels(columns),
            first_row,
            window,
            kept,
            epsilon: 1e-5,
        };
        let input = random(4, 15 * columns as usize);
        let weight = random(5, columns as usize);
        let on_device =
            |label: &str, values| gpu.upload_readable(label, &padded(values, columns as usize, 0.0)).unwrap();
        let (x, w) = (on_device("x", &input), on_device("w", &weight));
        let output = operand_storage(gpu, rows as usize, columns as usize);
        let mut recording = Recording::new();
        let kernel = gpu.gemm();
        let bindings = [x, w, output.clone()];
        recording.dispatch(Kernel::RmsNorm { kernel }, &params, bindings, rms_norm::grid(kernel, rows), 1000);
        assert_close(
            &format!("{label}: rms_norm, {columns} columns, {kept} kept"),
            &read_operand(gpu, &recording, &output, rows as usize, columns as usize),
            &rms_norm::cpu(&params, &input, &weight),
        );
    }
}

fn check_rotary(gpu: &Gpu, label: &str) {
    for (half_dim, window, rows) in [(1, 2, 4), (12, 43, 86), (16, 7, 7), (128, 9, 18)] {
        let heads = 3;
        let params = rotary::Params { rows, stride: 4 * 2 * half_dim, heads, half_dim, window };
        let inv_freq: Vec<f32> = (0..half_dim).map(|i| 1e4f32.powf(-(i as f32) / half_dim as f32)).collect();
        let table = rotary::table(&inv_freq, 1.25, window as usize);
        let mut expected = random(6, (rows * params.stride) as usize);
        let turns = gpu.upload("table", bytemuck::cast_slice(&table)).unwrap();
        let qkv = gpu.upload("qkv", bytes(&expected)).unwrap();
        let mut recording = Recording::new();
        let grid = [groups_of_64(heads * half_dim), rows, 1];
        recording.dispatch(Kernel::Rotary, &params, [(&turns).into(), (&qkv).into()], grid, 1000);
        block_on(gpu.submit(&recording)).unwrap();
        let found = block_on(gpu.read(&qkv, expected.len())).unwrap();
        rotary::cpu(&params, &table, &mut expected);
        assert_close(&format!("{label}: rotary, half_dim {half_dim}"), &found, &expected);
    }
}

fn check_swiglu(gpu: &Gpu, label: &str) {
    for (rows, columns) in [(1, 1), (3, 100), (43, 65), (5, 257), (9, 30)] {
        // Far out, too, where exp would overflow.
        let mut gate_up: Vec<f32> = random(7, rows * 2 * columns).iter().map(|x| x * 8.0).collect();
        gate_up[0] = if columns > 1 { -200.0 } else { 2.0 };
        let packed = gemm::pack_output(gpu.gemm(), 2 * stride(columns as u32), &padded(&gate_up, columns, 0.0));
        let input = gpu.upload_readable("gate_up", &packed).unwrap();
        let output = operand_storage(gpu, rows, columns);
        let inner4 = gemm::inner_texels(columns as u32);
        let params = swiglu::Params { rows: rows as u32, stride: stride(columns as u32), inner4 };
        let kernel = gpu.gemm();
        let mut recording = Recording::new();
        let bindings = [input, output.clone()];
        recording.dispatch(Kernel::SwiGlu { kernel }, &params, bindings, params.grid(kernel), 1000);
        let found = read_operand(gpu, &recording, &output, rows, columns);
        assert_close(&format!("{label}: swiglu {rows}x{columns}"), &found, &swiglu::cpu(columns, &gate_up));
    }
}

/// The vocabulary in chunks, with targets on both sides of every boundary.
fn check_log_sum_exp(gpu: &Gpu, label: &str) {
    let (rows, vocabulary) = (9, 307);
    let logits: Vec<f32> = random(11, rows * vocabulary).iter().map(|x| x * 30.0).collect();
    let targets = [0, 63, 64, 99, 100, 101, 199, 305, 306];
    let expected = log_sum_exp::cpu(vocabulary, &logits, &targets);
    for step in [307, 100, 64, 1000, 306] {
        let targets = gpu.upload("targets", bytemuck::cast_slice(&targets)).unwrap();
        let running = gpu.storage("running", rows as u64 * 16).unwrap();
        let nll = gpu.storage("nll", rows as u64 * 4).unwrap();
        let mut recording = Recording::new();
        for first in (0..vocabulary).step_by(step) {
            let columns = step.min(vocabulary - first);
            let chunk: Vec<f32> = logits.chunks(vocabulary).flat_map(|row| row[first..][..columns].to_vec()).collect();
            let chunk = gemm::pack_output(gpu.gemm(), stride(columns as u32), &padded(&chunk, columns, 1e30));
            let chunk = gpu.upload_readable("chunk", &chunk).unwrap();
            let params = log_sum_exp::Params {
                rows: rows as u32,
                columns: columns as u32,
                stride: stride(columns as u32),
                first_token: first as u32,
                is_first: (first == 0) as u32,
                is_last: (first + columns == vocabulary) as u32,
            };
            let bindings = [chunk, (&targets).into(), (&running).into(), (&nll).into()];
            let (kernel, grid) = (gpu.gemm(), log_sum_exp::grid(gpu.gemm(), rows as u32));
            recording.dispatch(Kernel::LogSumExp { kernel }, &params, bindings, grid, 1000);
        }
        block_on(gpu.submit(&recording)).unwrap();
        let found = block_on(gpu.read(&nll, rows)).unwrap();
        assert_close(&format!("{label}: log_sum_exp in chunks of {step}"), &found, &expected);
    }
}

/// Rotary embedding and attention, which the kernels split between their shaders in different ways.
fn check_attention(gpu: &Gpu, label: &str, heads: Heads, window: u32, windows: u32) {
    let head_dim = heads.head_dim;
    let inv_freq: Vec<f32> = (0..head_dim / 2).map(|i| 1e4f32.powf(-(i as f32) / (head_dim / 2) as f32)).collect();
    let table = rotary::table(&inv_freq, 1.25, window as usize);
    let columns = ((heads.heads + 2 * heads.kv_heads) * head_dim) as usize;
    let rows = window * windows;
    let mut values: Vec<f32> = random(12, rows as usize * columns).iter().map(|x| x * 2.0).collect();
    let qkv = gemm::pack_output(gpu.gemm(), stride(columns as u32), &padded(&values, columns, 3.0));
    let qkv = gpu.upload_readable("qkv", &qkv).unwrap();
    let rope = gpu.upload_readable("table", table.as_flattened()).unwrap();
    let output_columns = (heads.heads * head_dim) as usize;
    let output = operand_storage(gpu, rows as usize, output_columns);
    let packed = heads.packed(gpu, window, windows).unwrap();
    let buffers = AttentionBuffers { rope: &rope, qkv: &qkv, packed: &packed, output: &output };
    let mut recording = Recording::new();
    heads.record(gpu, &mut recording, &buffers, window, windows);
    let found = read_operand(gpu, &recording, &output, rows as usize, output_columns);
    let turned = rotary::Params {
        rows,
        stride: columns as u32,
        heads: heads.heads + heads.kv_heads,
        half_dim: head_dim / 2,
        window,
    };
    rotary::cpu(&turned, &table, &mut values);
    let share = heads.heads / heads.kv_heads;
    let expected = attention::cpu(&values, window as usize, heads.heads as usize, share as usize, head_dim as usize);
    assert_close(&format!("{label}: attention, head_dim {head_dim}, window {window}"), &found, &expected);
}

fn check_every_attention(gpu: &Gpu, label: &str) {
    // Heads that are no whole vectors are for the tile kernel alone.
    let ragged: &[u32] = if gpu.gemm().is_panel() { &[] } else { &[6, 50] };
    for &head_dim in [24, 12, 32, 64, 40, 128, 256].iter().chain(ragged) {
        for window in [2, 43] {
            check_attention(gpu, label, Heads { heads: 4, kv_heads: 2, head_dim }, window, 2);
        }
    }
    check_attention(gpu, label, Heads { heads: 2, kv_heads: 1, head_dim: 24 }, 2048, 1);
}

#[test]
fn every_shader_agrees_with_its_cpu_twin() {
    for (label, options) in every_kernel() {
        let gpu = open(&options);
        check_embedding(&gpu, &label, &WeightFormat::ALL);
        check_rms_norm(&gpu, &label);
        check_gemm(&gpu, &label, &WeightFormat::ALL, 1);
        check_rotary(&gpu, &label);
        check_every_attention(&gpu, &label);
        check_swiglu(&gpu, &label);
        check_log_sum_exp(&gpu, &label);
        println!("{label}: {} agrees", gpu.gemm().name());
    }
}

/// The smallest shards that a kernel can be given.
#[test]
fn shards_agree_with_the_cpu_twin() {
    for (label, options) in every_kernel() {
        let gpu = open(&GpuOptions { max_binding_bytes: Some(1), ..options });
        let label = format!("{label}, one block a shard");
        let formats = [WeightFormat::Bf16, WeightFormat::Q8_0, WeightFormat::Q4_1];
        check_embedding(&gpu, &label, &formats);
        check_gemm(&gpu, &label, &formats, 5);
    }
}
