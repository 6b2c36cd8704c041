//! The kernels that a device is about to use, against their CPU twins: drivers exist that compute wrong values silently.

use blockpruner_shaders::attention::{self, CpuAttention, Place};
use blockpruner_shaders::heads::{self, CpuNorms};
use blockpruner_shaders::{Activation, GemmKernel, NormKind, Over, WeightFormat, activation, gemm, norm, stride};
use half::{bf16, f16};

use super::{
    Attention, AttentionBuffers, AttentionNeed, Gpu, GpuError, HeadNorms, KernelNeeds, LogSumExp, LogSumExpBuffers,
    Matrix, Norm, Operand, Projection, Recording, Residual, VocabularyChunk, record_activation,
};

/// The largest difference from the twin, relative to the largest value, that rounding and another order of summation explain.
const TOLERANCE: f32 = 1e-4;

/// Changes what the device computed, so that tests see what a disagreement does; told the kernel and what it computed.
pub(super) type Distort = fn(GemmKernel, &str, &mut [f32]);

/// Why a kernel is not to be used.
pub(super) enum Failure {
    /// It differs from its twin: where, and by how much.
    Disagrees(String),
    /// It does not run at all.
    Fails(GpuError),
}

impl From<GpuError> for Failure {
    fn from(error: GpuError) -> Self {
        Self::Fails(error)
    }
}

/// Compares the GEMM kernel in use for each format that is needed, and every other kernel that is.
pub(super) async fn run(gpu: &Gpu, needs: &KernelNeeds, distort: Distort) -> Result<(), Failure> {
    for format in WeightFormat::ALL.into_iter().filter(|format| needs.formats.contains(format)) {
        check_gemm(gpu, format, distort).await?;
    }
    let Some(format) = needs.formats.first() else { return Ok(()) };
    // What they write is seen by a product that shall not round.
    let format = if format.is_quantised() { WeightFormat::F32 } else { *format };
    for kind in NormKind::ALL {
        if needs.norms.contains(&kind) {
            check_norm(gpu, kind, format, distort).await?;
        }
        if needs.post_norms.contains(&kind) {
            check_post_norm(gpu, kind, distort).await?;
        }
    }
    if needs.no_norm {
        check_operand(gpu, format, distort).await?;
    }
    for activation in Activation::ALL.into_iter().flat_map(|function| [(function, false), (function, true)]) {
        if needs.activations.contains(&activation) {
            check_activation(gpu, activation, format, distort).await?;
        }
    }
    check_log_sum_exp(gpu, needs.soft_capped_logits, distort).await?;
    for (index, need) in needs.attention.iter().enumerate() {
        if !needs.attention[..index].contains(need) {
            check_attention(gpu, need, false, format, distort).await?;
        }
    }
    Ok(())
}

/// Compares attention to a context and one of several continuations, which few programs use.
pub(super) async fn run_continuations(gpu: &Gpu, needs: &[AttentionNeed], distort: Distort) -> Result<(), Failure> {
    for (index, need) in needs.iter().enumerate() {
        if !needs[..index].contains(need) {
            check_attention(gpu, need, true, WeightFormat::F32, distort).await?;
        }
    }
    Ok(())
}

/// Windows of different contexts, of less than `block` rows and a few more, and continuations of 7 rows.
fn continuation_places(block: u32, window: u32, windows: u32) -> Vec<Place> {
    let place = |first: u32, row: u32| match row.checked_sub(first) {
        Some(behind) => Place { start: first + behind / 7 * 7, context: first },
        None => Place::default(),
    };
    (0..windows).flat_map(|index| (0..window).map(move |row| place((block - 2 + 3 * index).max(1), row))).collect()
}

