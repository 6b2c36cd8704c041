//! Every shader against its CPU twin, for every kernel choice that the default device has.

use blockpruner::gpu::{Gpu, GpuOptions};
use blockpruner::testing::{
    Attention, AttentionBuffers, CachedBuffers, HeadNorms, LogSumExp, LogSumExpBuffers, Lookup, Matrix, Norm, Operand,
    Projection, Recording, Residual, Resource, VocabularyChunk, dequantize, record_activation,
};
use blockpruner::weights::DType;
use blockpruner_shaders::attention::{Alibi, CpuAttention, Place};
use blockpruner_shaders::heads::CpuNorms;
use blockpruner_shaders::{
    Activation, Kernel, NormKind, Over, WeightFormat, activation, argmax, attention, cached, change, embedding, gemm,
    heads, log_sum_exp, norm, stride,
};
use blockpruner_tests::{assert_close, each_kernel, on_all, open, random};
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
                let scale = if with_bias { 0.75 } else { 1.0 };
                check_residual(gpu, &what, &matrix, &operand(gpu, &a, inner as u32), scale, &expected);
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

/// The product times `scale` added to rows 3.. of a state; what is before and after stays.
fn check_residual(gpu: &Gpu, what: &str, matrix: &Matrix, a: &Operand, scale: f32, product: &[f32]) {
    let columns = matrix.columns() as usize;
    let before = random(30, product.len() + 5 * columns);
    let states = gpu.upload("states", bytes(&padded(&before, columns, 0.0))).unwrap();
    let mut recording = Recording::new();
    let copy = Residual::copy(gpu, a.rows(), columns as u32).unwrap();
    let sums = gpu.readable("sums", gemm::output_bytes(gpu.gemm(), a.rows(), stride(columns as u32))).unwrap();
    let residual = Residual::new(&mut recording, &states, 3, (a.rows(), columns as u32), copy.as_ref());
    matrix.record_residual(gpu, &mut recording, a, scale, &residual, &sums);
    block_on(gpu.submit(&recording)).unwrap();
    let count = before.len() / columns * columns.next_multiple_of(4);
    let found = unpadded(&block_on(gpu.read(&states, count)).unwrap(), columns);
    let mut expected = before.clone();
    expected[3 * columns..].iter_mut().zip(product).for_each(|(state, branch)| *state += scale * branch);
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
            for scale in [1.0, 7.75] {
                let mut recording = Recording::new();
                let rows = tokens.len() as u32;
                let lookup = Lookup::Tokens { tokens: &buffer, scale };
                matrix.record_lookup(gpu, &mut recording, lookup, rows, 0, &output);
                // Positions, of which the last are beyond this part of the table.
                let (window, first) = (7, 303);
                let windows: Vec<u32> = (0..rows).map(|row| row % window).collect();
                let others: Vec<u32> = (0..rows).map(|row| row * 5 % 6).collect();
                if scale != 1.0 {
                    let lookup = Lookup::Positions { window, first };
                    matrix.record_lookup(gpu, &mut recording, lookup, rows, 0, &output);
                    let positions = &gpu.upload("positions", bytemuck::cast_slice(&others)).unwrap();
                    let lookup = Lookup::EachPosition { positions, first };
                    matrix.record_lookup(gpu, &mut recording, lookup, rows, 0, &output);
                }
                block_on(gpu.submit(&recording)).unwrap();
                let found = block_on(gpu.read(&output, tokens.len() * columns.next_multiple_of(4))).unwrap();
                let found = unpadded(&found, columns);
                let mut expected = vec![0.0; tokens.len() * columns];
                embedding::cpu(&tokens, &table, columns, 0, scale, &mut expected);
                if scale != 1.0 {
                    embedding::cpu_positions((&windows, first), &table, columns, 0, &mut expected);
                    embedding::cpu_positions((&others, first), &table, columns, 0, &mut expected);
                }
                assert_eq!(found, expected, "{label}: embedding {} of {columns} columns", format.name());
            }
        }
    }
}

fn norm_of(gpu: &Gpu, weight: &[f32], bias: Option<&[f32]>) -> Norm {
    Norm::new(gpu, "norm", weight.to_vec(), bias, EPSILON).unwrap()
}

/// Of a layer norm.
fn bias_of(kind: NormKind, columns: usize) -> Option<Vec<f32>> {
    (kind == NormKind::Layer).then(|| random(6, columns))
}

