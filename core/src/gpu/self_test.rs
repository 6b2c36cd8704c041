//! The kernels that a device is about to use, against their CPU twins: drivers exist that compute wrong values silently.

use blockpruner_shaders::{
    GemmKernel, Kernel, WeightFormat, attention, gemm, log_sum_exp, rms_norm, rotary, stride, swiglu,
};
use half::{bf16, f16};

use super::{AttentionBuffers, Gpu, GpuError, Heads, Matrix, Operand, Recording, Residual};

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

/// Compares the GEMM kernel in use for each format, the kernels that go with it, and attention over heads of `head_dim`
/// elements.
pub(super) async fn run(
    gpu: &Gpu,
    formats: &[WeightFormat],
    head_dim: Option<u32>,
    distort: Distort,
) -> Result<(), Failure> {
    for format in WeightFormat::ALL.into_iter().filter(|format| formats.contains(format)) {
        check_gemm(gpu, format, distort).await?;
    }
    let Some(format) = formats.first() else { return Ok(()) };
    // What they write is seen by a product that shall not round.
    let format = if format.is_quantised() { WeightFormat::F32 } else { *format };
    check_norm(gpu, format, distort).await?;
    check_swiglu(gpu, format, distort).await?;
    check_log_sum_exp(gpu, distort).await?;
    match head_dim {
        Some(head_dim) => check_attention(gpu, head_dim, format, distort).await,
        None => Ok(()),
    }
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
    matrix.record_residual(gpu, &mut recording, &Operand::new(&operand, rows), &residual, &sums);
    gpu.submit(&recording).await?;
    let mut found = gpu.read(&states, before.len()).await?;

    let product = gemm::cpu(&a, &w, inner as usize, Some(&bias));
    let mut expected = before;
    let touched = expected.chunks_mut(width).skip(first_row as usize);
    for (row, product) in touched.zip(product.chunks(columns as usize)) {
        row.iter_mut().zip(product).for_each(|(state, product)| *state += product);
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

/// The norm of the first of every two rows.
async fn check_norm(gpu: &Gpu, format: WeightFormat, distort: Distort) -> Result<(), Failure> {
    let kernel = gpu.gemm();
    let params = rms_norm::Params {
        rows: ROWS,
        columns: COLUMNS,
        stride: stride(COLUMNS),
        inner4: gemm::inner_texels(COLUMNS),
        first_row: 0,
        window: 2,
        kept: 1,
        epsilon: 1e-5,
    };
    let (input, weight) = (values(6, (2 * ROWS * COLUMNS) as usize), values(7, COLUMNS as usize));
    let (on_device, scales) =
        (gpu.upload_readable("self-test", &padded(&input))?, gpu.upload_readable("self-test", &padded(&weight))?);
    let output = gpu.readable("self-test", gemm::operand_bytes(kernel, ROWS, COLUMNS))?;
    let mut recording = Recording::new();
    let bindings = [on_device, scales, output.clone()];
    recording.dispatch(Kernel::RmsNorm { kernel }, &params, bindings, rms_norm::grid(kernel, ROWS), 1);
    let mut found = read_operand(gpu, recording, &Operand::new(&output, ROWS), COLUMNS, format).await?;
    let what = "the root mean square norm";
    distort(kernel, what, &mut found);
    compare(kernel, what, &found, &rms_norm::cpu(&params, &input, &weight))
}

async fn check_swiglu(gpu: &Gpu, format: WeightFormat, distort: Distort) -> Result<(), Failure> {
    let kernel = gpu.gemm();
    let gate_up: Vec<f32> = values(8, (ROWS * 2 * COLUMNS) as usize).iter().map(|value| 8.0 * value).collect();
    // Gate and up each are padded to whole vectors.
    let on_device =
        gpu.upload_readable("self-test", &gemm::pack_output(kernel, 2 * stride(COLUMNS), &padded(&gate_up)))?;
    let output = gpu.readable("self-test", gemm::operand_bytes(kernel, ROWS, COLUMNS))?;
    let params = swiglu::Params { rows: ROWS, stride: stride(COLUMNS), inner4: gemm::inner_texels(COLUMNS) };
    let mut recording = Recording::new();
    let bindings = [on_device, output.clone()];
    recording.dispatch(Kernel::SwiGlu { kernel }, &params, bindings, params.grid(kernel), 1);
    let mut found = read_operand(gpu, recording, &Operand::new(&output, ROWS), COLUMNS, format).await?;
    distort(kernel, "SwiGLU", &mut found);
    compare(kernel, "SwiGLU", &found, &swiglu::cpu(COLUMNS as usize, &gate_up))
}

/// The vocabulary in two chunks; every target lies in one of them.
async fn check_log_sum_exp(gpu: &Gpu, distort: Distort) -> Result<(), Failure> {
    let (kernel, vocabulary) = (gpu.gemm(), 2 * COLUMNS);
    let logits: Vec<f32> = values(9, (ROWS * vocabulary) as usize).iter().map(|value| 16.0 * value).collect();
    let targets: Vec<u32> = (0..ROWS).map(|row| row * 101 % vocabulary).collect();
    let on_device = gpu.upload("self-test", bytemuck::cast_slice(&targets))?;
    let (running, nll) = (gpu.storage("self-test", ROWS as u64 * 16)?, gpu.storage("self-test", ROWS as u64 * 4)?);
    let mut recording = Recording::new();
    for chunk in 0..2 {
        let first_token = chunk * COLUMNS;
        let part = logits.chunks(vocabulary as usize).flat_map(|row| &row[first_token as usize..][..COLUMNS as usize]);
        let part = padded(&part.copied().collect::<Vec<f32>>());
        let part = gpu.upload_readable("self-test", &gemm::pack_output(kernel, stride(COLUMNS), &part))?;
        let params = log_sum_exp::Params {
            rows: ROWS,
            columns: COLUMNS,
            stride: stride(COLUMNS),
            first_token,
            is_first: 1 - chunk,
            is_last: chunk,
        };
        let bindings = [part, (&on_device).into(), (&running).into(), (&nll).into()];
        recording.dispatch(Kernel::LogSumExp { kernel }, &params, bindings, log_sum_exp::grid(kernel, ROWS), 1);
    }
    gpu.submit(&recording).await?;
    let mut found = gpu.read(&nll, ROWS as usize).await?;
    let what = "the negative log-likelihood";
    distort(kernel, what, &mut found);
    compare(kernel, what, &found, &log_sum_exp::cpu(vocabulary as usize, &logits, &targets))
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
async fn check_attention(gpu: &Gpu, head_dim: u32, format: WeightFormat, distort: Distort) -> Result<(), Failure> {
    let (kernel, windows) = (gpu.gemm(), 2);
    let heads = Heads { heads: 2, kv_heads: 1, head_dim };
    let window = 2 * attention::block_queries(kernel, head_dim) + 3;
    let rows = window * windows;
    let (width, columns) = (heads.stride() as usize, 4 * head_dim as usize);
    let mut qkv = values(5, rows as usize * width);
    // Larger than in the product, so that the softmax is not flat.
    qkv.iter_mut().for_each(|value| *value *= 2.0);
    let frequencies: Vec<f32> = (0..head_dim / 2).map(|i| 1e4f32.powf(-2.0 * i as f32 / head_dim as f32)).collect();
    let table = rotary::table(&frequencies, 1.0, window as usize);

    let inner = heads.heads * head_dim;
    let output = gpu.readable("self-test", gemm::operand_bytes(kernel, rows, inner))?;
    let rope = gpu.upload_readable("self-test", table.as_flattened())?;
    let on_device = gpu.upload_readable("self-test", &gemm::pack_output(kernel, heads.stride(), &qkv))?;
    let packed = heads.packed(gpu, window, windows)?;
    let buffers = AttentionBuffers { rope: &rope, qkv: &on_device, packed: &packed, output: &output };
    let mut recording = Recording::new();
    let operand = heads.record(gpu, &mut recording, &buffers, window, windows);
    let mut found = read_operand(gpu, recording, &operand, inner, format).await?;

    let turned = rotary::Params {
        rows,
        stride: heads.stride(),
        heads: heads.heads + heads.kv_heads,
        half_dim: head_dim / 2,
        window,
    };
    rotary::cpu(&turned, &table, &mut qkv);
    // The twin knows no padding of rows.
    let rows: Vec<f32> = qkv.chunks(width).flat_map(|row| &row[..columns]).copied().collect();
    let share = heads.heads / heads.kv_heads;
    let expected = attention::cpu(&rows, window as usize, heads.heads as usize, share as usize, head_dim as usize);
    let what = format!("attention over heads of {head_dim}");
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