/// A residual product with a bias: three blocks of rows and of columns, the last ones partly filled, and a k of many steps
/// that is no multiple of any, unless it has to be whole blocks.
async fn check_gemm(gpu: &Gpu, format: WeightFormat, distort: Distort) -> Result<(), Failure> {
    let (kernel, first_row) = (gpu.gemm(), 3);
    let inner = if format.is_quantised() { 7 * format.block_elements() } else { 203 };
    let rows = 2 * gemm::block_rows(kernel) + 5;
    let columns = 2 * gemm::block_columns(kernel) + 3;
    let width = stride(columns) as usize;
    let a = values(1, (rows * inner) as usize);
    let (stored, w) = rounded(format, &values(2, (columns * inner) as usize));
    let bias = values(3, columns as usize);
    let before = values(4, (first_row + rows) as usize * width);

    let operand = gpu.upload_readable("self-test", &gemm::pack_operand(kernel, inner, &a))?;
    let mut padded = bias.clone();
    padded.resize(width, 0.0);
    let on_device = gpu.upload("self-test", bytemuck::cast_slice(&padded))?;
    let matrix = matrix(gpu, format, [columns, inner], &stored, Some(on_device))?;
    let states = gpu.upload("self-test", bytemuck::cast_slice(&before))?;
    let mut recording = Recording::new();
    let sums = gpu.readable("self-test", gemm::output_bytes(kernel, rows, width as u32))?;
    let copy = Residual::copy(gpu, rows, columns)?;
    let residual = Residual::new(&mut recording, &states, first_row, (rows, columns), copy.as_ref());
    matrix.record_residual(gpu, &mut recording, &Operand::new(&operand, rows), SCALE, &residual, &sums);
    gpu.submit(&recording).await?;
    let mut found = gpu.read(&states, before.len()).await?;

    let product = gemm::cpu(&a, &w, inner as usize, Some(&bias));
    let mut expected = before;
    let touched = expected.chunks_mut(width).skip(first_row as usize);
    for (row, product) in touched.zip(product.chunks(columns as usize)) {
        row.iter_mut().zip(product).for_each(|(state, product)| *state += SCALE * product);
    }
    // What the padding of a row holds afterwards is nobody's concern.
    for rows in [&mut found, &mut expected] {
        rows.chunks_mut(width).for_each(|row| row[columns as usize..].fill(0.0));
    }
    let what = format!("the product of {rows} x {inner} with {} weights", format.name());
    distort(kernel, &what, &mut found);
    compare(kernel, &what, &found, &expected)
}

/// Rows, and elements of one, that no workgroup divides evenly.
const ROWS: u32 = 37;
const COLUMNS: u32 = 203;

/// What is added is multiplied by this.
const SCALE: f32 = 0.75;

/// The norm of neighbouring rows, and of the first of every two.
async fn check_norm(gpu: &Gpu, kind: NormKind, format: WeightFormat, distort: Distort) -> Result<(), Failure> {
    let kernel = gpu.gemm();
    let input = values(6, (2 * ROWS * COLUMNS) as usize);
    let (norm, normed) = normed(gpu, kind, &input)?;
    let states = gpu.upload("self-test", bytemuck::cast_slice(&padded(&input)))?;
    let copy = Residual::copy(gpu, 2 * ROWS, COLUMNS)?;
    let output = gpu.readable("self-test", gemm::operand_bytes(kernel, ROWS, COLUMNS))?;
    let indices: Vec<u32> = (0..ROWS).map(|row| 2 * row).collect();
    let indices = gpu.upload("self-test", bytemuck::cast_slice(&indices))?;
    let what = format!("the {}", kind.name());
    for step in [1, 2] {
        let mut recording = Recording::new();
        let residual = Residual::new(&mut recording, &states, 0, (2 * ROWS, COLUMNS), copy.as_ref());
        let operand = match step {
            1 => norm.record(gpu, &mut recording, &residual, ROWS, &output),
            _ => norm.record_rows(gpu, &mut recording, &residual, &indices, ROWS, &output),
        };
        let mut found = read_operand(gpu, recording, &operand, COLUMNS, format).await?;
        distort(kernel, &what, &mut found);
        let rows = normed.chunks(COLUMNS as usize).step_by(step).take(ROWS as usize);
        compare(kernel, &what, &found, &rows.flatten().copied().collect::<Vec<f32>>())?;
    }
    Ok(())
}