/// Of every norm here: large enough to be seen.
const EPSILON: f32 = 1e-3;

/// Rows of the residual stream, normed and as they are.
fn check_norm(gpu: &Gpu, label: &str, kind: NormKind) {
    // Of 15 rows, those from the first one on; then as many as there are indices.
    for (columns, first_row, indices) in [
        (1, 0, vec![0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]),
        (72, 0, vec![0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13]),
        (200, 3, vec![7, 0, 7, 1]),
        (65, 5, vec![0, 1, 2, 3, 5, 6, 7, 8]),
        (64, 0, vec![14, 0]),
        (63, 14, vec![0]),
    ] {
        // Around a mean that is not zero.
        let input: Vec<f32> = random(4, 15 * columns).iter().map(|x| x + 1.5).collect();
        let (weight, bias) = (random(5, columns), bias_of(kind, columns));
        let norm = norm_of(gpu, &weight, bias.as_deref());
        let states = gpu.upload("states", bytes(&padded(&input, columns, 0.0))).unwrap();
        let on_device = gpu.upload("indices", bytemuck::cast_slice(&indices)).unwrap();
        let normed = norm::cpu(&input[first_row * columns..], &weight, bias.as_deref(), EPSILON);
        let rest = 15 - first_row as u32;
        let copy = Residual::copy(gpu, rest, columns as u32).unwrap();
        let picked = indices.iter().flat_map(|row: &u32| &normed[*row as usize * columns..][..columns]);
        let picked: Vec<f32> = picked.copied().collect();
        for (what, expected) in
            [("norm", &normed[..]), ("norm of rows", &picked), ("operand", &input[input.len() - normed.len()..])]
        {
            let rows = expected.len() / columns;
            let output = operand_storage(gpu, rows, columns);
            let mut recording = Recording::new();
            let residual =
                Residual::new(&mut recording, &states, first_row as u32, (rest, columns as u32), copy.as_ref());
            let count = rows as u32;
            let operand = match what {
                "norm" => norm.record(gpu, &mut recording, &residual, count, &output),
                "operand" => residual.record_operand(gpu, &mut recording, count, columns as u32, &output),
                _ => norm.record_rows(gpu, &mut recording, &residual, &on_device, count, &output),
            };
            assert_eq!(operand.rows(), count);
            let found = read_operand(gpu, &recording, &output, rows, columns);
            assert_close(&format!("{label}: {}, {what}, {columns} columns", kind.name()), &found, expected);
        }
    }
}

/// Rows of a product, normed and added to rows 3.. of a state.
fn check_post_norm(gpu: &Gpu, label: &str, kind: NormKind) {
    for (rows, columns, scale) in [(1, 1, 1.0), (43, 72, 0.22), (9, 65, 1.0), (33, 200, -2.0)] {
        let what = format!("{label}: {} of a product, {rows}x{columns}", kind.name());
        let (product, weight, bias) = (random(8, rows * columns), random(5, columns), bias_of(kind, columns));
        let before = random(30, (rows + 5) * columns);
        let packed = gemm::pack_output(gpu.gemm(), stride(columns as u32), &padded(&product, columns, 0.0));
        let on_device = gpu.upload_readable("product", &packed).unwrap();
        let states = gpu.upload("states", bytes(&padded(&before, columns, 0.0))).unwrap();
        let sums = gemm::output_bytes(gpu.gemm(), rows as u32, stride(columns as u32));
        let sums = gpu.readable("sums", sums).unwrap();
        let copy = Residual::copy(gpu, rows as u32, columns as u32).unwrap();
        let mut recording = Recording::new();
        let residual = Residual::new(&mut recording, &states, 3, (rows as u32, columns as u32), copy.as_ref());
        let norm = norm_of(gpu, &weight, bias.as_deref());
        norm.record_residual(gpu, &mut recording, &on_device, rows as u32, scale, &residual, &sums);
        block_on(gpu.submit(&recording)).unwrap();
        let count = (rows + 5) * columns.next_multiple_of(4);
        let found = unpadded(&block_on(gpu.read(&states, count)).unwrap(), columns);
        let mut expected = before.clone();
        let normed = norm::cpu(&product, &weight, bias.as_deref(), EPSILON);
        expected[3 * columns..].iter_mut().zip(normed).for_each(|(state, normed)| *state += scale * normed);
        assert_close(&what, &found, &expected);
        let touched = 3 * columns..(3 + rows) * columns;
        assert!(found[..touched.start] == before[..touched.start], "{what}: rows before it changed");
        assert!(found[touched.end..] == before[touched.end..], "{what}: rows after it changed");
    }
}

