//! Every shader against its CPU twin, for every kernel choice that the default device has.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use blockpruner::gpu::{Gpu, GpuOptions, Matrix, Operand, Recording};
use blockpruner_shaders::{
    GemmKernel, Kernel, WeightFormat, attention, embedding, folded_grid, gemm, groups_of_64, log_sum_exp, residual_add,
    rms_norm, rotary, swiglu,
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
    }
}

/// A matrix in as many shards as the device's options ask for.
fn matrix(gpu: &Gpu, format: WeightFormat, inner: u32, rows: &[u8], bias: Option<&[f32]>) -> (Matrix, usize) {
    let row_bytes = inner as usize * format.bytes();
    let columns = (rows.len() / row_bytes) as u32;
    let bias = bias.map(|bias| gpu.upload("bias", bytes(bias)).unwrap());
    let mut matrix = Matrix::new(format, columns, inner, bias);
    let shards = Matrix::shards(gpu, format, columns, inner).unwrap();
    for range in &shards {
        let part = &rows[range.start as usize * row_bytes..range.end as usize * row_bytes];
        matrix.push(gpu, "weight", range.clone(), part).unwrap();
    }
    (matrix, shards.len())
}

fn product(gpu: &Gpu, matrix: &Matrix, a: &[f32]) -> Vec<f32> {
    let rows = (a.len() / matrix.inner() as usize) as u32;
    let values = gpu.upload("a", bytes(a)).unwrap();
    let output = gpu.storage("c", (rows * matrix.columns()) as u64 * 4).unwrap();
    let texels = Operand::scratch_texels(gpu.gemm(), rows, matrix.inner());
    let scratch = gpu.texture("scratch", texels, false).unwrap();
    let mut recording = Recording::new();
    let operand = Operand::record(gpu, &mut recording, &values, rows, matrix.inner(), &scratch);
    matrix.record_product(gpu, &mut recording, &operand, &output);
    block_on(gpu.submit(&recording)).unwrap();
    block_on(gpu.read(&output, (rows * matrix.columns()) as usize)).unwrap()
}

/// The least number of shards that the largest weight here must come in, so that forced sharding is really tested.
fn check_gemm(gpu: &Gpu, label: &str, formats: &[WeightFormat], least_shards: usize) {
    for (seed, format) in (1..).zip(formats) {
        for (rows, columns, inner) in
            [(1, 1, 1), (1, 307, 5), (43, 1, 7), (33, 65, 72), (130, 70, 101), (7, 33, 16), (8, 32, 8), (9, 129, 31)]
        {
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
                let found = product(gpu, &matrix, &a);
                assert_close(&what, &found, &gemm::cpu(&a, &w, inner, bias));
                // Rows do not depend on which rows are computed beside them.
                let row = rows / 2;
                let alone = product(gpu, &matrix, &a[row * inner..(row + 1) * inner]);
                let within = &found[row * columns..(row + 1) * columns];
                let same = alone.iter().zip(within).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{what}: row {row} alone has other bits than in the batch");
            }
        }
    }
}