/// Rows of a product, normed and added to the last rows of a state.
async fn check_post_norm(gpu: &Gpu, kind: NormKind, distort: Distort) -> Result<(), Failure> {
    let (kernel, first_row, columns) = (gpu.gemm(), 3, COLUMNS as usize);
    let product = values(10, (ROWS * COLUMNS) as usize);
    let (norm, normed) = normed(gpu, kind, &product)?;
    let on_device = gpu.upload_readable("self-test", &gemm::pack_output(kernel, stride(COLUMNS), &padded(&product)))?;
    let before = values(11, (first_row + ROWS) as usize * columns);
    let states = gpu.upload("self-test", bytemuck::cast_slice(&padded(&before)))?;
    let copy = Residual::copy(gpu, ROWS, COLUMNS)?;
    let sums = gpu.readable("self-test", gemm::output_bytes(kernel, ROWS, stride(COLUMNS)))?;
    let mut recording = Recording::new();
    let residual = Residual::new(&mut recording, &states, first_row, (ROWS, COLUMNS), copy.as_ref());
    norm.record_residual(gpu, &mut recording, &on_device, ROWS, SCALE, &residual, &sums);
    gpu.submit(&recording).await?;
    let found = gpu.read(&states, padded(&before).len()).await?;
    let mut found: Vec<f32> = found.chunks(stride(COLUMNS) as usize).flat_map(|row| &row[..columns]).copied().collect();
    let mut expected = before;
    let touched = expected[first_row as usize * columns..].iter_mut();
    touched.zip(normed).for_each(|(state, normed)| *state += SCALE * normed);
    let what = format!("the {} of a product", kind.name());
    distort(kernel, &what, &mut found);
    compare(kernel, &what, &found, &expected)
}

/// Rows that are not normed.
async fn check_operand(gpu: &Gpu, format: WeightFormat, distort: Distort) -> Result<(), Failure> {
    let kernel = gpu.gemm();
    // Numbers that no format rounds.
    let input: Vec<f32> = values(12, (ROWS * COLUMNS) as usize).iter().map(|value| (64.0 * value).round()).collect();
    let states = gpu.upload("self-test", bytemuck::cast_slice(&padded(&input)))?;
    let copy = Residual::copy(gpu, ROWS, COLUMNS)?;
    let output = gpu.readable("self-test", gemm::operand_bytes(kernel, ROWS, COLUMNS))?;
    let mut recording = Recording::new();
    let residual = Residual::new(&mut recording, &states, 0, (ROWS, COLUMNS), copy.as_ref());
    let operand = residual.record_operand(gpu, &mut recording, ROWS, COLUMNS, &output);
    let mut found = read_operand(gpu, recording, &operand, COLUMNS, format).await?;
    let what = "the left side of a product";
    distort(kernel, what, &mut found);
    compare(kernel, what, &found, &input)
}

/// Added to mean squares and variances.
const EPSILON: f32 = 1e-5;

/// A norm over rows of [`COLUMNS`] elements, and what its twin makes of `input`.
fn normed(gpu: &Gpu, kind: NormKind, input: &[f32]) -> Result<(Norm, Vec<f32>), GpuError> {
    let weight = values(7, COLUMNS as usize);
    let bias = (kind == NormKind::Layer).then(|| values(15, COLUMNS as usize));
    let normed = norm::cpu(input, &weight, bias.as_deref(), EPSILON);
    Ok((Norm::new(gpu, "self-test", weight, bias.as_deref(), EPSILON)?, normed))
}

async fn check_activation(
    gpu: &Gpu,
    (function, gated): (Activation, bool),
    format: WeightFormat,
    distort: Distort,
) -> Result<(), Failure> {
    let (kernel, products) = (gpu.gemm(), 1 + gated as u32);
    let input: Vec<f32> = values(8, (ROWS * products * COLUMNS) as usize).iter().map(|value| 8.0 * value).collect();
    // Gate and up each are padded to whole vectors.
    let packed = gemm::pack_output(kernel, products * stride(COLUMNS), &padded(&input));
    let on_device = gpu.upload_readable("self-test", &packed)?;
    let output = gpu.readable("self-test", gemm::operand_bytes(kernel, ROWS, COLUMNS))?;
    let mut recording = Recording::new();
    let operand = record_activation(gpu, &mut recording, (function, gated), COLUMNS, ROWS, &on_device, &output);
    let mut found = read_operand(gpu, recording, &operand, COLUMNS, format).await?;
    let what = format!("the activation {}", function.name());
    distort(kernel, &what, &mut found);
    compare(kernel, &what, &found, &activation::cpu(function, gated, COLUMNS as usize, &input))
}