fn check_activation(gpu: &Gpu, label: &str) {
    for (function, gated) in Activation::ALL.into_iter().flat_map(|function| [(function, false), (function, true)]) {
        for (rows, columns) in [(1, 1), (3, 100), (43, 65), (5, 257), (9, 30)] {
            let products = 1 + gated as usize;
            let mut values: Vec<f32> = random(7, rows * products * columns).iter().map(|x| x * 8.0).collect();
            values[0] = 2.0;
            // Far out, too, where exp and x^3 would overflow; squared, less far.
            if columns > 1 {
                let far = if function == Activation::ReluSquared { -1e4 } else { -1e20 };
                values[..5].copy_from_slice(&[-200.0, 50.0, far, 1e-20, 0.0]);
                values[columns..][..1].fill(200.0);
            }
            let width = products as u32 * stride(columns as u32);
            let packed = gemm::pack_output(gpu.gemm(), width, &padded(&values, columns, 0.0));
            let input = gpu.upload_readable("products", &packed).unwrap();
            let output = operand_storage(gpu, rows, columns);
            let mut recording = Recording::new();
            record_activation(gpu, &mut recording, (function, gated), columns as u32, rows as u32, &input, &output);
            let found = read_operand(gpu, &recording, &output, rows, columns);
            let what = format!("{label}: activation {}, gated: {gated}, {rows}x{columns}", function.name());
            assert_close(&what, &found, &activation::cpu(function, gated, columns, &values));
        }
    }
}

/// The vocabulary in chunks, with targets on both sides of every boundary.
fn check_log_sum_exp(gpu: &Gpu, label: &str, log_sum_exp: LogSumExp) {
    let (rows, vocabulary) = (9, 307);
    let logits: Vec<f32> = random(11, rows * vocabulary).iter().map(|x| x * 30.0).collect();
    let targets = [0, 63, 64, 99, 100, 101, 199, 305, 306];
    let meant: Vec<f32> = logits.iter().map(|logit| log_sum_exp.meant(*logit)).collect();
    let expected = log_sum_exp::cpu(vocabulary, &meant, &targets);
    for step in [307, 100, 64, 1000, 306] {
        let targets = gpu.upload("targets", bytemuck::cast_slice(&targets)).unwrap();
        let running = gpu.storage("running", rows as u64 * 16).unwrap();
        let nll = gpu.storage("nll", rows as u64 * 4).unwrap();
        let mut recording = Recording::new();
        for first in (0..vocabulary).step_by(step) {
            let columns = step.min(vocabulary - first);
            let chunk: Vec<f32> = logits.chunks(vocabulary).flat_map(|row| row[first..][..columns].to_vec()).collect();
            let chunk = gemm::pack_output(gpu.gemm(), stride(columns as u32), &padded(&chunk, columns, 1e30));
            let logits = gpu.upload_readable("chunk", &chunk).unwrap();
            let buffers = LogSumExpBuffers { logits: &logits, targets: &targets, running: &running, nll: &nll };
            let entries = VocabularyChunk {
                columns: columns as u32,
                first_token: first as u32,
                is_first: first == 0,
                is_last: first + columns == vocabulary,
            };
            log_sum_exp.record(gpu, &mut recording, &buffers, rows as u32, &entries);
        }
        block_on(gpu.submit(&recording)).unwrap();
        let found = block_on(gpu.read(&nll, rows)).unwrap();
        assert_close(&format!("{label}: {log_sum_exp:?} in chunks of {step}"), &found, &expected);
    }
}

/// Heads of which all is turned and all keys before a query are seen.
fn plain(head_dim: u32) -> Attention {
    Attention {
        heads: 4,
        kv_heads: 2,
        head_dim,
        rotated: head_dim,
        scale: 1.0 / (head_dim as f32).sqrt(),
        alibi: None,
        soft_cap: None,
        sliding_window: None,
    }
}

/// Q, K and V as a projection gives them, what they are made of, and what their twins make of them.
struct Heads {
    shape: Attention,
    over: Option<Over>,
    window: u32,
    table: Vec<[f32; 2]>,
    /// Where windows are contexts and continuations.
    places: Option<Vec<Place>>,
    values: Vec<f32>,
    norms: Option<HeadNorms>,
    expected: [Vec<f32>; 3],
}