fn check_embedding(gpu: &Gpu, label: &str, formats: &[WeightFormat]) {
    let tokens: Vec<u32> = (0..43).map(|i| i * 101 % 307).chain([0, 306]).collect();
    for format in formats {
        for columns in [1, 50, 72, 131] {
            let (packed, table) = stored(*format, &random(3, 307 * columns));
            let (matrix, _) = matrix(gpu, *format, columns as u32, &packed, None);
            let buffer = gpu.upload("tokens", bytemuck::cast_slice(&tokens)).unwrap();
            let output = gpu.storage("rows", (tokens.len() * columns * 4) as u64).unwrap();
            let mut recording = Recording::new();
            matrix.record_lookup(gpu, &mut recording, &buffer, tokens.len() as u32, 0, &output);
            block_on(gpu.submit(&recording)).unwrap();
            let found = block_on(gpu.read(&output, tokens.len() * columns)).unwrap();
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
        let params = rms_norm::Params { rows, columns, first_row, window, kept, epsilon: 1e-5 };
        let input = random(4, 15 * columns as usize);
        let weight = random(5, columns as usize);
        let buffers = [gpu.upload("x", bytes(&input)).unwrap(), gpu.upload("w", bytes(&weight)).unwrap()];
        let output = gpu.storage("y", (rows * columns) as u64 * 4).unwrap();
        let mut recording = Recording::new();
        let bindings = [(&buffers[0]).into(), (&buffers[1]).into(), (&output).into()];
        recording.dispatch(Kernel::RmsNorm, &params, bindings, folded_grid(rows), 1000);
        block_on(gpu.submit(&recording)).unwrap();
        let found = block_on(gpu.read(&output, (rows * columns) as usize)).unwrap();
        assert_close(
            &format!("{label}: rms_norm, {columns} columns, {kept} kept"),
            &found,
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

fn check_element_wise(gpu: &Gpu, label: &str) {
    for (rows, columns) in [(1, 1), (3, 100), (43, 65), (5, 257)] {
        // Far out, too, where exp would overflow.
        let mut gate_up: Vec<f32> = random(7, rows * 2 * columns).iter().map(|x| x * 8.0).collect();
        gate_up[0] = if columns > 1 { -200.0 } else { 2.0 };
        let input = gpu.upload("gate_up", bytes(&gate_up)).unwrap();
        let output = gpu.storage("y", (rows * columns) as u64 * 4).unwrap();
        let params = swiglu::Params { rows: rows as u32, columns: columns as u32 };
        let grid = [groups_of_64(columns as u32), rows as u32, 1];
        let mut recording = Recording::new();
        recording.dispatch(Kernel::SwiGlu, &params, [(&input).into(), (&output).into()], grid, 1000);
        let mut state = random(8, (rows + 2) * columns);
        let branch = random(9, rows * columns);
        let buffers = [gpu.upload("branch", bytes(&branch)).unwrap(), gpu.upload("state", bytes(&state)).unwrap()];
        let params = residual_add::Params { rows: rows as u32, columns: columns as u32, first_row: 2 };
        let bindings = [(&buffers[0]).into(), (&buffers[1]).into()];
        recording.dispatch(Kernel::ResidualAdd, &params, bindings, grid, 1000);
        block_on(gpu.submit(&recording)).unwrap();
        let found = block_on(gpu.read(&output, rows * columns)).unwrap();
        assert_close(&format!("{label}: swiglu {rows}x{columns}"), &found, &swiglu::cpu(columns, &gate_up));
        let found = block_on(gpu.read(&buffers[1], state.len())).unwrap();
        residual_add::cpu(&params, &branch, &mut state);
        assert_eq!(found, state, "{label}: residual_add {rows}x{columns}");
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
            let chunk = gpu.upload("chunk", bytes(&chunk)).unwrap();
            let params = log_sum_exp::Params {
                rows: rows as u32,
                columns: columns as u32,
                first_token: first as u32,
                is_first: (first == 0) as u32,
                is_last: (first + columns == vocabulary) as u32,
            };
            let bindings = [(&chunk).into(), (&targets).into(), (&running).into(), (&nll).into()];
            recording.dispatch(Kernel::LogSumExp, &params, bindings, folded_grid(rows as u32), 1000);
        }
        block_on(gpu.submit(&recording)).unwrap();
        let found = block_on(gpu.read(&nll, rows)).unwrap();
        assert_close(&format!("{label}: log_sum_exp in chunks of {step}"), &found, &expected);
    }
}

struct Heads {
    window: u32,
    windows: u32,
    heads: u32,
    share: u32,
    head_dim: u32,
}

/// Copies the heads from `first` to a texture as the panel kernel reads them.
fn pack_heads(
    gpu: &Gpu,
    recording: &mut Recording,
    qkv: &wgpu::Buffer,
    shape: &Heads,
    part: [u32; 3],
) -> wgpu::TextureView {
    let GemmKernel::Panel { lanes, .. } = gpu.gemm() else { unreachable!("the tile kernel reads buffers") };
    let [first, heads, group] = part;
    let params = attention::PackParams {
        window: shape.window,
        stride: (shape.heads + 2 * shape.heads / shape.share) * shape.head_dim,
        first_column: first * shape.head_dim,
        heads,
        head_dim: shape.head_dim,
        group,
        blocks: shape.window.div_ceil(group),
    };
    let texels = params.blocks * group * attention::head_texels(shape.head_dim);
    let texture = gpu.texture("heads", (texels * heads * shape.windows) as u64, false).unwrap();
    let kernel = Kernel::AttentionPack { lanes, head_dim: shape.head_dim };
    let grid = [groups_of_64(texels), heads, shape.windows];
    recording.dispatch(kernel, &params, [qkv.into(), (&texture).into()], grid, 1000);
    texture
}

fn check_attention(gpu: &Gpu, label: &str, shape: Heads) {
    let Heads { window, windows, heads, share, head_dim } = shape;
    let kv_heads = heads / share;
    let stride = (heads + 2 * kv_heads) * head_dim;
    let values: Vec<f32> = random(12, (window * windows * stride) as usize).iter().map(|x| x * 2.0).collect();
    let qkv = gpu.upload("qkv", bytes(&values)).unwrap();
    let count = (window * windows * heads * head_dim) as usize;
    let output = gpu.storage("output", count as u64 * 4).unwrap();
    let mut recording = Recording::new();
    let kernel = Kernel::Attention { kernel: gpu.gemm(), head_dim };
    let blocks = window.div_ceil(attention::block_queries(gpu.gemm(), head_dim));
    let grid = [blocks, heads, windows];
    let scale = 1.0 / (head_dim as f32).sqrt();
    match gpu.gemm() {
        GemmKernel::Tile => {
            let params = attention::TileParams { window, heads, share, head_dim, scale, first_window: 0 };
            recording.dispatch(kernel, &params, [(&qkv).into(), (&output).into()], grid, 1_000_000);
        }
        GemmKernel::Panel { lanes, .. } => {
            let parts = [[0, heads, lanes], [heads, kv_heads, 1], [heads + kv_heads, kv_heads, 1]];
            let [q, k, v] = parts.map(|part| pack_heads(gpu, &mut recording, &qkv, &shape, part));
            let params = attention::PanelParams { window, heads, share, head_dim, blocks, scale, first_window: 0 };
            let bindings = [(&q).into(), (&k).into(), (&v).into(), (&output).into()];
            recording.dispatch(kernel, &params, bindings, grid, 1_000_000);
        }
    }
    block_on(gpu.submit(&recording)).unwrap();
    let found = block_on(gpu.read(&output, count)).unwrap();
    let expected = attention::cpu(&values, window as usize, heads as usize, share as usize, head_dim as usize);
    assert_close(&format!("{label}: attention, head_dim {head_dim}, window {window}"), &found, &expected);
}

fn check_every_attention(gpu: &Gpu, label: &str) {
    for head_dim in [24, 32, 64, 40, 128, 256] {
        for window in [2, 43] {
            check_attention(gpu, label, Heads { window, windows: 2, heads: 4, share: 2, head_dim });
        }
    }
    check_attention(gpu, label, Heads { window: 2048, windows: 1, heads: 2, share: 2, head_dim: 24 });
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
        check_element_wise(&gpu, &label);
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
        check_embedding(&gpu, &label, &[WeightFormat::Bf16]);
        check_gemm(&gpu, &label, &[WeightFormat::Bf16], 5);
    }
}