/// The vocabulary in two chunks; every target lies in one of them.
async fn check_log_sum_exp(gpu: &Gpu, soft_cap: bool, distort: Distort) -> Result<(), Failure> {
    let (kernel, vocabulary) = (gpu.gemm(), 2 * COLUMNS);
    let logits: Vec<f32> = values(9, (ROWS * vocabulary) as usize).iter().map(|value| 16.0 * value).collect();
    let targets: Vec<u32> = (0..ROWS).map(|row| row * 101 % vocabulary).collect();
    let on_device = gpu.upload("self-test", bytemuck::cast_slice(&targets))?;
    let (running, nll) = (gpu.storage("self-test", ROWS as u64 * 16)?, gpu.storage("self-test", ROWS as u64 * 4)?);
    let log_sum_exp = LogSumExp { scale: SCALE, soft_cap: soft_cap.then_some(8.0) };
    let mut recording = Recording::new();
    for chunk in 0..2 {
        let first_token = chunk * COLUMNS;
        let part = logits.chunks(vocabulary as usize).flat_map(|row| &row[first_token as usize..][..COLUMNS as usize]);
        let part = padded(&part.copied().collect::<Vec<f32>>());
        let part = gpu.upload_readable("self-test", &gemm::pack_output(kernel, stride(COLUMNS), &part))?;
        let buffers = LogSumExpBuffers { logits: &part, targets: &on_device, running: &running, nll: &nll };
        let chunk = VocabularyChunk { columns: COLUMNS, first_token, is_first: chunk == 0, is_last: chunk == 1 };
        log_sum_exp.record(gpu, &mut recording, &buffers, ROWS, &chunk);
    }
    gpu.submit(&recording).await?;
    let mut found = gpu.read(&nll, ROWS as usize).await?;
    let what = "the negative log-likelihood";
    distort(kernel, what, &mut found);
    let logits: Vec<f32> = logits.iter().map(|logit| log_sum_exp.meant(*logit)).collect();
    compare(kernel, what, &found, &blockpruner_shaders::log_sum_exp::cpu(vocabulary as usize, &logits, &targets))
}

/// Rows of [`COLUMNS`] elements, padded to whole vectors.
fn padded(values: &[f32]) -> Vec<f32> {
    let mut rows = Vec::new();
    for row in values.chunks(COLUMNS as usize) {
        rows.extend_from_slice(row);
        rows.resize(rows.len().next_multiple_of(4), 0.0);
    }
    rows
}