impl Heads {
    fn new(gpu: &Gpu, shape: Attention, over: Option<Over>, window: u32, windows: u32) -> Self {
        Self::with_places(gpu, shape, over, window, windows, None)
    }

    fn with_places(
        gpu: &Gpu,
        shape: Attention,
        over: Option<Over>,
        window: u32,
        windows: u32,
        places: Option<Vec<Place>>,
    ) -> Self {
        let [heads, kv_heads, head_dim] = [shape.heads, shape.kv_heads, shape.head_dim].map(|size| size as usize);
        let half = shape.rotated / 2;
        let inv_freq: Vec<f32> = (0..half).map(|i| 1e4f32.powf(-(i as f32) / half as f32)).collect();
        // A row for each position; with places, for each row.
        let position = |row: u32| places.as_ref().map_or(row, |places| places[row as usize].position(row % window));
        let turned = if places.is_some() { window * windows } else { window };
        let table: Vec<[f32; 2]> =
            (0..turned).flat_map(|row| heads::table_row(&inv_freq, 1.25, position(row) as usize)).collect();
        let columns = (heads + 2 * kv_heads) * head_dim;
        let values = random(12, (window * windows) as usize * columns).iter().map(|x| x * 2.0).collect::<Vec<f32>>();
        let weights = over.map(|over| match over {
            Over::Head => [random(13, head_dim), random(14, head_dim)],
            Over::Row | Over::EachHead => [random(13, heads * head_dim), random(14, kv_heads * head_dim)],
        });
        let twins = over.zip(weights.as_ref());
        let twins = twins.map(|(over, [query, key])| CpuNorms { over, query, key, epsilon: EPSILON });
        let sizes = [heads, kv_heads, head_dim];
        let expected = heads::cpu(sizes, &table, shape.rotated as usize, turned as usize, twins, &values);
        let norms = over.zip(weights).map(|(over, [query, key])| HeadNorms {
            query: norm_of(gpu, &query, None),
            key: norm_of(gpu, &key, None),
            over,
        });
        Self { shape, over, window, table, places, values, norms, expected }
    }

    /// Rows `first .. first + count` of the projection and of the table, on the device.
    fn upload(&self, gpu: &Gpu, first: usize, count: usize) -> [Resource; 2] {
        let columns = ((self.shape.heads + 2 * self.shape.kv_heads) * self.shape.head_dim) as usize;
        let rows = &self.values[first * columns..][..count * columns];
        let qkv = gemm::pack_output(gpu.gemm(), self.shape.stride(), &padded(rows, columns, 3.0));
        let half = self.shape.rotated as usize / 2;
        let turned = self.places.as_ref().map_or(self.window as usize, Vec::len);
        let turns = &self.table[first % turned * half..][..count.min(turned) * half];
        // Something to bind where nothing is turned.
        let turns = [turns.as_flattened(), &[0.0; 4]].concat();
        [gpu.upload_readable("table", &turns).unwrap(), gpu.upload_readable("qkv", &qkv).unwrap()]
    }

    fn attended(&self) -> Vec<f32> {
        let Attention { heads, kv_heads, head_dim, scale, alibi, soft_cap, sliding_window, .. } = self.shape;
        let twin = CpuAttention {
            heads: heads as usize,
            kv_heads: kv_heads as usize,
            head_dim: head_dim as usize,
            scale,
            alibi,
            soft_cap,
            sliding_window: sliding_window.map(|seen| seen as usize),
        };
        let [q, k, v] = &self.expected;
        attention::cpu(&twin, self.window as usize, self.places.as_deref(), [q, k, v])
    }

    fn what(&self, label: &str) -> String {
        let Self { shape, over, window, places, .. } = self;
        let of = if places.is_some() { " of continuations" } else { "" };
        format!("{label}: {shape:?}, normed {over:?}, window {window}{of}")
    }
}

/// Heads and attention over windows.
fn check_attention(gpu: &Gpu, label: &str, shape: Attention, over: Option<Over>, window: u32, windows: u32) {
    check_heads(gpu, label, &Heads::new(gpu, shape, over, window, windows), windows);
}