/// Two windows of three blocks of queries, the last one partly filled; two query heads share a key head. The result is
/// seen by a product with the identity, which changes nothing, in `format`.
async fn check_attention(
    gpu: &Gpu,
    need: &AttentionNeed,
    continuations: bool,
    format: WeightFormat,
    distort: Distort,
) -> Result<(), Failure> {
    let AttentionNeed { head_dim, rotated, over, alibi, soft_cap, sliding } = *need;
    let (kernel, windows, [heads, kv_heads]) = (gpu.gemm(), 2, [2, 1]);
    let block = attention::block_queries(kernel, head_dim);
    let window = 2 * block + 3;
    let rows = window * windows;
    let shape = Attention {
        heads,
        kv_heads,
        head_dim,
        rotated,
        scale: 1.0 / (head_dim as f32).sqrt(),
        alibi,
        soft_cap: soft_cap.then_some(2.0),
        sliding_window: sliding.then_some(block + 1),
    };
    let (width, columns) = (shape.stride() as usize, ((heads + 2 * kv_heads) * head_dim) as usize);
    let mut qkv = values(5, rows as usize * width);
    // Larger than in the product, so that the softmax is not flat.
    qkv.iter_mut().for_each(|value| *value *= 2.0);
    let frequencies: Vec<f32> = (0..rotated / 2).map(|i| 1e4f32.powf(-2.0 * i as f32 / rotated as f32)).collect();
    let places = continuations.then(|| continuation_places(block, window, windows));
    // A row for each position; with places, for each row.
    let position = |row: u32| places.as_ref().map_or(row, |places| places[row as usize].position(row % window));
    let turned = if places.is_some() { rows } else { window };
    let table: Vec<[f32; 2]> =
        (0..turned).flat_map(|row| heads::table_row(&frequencies, 1.0, position(row) as usize)).collect();
    let weights = over.map(|over| {
        let columns = |heads: u32| match over {
            Over::Head => head_dim,
            Over::Row | Over::EachHead => heads * head_dim,
        };
        [values(13, columns(heads) as usize), values(14, columns(kv_heads) as usize)]
    });
    let norms = match (over, &weights) {
        (Some(over), Some([query, key])) => {
            let norm = |weight: &[f32]| Norm::new(gpu, "self-test", weight.to_vec(), None, EPSILON);
            Some(HeadNorms { query: norm(query)?, key: norm(key)?, over })
        }
        _ => None,
    };

    let output = gpu.readable("self-test", gemm::operand_bytes(kernel, rows, shape.columns()))?;
    // Without anything that is turned, too, there is something to be bound.
    let rope = gpu.upload_readable("self-test", &[table.as_flattened(), &[0.0; 4]].concat())?;
    let on_device = gpu.upload_readable("self-test", &gemm::pack_output(kernel, shape.stride(), &qkv))?;
    let packed = shape.packed(gpu, window, windows)?;
    let uploaded = places.as_ref().map(|places| gpu.upload("self-test", bytemuck::cast_slice(places))).transpose()?;
    let input = Projection { rope: &rope, qkv: &on_device, norms: norms.as_ref(), places: uploaded.as_ref() };
    let buffers = AttentionBuffers { packed: &packed, output: &output };
    let mut recording = Recording::new();
    let operand = shape.record(gpu, &mut recording, &input, &buffers, window, windows);
    let mut found = read_operand(gpu, recording, &operand, shape.columns(), format).await?;

    // The twins know no padding of rows.
    let qkv: Vec<f32> = qkv.chunks(width).flat_map(|row| &row[..columns]).copied().collect();
    let norms = over.zip(weights.as_ref());
    let norms = norms.map(|(over, [query, key])| CpuNorms { over, query, key, epsilon: EPSILON });
    let sizes = [heads, kv_heads, head_dim].map(|size| size as usize);
    let [q, k, v] = heads::cpu(sizes, &table, rotated as usize, turned as usize, norms, &qkv);
    let twin = CpuAttention {
        heads: sizes[0],
        kv_heads: sizes[1],
        head_dim: sizes[2],
        scale: shape.scale,
        alibi,
        soft_cap: shape.soft_cap,
        sliding_window: shape.sliding_window.map(|seen| seen as usize),
    };
    let expected = attention::cpu(&twin, window as usize, places.as_deref(), [&q, &k, &v]);
    let of = if places.is_some() { " of continuations" } else { "" };
    let what = format!("attention{of} over heads of {head_dim}");
    distort(kernel, &what, &mut found);
    compare(kernel, &what, &found, &expected)
}

/// The values of an operand after a recording.
async fn read_operand(
    gpu: &Gpu,
    mut recording: Recording,
    operand: &Operand,
    inner: u32,
    format: WeightFormat,
) -> Result<Vec<f32>, GpuError> {
    let (rows, width) = (operand.rows() as usize, stride(inner) as usize);
    let bytes = gemm::output_bytes(gpu.gemm(), rows as u32, width as u32);
    let result = gpu.readable("self-test", bytes)?;
    let mut ones = vec![0.0; (inner * inner) as usize];
    ones.iter_mut().step_by(inner as usize + 1).for_each(|value| *value = 1.0);
    let (identity, _) = rounded(format, &ones);
    matrix(gpu, format, [inner, inner], &identity, None)?.record_product(gpu, &mut recording, operand, &result);
    gpu.submit(&recording).await?;
    let found = gpu.read(&result, bytes as usize / 4).await?;
    let found = gemm::unpack_output(gpu.gemm(), rows as u32, width as u32, &found);
    Ok(found.chunks(width).flat_map(|row| &row[..inner as usize]).copied().collect())
}

fn matrix(
    gpu: &Gpu,
    format: WeightFormat,
    [columns, inner]: [u32; 2],
    rows: &[u8],
    bias: Option<wgpu::Buffer>,
) -> Result<Matrix, GpuError> {
    let mut matrix = Matrix::new(format, columns, inner, bias);
    let row_bytes = format.row_bytes(inner);
    for range in Matrix::shards(gpu, format, columns, inner)? {
        let part = &rows[range.start as usize * row_bytes..range.end as usize * row_bytes];
        matrix.push(gpu, "self-test", range, part)?;
    }
    Ok(matrix)
}

fn compare(kernel: GemmKernel, what: &str, found: &[f32], expected: &[f32]) -> Result<(), Failure> {
    let largest = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    // NaN is no agreement.
    let agrees = |(found, expected): (&f32, &f32)| (found - expected).abs() <= TOLERANCE * largest;
    match found.iter().zip(expected).position(|pair| !agrees(pair)) {
        None => Ok(()),
        Some(at) => Err(Failure::Disagrees(format!(
            "the kernel {} computes {what} wrongly (value {at} is {}, it should be {})",
            kernel.name(),
            found[at],
            expected[at]
        ))),
    }
}

/// The elements as a checkpoint stores them, and what they are worth after rounding.
fn rounded(format: WeightFormat, values: &[f32]) -> (Vec<u8>, Vec<f32>) {
    match format {
        WeightFormat::F32 => (bytemuck::cast_slice(values).to_vec(), values.to_vec()),
        WeightFormat::F16 => {
            let halves: Vec<f16> = values.iter().map(|value| f16::from_f32(*value)).collect();
            (bytemuck::cast_slice(&halves).to_vec(), halves.iter().map(|half| half.to_f32()).collect())
        }
        WeightFormat::Bf16 => {
            let halves: Vec<bf16> = values.iter().map(|value| bf16::from_f32(*value)).collect();
            (bytemuck::cast_slice(&halves).to_vec(), halves.iter().map(|half| half.to_f32()).collect())
        }
        WeightFormat::Q8_0 | WeightFormat::Q4_0 | WeightFormat::Q4_1 => quantised(format, values),
    }
}

/// Values in -1..1, whole blocks of them, in ggml's block format, all with one scale.
fn quantised(format: WeightFormat, values: &[f32]) -> (Vec<u8>, Vec<f32>) {
    // An element q is worth scale * (q - zero).
    let (steps, zero) = match format {
        WeightFormat::Q8_0 => (127.0, 0.0),
        WeightFormat::Q4_0 => (8.0, 8.0),
        _ => (7.5, 7.5),
    };
    let scale = f16::from_f32(1.0 / steps);
    let minimum = f16::from_f32(-scale.to_f32() * zero);
    let (mut bytes, mut worth) = (Vec::new(), Vec::new());
    for block in values.chunks(format.block_elements() as usize) {
        let elements: Vec<f32> = block.iter().map(|value| (value * steps + zero).round().min(2.0 * steps)).collect();
        bytes.extend(scale.to_le_bytes());
        match format {
            WeightFormat::Q8_0 => bytes.extend(elements.iter().map(|element| *element as i8 as u8)),
            _ => {
                if format == WeightFormat::Q4_1 {
                    bytes.extend(minimum.to_le_bytes());
                }
                // Byte i holds elements i and, in its upper half, 16 + i.
                let (low, high) = elements.split_at(elements.len() / 2);
                bytes.extend(low.iter().zip(high).map(|(low, high)| (*low as u8).min(15) | (*high as u8).min(15) << 4));
            }
        }
        worth.extend(elements.iter().map(|element| match format {
            WeightFormat::Q8_0 => scale.to_f32() * element,
            WeightFormat::Q4_0 => scale.to_f32() * (element.min(15.0) - zero),
            _ => scale.to_f32() * element.min(15.0) + minimum.to_f32(),
        }));
    }
    (bytes, worth)
}

/// `count` values in -1..1 from a seed (a linear congruential generator with the constants of Numerical Recipes).
fn values(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}