/// The same over contexts and their continuations: windows of several lengths of each, the first one with continuations of a row.
fn check_continuations(gpu: &Gpu, label: &str, shape: Attention, over: Option<Over>, window: u32, windows: u32) {
    let place = |index: u32, row: u32| {
        let (context, length) = (1 + (17 * index + 3) % (window - 1), 1 + 4 * index);
        match row.checked_sub(context) {
            Some(behind) => Place { start: context + behind / length * length, context },
            None => Place::default(),
        }
    };
    let places = (0..windows).flat_map(|index| (0..window).map(move |row| place(index, row))).collect();
    check_heads(gpu, label, &Heads::with_places(gpu, shape, over, window, windows, Some(places)), windows);
}

fn check_heads(gpu: &Gpu, label: &str, heads: &Heads, windows: u32) {
    let Heads { shape, window, .. } = *heads;
    let rows = window * windows;
    let places = heads.places.as_ref().map(|places| gpu.upload("places", bytemuck::cast_slice(places)).unwrap());
    let [rope, qkv] = heads.upload(gpu, 0, rows as usize);
    let output = operand_storage(gpu, rows as usize, shape.columns() as usize);
    // Larger than needed, as where layers differ.
    let packed = shape.packed(gpu, window, windows + 1).unwrap();
    let input = Projection { rope: &rope, qkv: &qkv, norms: heads.norms.as_ref(), places: places.as_ref() };
    let mut recording = Recording::new();
    let buffers = AttentionBuffers { packed: &packed, output: &output };
    shape.record(gpu, &mut recording, &input, &buffers, window, windows);
    let found = read_operand(gpu, &recording, &output, rows as usize, shape.columns() as usize);
    assert_close(&heads.what(label), &found, &heads.attended());
}

/// The positions `past..` of a window, appended and attended to in pieces of `rows`.
fn check_cached(gpu: &Gpu, label: &str, shape: Attention, over: Option<Over>, [window, past, rows]: [u32; 3]) {
    let heads = Heads::new(gpu, shape, over, window, 1);
    let cache = shape.cache(gpu, window + 3).unwrap();
    // What stands in a cache behind its positions must not count.
    let rubbish = vec![7.0f32; shape.cache_bytes(window + 3) as usize / 4];
    for buffer in [&cache.keys, &cache.values] {
        gpu.write(&buffer.into(), bytes(&rubbish)).unwrap();
    }
    let query = gpu.storage("query", shape.query_bytes(rows)).unwrap();
    let (mut found, mut queries) = (Vec::new(), Vec::new());
    let mut first = 0;
    while first < window {
        let count = if first < past { past - first } else { rows.min(window - first) };
        let [rope, qkv] = heads.upload(gpu, first as usize, count as usize);
        let input = Projection { rope: &rope, qkv: &qkv, norms: heads.norms.as_ref(), places: None };
        let output = operand_storage(gpu, count as usize, shape.columns() as usize);
        let mut recording = Recording::new();
        if first < past {
            shape.record_append(gpu, &mut recording, &input, &cache, first, count);
            block_on(gpu.submit(&recording)).unwrap();
        } else {
            let buffers = CachedBuffers { cache: &cache, query: &query, output: &output };
            shape.record_cached(gpu, &mut recording, &input, &buffers, first, count);
            found.extend(read_operand(gpu, &recording, &output, count as usize, shape.columns() as usize));
            let words = shape.query_bytes(count) as usize / 4;
            queries.extend(block_on(gpu.read(&query, words)).unwrap());
        }
        first += count;
    }
    let what = format!("{}, {past} past, {rows} rows", heads.what(label));
    let seen = (past * shape.columns()) as usize;
    assert_close(&format!("{what}, cached"), &found, &heads.attended()[seen..]);
    let [q, k, v] = &heads.expected;
    let head_dim = shape.head_dim as usize;
    for (name, found, expected) in [
        ("Q", queries, &q[seen..]),
        ("K", block_on(gpu.read(&cache.keys, shape.cache_bytes(window) as usize / 4)).unwrap(), k),
        ("V", block_on(gpu.read(&cache.values, shape.cache_bytes(window) as usize / 4)).unwrap(), v),
    ] {
        let width = head_dim.next_multiple_of(4);
        assert!(
            found.chunks(width).all(|head| head[head_dim..].iter().all(|x| *x == 0.0)),
            "{what}: padding of {name}"
        );
        assert_close(&format!("{what}: {name}"), &unpadded(&found, head_dim), expected);
    }
}

fn check_widths(gpu: &Gpu, label: &str, head_dims: &[u32]) {
    for &head_dim in head_dims {
        for window in [2, 43] {
            check_attention(gpu, label, plain(head_dim), None, window, 2);
        }
        // One position at a time, several, and all at once; windows on both sides of a block of 64 keys.
        for shape in [[66, 60, 1], [43, 20, 7], [5, 0, 5]] {
            check_cached(gpu, label, plain(head_dim), None, shape);
        }
    }
}

fn check_long_texts(gpu: &Gpu, label: &str) {
    let long = Attention { heads: 2, kv_heads: 1, ..plain(24) };
    check_attention(gpu, label, long, None, 2048, 1);
    check_cached(gpu, label, plain(24), None, [2051, 2050, 1]);
}

/// Every way that a model may make scores, and heads that are turned in part, normed, and turned by half texels.
fn check_continuation_variants(gpu: &Gpu, label: &str) {
    for head_dim in [24, 128] {
        check_continuations(gpu, label, plain(head_dim), None, 75, 3);
    }
    check_continuations(gpu, label, Attention { rotated: 4, ..plain(24) }, Some(Over::Head), 43, 2);
    check_continuations(gpu, label, Attention { rotated: 0, ..plain(24) }, None, 17, 3);
    for (soft_cap, sliding_window) in [(None, Some(5)), (Some(1.5), Some(37))] {
        check_continuations(gpu, label, Attention { soft_cap, sliding_window, ..plain(24) }, None, 75, 2);
    }
    for (alibi, heads, sliding_window) in [(Alibi::Plain, 4, None), (Alibi::Rounded, 6, Some(37))] {
        let shape = Attention { alibi: Some(alibi), heads, rotated: 0, sliding_window, ..plain(24) };
        check_continuations(gpu, label, shape, None, 300, 2);
    }
}

#[test]
fn attention_of_continuations_agrees_with_its_cpu_twin() {
    on_all(each_kernel(), |label, options| check_continuation_variants(&open(&options), label));
}

fn check_attention_variants(gpu: &Gpu, label: &str) {
    let ragged: &[u32] = if gpu.gemm().is_panel() { &[] } else { &[50] };
    for &head_dim in [24, 64].iter().chain(ragged) {
        // Turned in part, by halves that are whole vectors and by others, and not at all. A variant is compiled for each, which
        // takes longer than running it.
        let (whole, other) = (head_dim / 16 * 8, head_dim / 4 * 2);
        let all =
            [(0, None), (0, Some(Over::Head)), (whole, None), (other, Some(Over::Row)), (head_dim, Some(Over::Head))];
        for (rotated, over) in all {
            let shape = Attention { rotated, scale: 0.3, ..plain(head_dim) };
            check_attention(gpu, label, shape, over, 43, 2);
            check_cached(gpu, label, shape, over, [43, 20, 7]);
        }
        let shape = Attention { scale: 0.3, ..plain(head_dim) };
        check_attention(gpu, label, shape, Some(Over::Row), 43, 2);
        for rotated in [0, whole] {
            let shape = Attention { rotated, ..shape };
            check_attention(gpu, label, shape, Some(Over::EachHead), 43, 2);
            check_cached(gpu, label, shape, Some(Over::EachHead), [43, 20, 7]);
        }
    }
    for &head_dim in [24, 128].iter().chain(ragged) {
        // Windows shorter and longer than the text, and no multiple of a block.
        let windows = [Some(1), Some(5), Some(16), Some(37), Some(100)];
        let sliding = windows.map(|seen| (None, seen)).into_iter();
        for (soft_cap, sliding_window) in sliding.chain([(Some(1.5), None), (Some(1.5), Some(37))]) {
            let shape = Attention { soft_cap, sliding_window, ..plain(head_dim) };
            check_attention(gpu, label, shape, None, 75, 2);
            check_cached(gpu, label, shape, None, [140, 120, 20]);
        }
        // Head counts that are a power of two and not, and positions that bf16 does not have.
        for (alibi, heads, sliding_window) in
            [(Alibi::Plain, 4, None), (Alibi::Rounded, 6, None), (Alibi::Plain, 6, Some(37))]
        {
            let shape = Attention { alibi: Some(alibi), heads, rotated: 0, sliding_window, ..plain(head_dim) };
            check_attention(gpu, label, shape, None, 300, 2);
            check_cached(gpu, label, shape, None, [300, 280, 20]);
        }
    }
    for (soft_cap, sliding_window) in [(Some(2.0), None), (Some(2.0), Some(1000)), (None, Some(333))] {
        let long = Attention { heads: 2, kv_heads: 1, soft_cap, sliding_window, ..plain(24) };
        check_attention(gpu, label, long, Some(Over::Head), 2048, 1);
        check_cached(gpu, label, long, Some(Over::Head), [2051, 2050, 1]);
    }
}

fn check_argmax(gpu: &Gpu, label: &str) {
    let vocabulary = 307;
    let mut texts: Vec<Vec<f32>> = (0..4).map(|seed| random(seed, vocabulary)).collect();
    // Ties within a chunk, over lanes and over chunks; all negative; the first and the last; all alike.
    for (at, value) in [(vec![7, 71, 150, 300], 5.0), (vec![306], 9.0), (vec![0], 9.0), (vec![64, 65], 2.0)] {
        let mut logits: Vec<f32> = random(40, vocabulary).iter().map(|x| x - 20.0).collect();
        at.into_iter().for_each(|index: usize| logits[index] = value);
        texts.push(logits);
    }
    texts.push(vec![-1.0; vocabulary]);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut logits = random(41, vocabulary);
        logits[200] = bad;
        texts.push(logits);
    }
    for (text, logits) in texts.iter().enumerate() {
        for step in [307, 100, 64, 306] {
            let best = gpu.storage("best", 16).unwrap();
            let mut recording = Recording::new();
            for first in (0..vocabulary).step_by(step) {
                let chunk = &logits[first..(first + step).min(vocabulary)];
                // What stands behind a chunk's logits must not count.
                let mut padded = [chunk, &[1e30; 5]].concat();
                padded.resize(padded.len().next_multiple_of(4), 1e30);
                let padded = gemm::pack_output(gpu.gemm(), padded.len() as u32, &padded);
                let padded = gpu.upload_readable("chunk", &padded).unwrap();
                let is_first = (first == 0) as u32;
                let params = argmax::Params { columns: chunk.len() as u32, first_token: first as u32, is_first };
                let kernel = Kernel::Argmax { kernel: gpu.gemm() };
                recording.dispatch(kernel, &params, [padded, (&best).into()], [1, 1, 1], 1000);
            }
            block_on(gpu.submit(&recording)).unwrap();
            let best = block_on(gpu.read(&best, 3)).unwrap();
            let found = (best[2] == 0.0).then_some(best[1] as u32);
            assert_eq!(found, argmax::cpu(logits), "{label}: text {text} in chunks of {step}");
        }
    }
}

/// Rows of one element, of fewer than a workgroup, of more, and more rows than one dimension of a grid.
fn check_change(gpu: &Gpu, label: &str) {
    for (rows, columns) in [(3, 1), (5, 50), (7, 579), (33_000, 6)] {
        let padded = stride(columns as u32) as usize;
        let states = |seed| -> Vec<f32> { random(seed, rows * columns) };
        // What stands behind the columns must not count.
        let upload = |values: &[f32]| {
            let rows = values.chunks(columns).flat_map(|row| row.iter().copied().chain(vec![1e9; padded - columns]));
            gpu.upload("states", bytes(&rows.collect::<Vec<_>>())).unwrap()
        };
        let (before, after) = (states(7), states(8));
        let output = gpu.storage("changes", rows as u64 * 16).unwrap();
        let params = change::Params { rows: rows as u32, columns: columns as u32, stride: padded as u32 };
        let bindings = [(&upload(&before)).into(), (&upload(&after)).into(), (&output).into()];
        let mut recording = Recording::new();
        recording.dispatch(Kernel::Change, &params, bindings, params.grid(), 1000);
        block_on(gpu.submit(&recording)).unwrap();
        let found = block_on(gpu.read(&output, rows * 4)).unwrap();
        let expected = change::cpu(&before, &after, columns);
        assert_close(&format!("{label}: changes of {rows} rows of {columns}"), &found, expected.as_flattened());
    }
}

#[test]
fn every_shader_agrees_with_its_cpu_twin() {
    on_all(each_kernel(), |label, options| {
        let gpu = open(&options);
        check_embedding(&gpu, label, &WeightFormat::ALL);
        for kind in NormKind::ALL {
            check_norm(&gpu, label, kind);
            check_post_norm(&gpu, label, kind);
        }
        check_gemm(&gpu, label, &[WeightFormat::Bf16, WeightFormat::Q4_1], 1);
        check_widths(&gpu, label, &[24, 128]);
        check_long_texts(&gpu, label);
        check_activation(&gpu, label);
        for (scale, soft_cap) in [(1.0, None), (0.1, None), (1.0, Some(10.0)), (0.7, Some(30.0))] {
            check_log_sum_exp(&gpu, label, LogSumExp { scale, soft_cap });
        }
        check_argmax(&gpu, label);
        check_change(&gpu, label);
        println!("{label}: {} agrees", gpu.gemm().name());
    });
}

/// The other formats of weights, widths of heads and kinds of attention.
#[test]
fn every_variant_of_a_shader_agrees_with_its_cpu_twin() {
    on_all(each_kernel(), |label, options| {
        let gpu = open(&options);
        let formats = [WeightFormat::F32, WeightFormat::F16, WeightFormat::Q8_0, WeightFormat::Q4_0];
        check_gemm(&gpu, label, &formats, 1);
        check_widths(&gpu, label, &[12, 32, 64, 40, 256]);
        if !gpu.gemm().is_panel() {
            // Heads that are no whole vectors are for the tile kernel alone.
            check_widths(&gpu, label, &[6, 50]);
        }
        check_attention_variants(&gpu, label);
        println!("{label}: {} agrees", gpu.gemm().name());
    });
}

/// The most positions that there can be, with the heads that take the most iterations: software drivers end a loop
/// after 65,535 of them without a word.
#[test]
fn the_longest_cache_is_read_to_its_end() {
    let gpu = open(&GpuOptions::default());
    let (positions, head_dim) = (cached::MOST_POSITIONS, 256);
    let shape = Attention { heads: 1, kv_heads: 1, rotated: 0, ..plain(head_dim) };
    let width = head_dim as usize;
    let query: Vec<f32> = random(50, width).iter().map(|x| x * 4.0).collect();
    let [keys, values] = [51, 52].map(|seed| random(seed, positions as usize * width));
    let cache = shape.cache(&gpu, positions).unwrap();
    gpu.write(&(&cache.keys).into(), bytes(&keys)).unwrap();
    gpu.write(&(&cache.values).into(), bytes(&values)).unwrap();
    // The last position is the new one.
    let last = |rows: &[f32]| rows[rows.len() - width..].to_vec();
    let qkv = gemm::pack_output(gpu.gemm(), shape.stride(), &[query.clone(), last(&keys), last(&values)].concat());
    let qkv = gpu.upload_readable("qkv", &qkv).unwrap();
    let rope = gpu.upload_readable("table", &[0.0; 4]).unwrap();
    let on_device = gpu.storage("query", shape.query_bytes(1)).unwrap();
    let output = operand_storage(&gpu, 1, width);
    let input = Projection { rope: &rope, qkv: &qkv, norms: None, places: None };
    let buffers = CachedBuffers { cache: &cache, query: &on_device, output: &output };
    let mut recording = Recording::new();
    shape.record_cached(&gpu, &mut recording, &input, &buffers, positions - 1, 1);
    let found = read_operand(&gpu, &recording, &output, 1, width);

    let score = |key: &[f32]| (key.iter().zip(&query).map(|(k, q)| k * q).sum::<f32>() * shape.scale) as f64;
    let weights: Vec<f64> = keys.chunks(width).map(|key| score(key).exp()).collect();
    let mut expected = vec![0.0f64; width];
    for (weight, value) in weights.iter().zip(values.chunks(width)) {
        expected.iter_mut().zip(value).for_each(|(sum, x)| *sum += weight * *x as f64);
    }
    let total: f64 = weights.iter().sum();
    let expected: Vec<f32> = expected.iter().map(|sum| (sum / total) as f32).collect();
    assert_close("cached attention to the longest cache", &found, &expected);
}

/// The smallest shards that a kernel can be given.
#[test]
fn shards_agree_with_the_cpu_twin() {
    on_all(each_kernel(), |label, options| {
        let gpu = open(&options.max_binding_bytes(1));
        let label = format!("{label}, one block a shard");
        let formats = [WeightFormat::Bf16, WeightFormat::Q8_0, WeightFormat::Q4_1];
        check_embedding(&gpu, &label, &formats);
        check_gemm(&gpu, &label, &formats, 5);
    });
}
