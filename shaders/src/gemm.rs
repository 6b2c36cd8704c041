//! Products with a weight matrix: `gemm_tile.wgsl`, `gemm_cooperative.wgsl` and `gemm_panel.wgsl`.
//!
//! Also the packed layouts of weights on the device, which the embedding shaders read, too.

use bytemuck::{Pod, Zeroable};
use half::f16;
use minijinja::context;

use crate::{Cooperative, GemmKernel, TEXTURE_WIDTH, WeightFormat, stride};

/// Rows and columns of a tile of `gemm_tile.wgsl`,
pub const TILE: u32 = 64;
/// invocations across and down, each of 4 rows and 8 columns: few enough sums for GPUs with few registers,
const TILE_INVOCATIONS: [u32; 2] = [8, 16];
/// and k that are staged at a time.
const TILE_STEP: u32 = 16;
/// Vectors from one k to the next in workgroup memory: one more than there are, so that they lie in different banks.
const TILE_PITCH: u32 = TILE / 4 + 1;

/// Rows and columns of a tile of `gemm_cooperative.wgsl`: the best on an H100 of those that 32 KiB of workgroup memory hold
/// (docs/devices.md),
const COOPERATIVE_TILE: [u32; 2] = [64, 128];
/// of the part of it that is one subgroup's,
const COOPERATIVE_PART: [u32; 2] = [32, 64];
/// such parts,
const COOPERATIVE_PARTS: u32 = 4;
/// the invocations of its workgroup where subgroups have no one size,
const COOPERATIVE_INVOCATIONS: u32 = 128;
/// and the workgroup memory of its largest variant.
pub const COOPERATIVE_MEMORY: u32 = 25_616;
/// Largest subgroup that each gets a part: beyond it workgroups would be larger than WebGPU guarantees.
const COOPERATIVE_LANES: u32 = 64;
/// What A is divided by before it is split into f16: values up to a million fit.
const A_SCALE: f32 = 16.0;
/// What the second f16 of a split value is multiplied by: what the first leaves is about 11 bits smaller.
const REST_SCALE: f32 = 2048.0;

/// Uniform block of `gemm_operands.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct TileParams {
    /// Rows of A and C.
    pub rows: u32,
    /// Weight rows of this shard, which are columns of C.
    pub columns: u32,
    /// Columns of A and W.
    pub inner: u32,
    /// Vectors of 4 from one row of A to the next.
    pub a_vectors: u32,
    /// u32 words of quantised weights, vectors of 4 of the others, in one row of the packed W.
    pub row_units: u32,
    /// Elements from one row of C to the next.
    pub stride: u32,
    /// First column of C that this shard writes.
    pub column_offset: u32,
    /// 1 if the bias buffer holds values.
    pub has_bias: u32,
    /// First tile of columns of this dispatch.
    pub first_block: u32,
    /// Row of C that the first row of A belongs to.
    pub first_row: u32,
    /// 1 to add to C instead of overwriting it.
    pub add: u32,
    /// What is added is multiplied by this.
    pub scale: f32,
    /// [`f16_scale`] of W.
    pub w_scale: f32,
}

/// Uniform block of `gemm_panel.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct PanelParams {
    /// Rows of A and C.
    pub rows: u32,
    /// Weight rows of this shard, which are columns of C.
    pub columns: u32,
    /// [`inner_texels`] of the inner dimension.
    pub inner4: u32,
    /// Elements from one row of C to the next.
    pub stride: u32,
    /// First column of C that this shard writes.
    pub column_offset: u32,
    /// 1 if the bias buffer holds values.
    pub has_bias: u32,
    /// First panel of columns of this dispatch.
    pub first_block: u32,
    /// What the variant that adds multiplies the product with.
    pub scale: f32,
}

/// Elements of a quantised block.
const BLOCK_ELEMENTS: u32 = 32;

/// Rows of A that one workgroup of the panel kernel handles, a multiple of its lanes: many, because every texel of W is
/// loaded once for all of them, but no more than compilers of software drivers keep on a thread's nearest memory.
pub fn panel_rows(lanes: u32) -> u32 {
    (4 * lanes).min(32)
}

/// Texels of 4 elements in a row of `inner` elements, padded to an even number so that the loop can take 8 at a time.
pub fn inner_texels(inner: u32) -> u32 {
    inner.div_ceil(8) * 2
}

/// Columns of C that one workgroup computes: shards begin at multiples of it.
pub fn block_columns(kernel: GemmKernel) -> u32 {
    match kernel {
        GemmKernel::Tile { cooperative: Some(_), .. } => COOPERATIVE_TILE[1],
        GemmKernel::Tile { .. } => TILE,
        GemmKernel::Panel { lanes, .. } => 4 * lanes,
    }
}

/// Rows of C that one workgroup computes.
pub fn block_rows(kernel: GemmKernel) -> u32 {
    match kernel {
        GemmKernel::Tile { cooperative: Some(_), .. } => COOPERATIVE_TILE[0],
        GemmKernel::Tile { .. } => TILE,
        GemmKernel::Panel { lanes, .. } => panel_rows(lanes),
    }
}

/// Neighbouring elements of one row in one texel of a packed weight. Quantised texels hold as many of four rows.
pub(crate) fn texel_elements(weight: WeightFormat) -> u32 {
    match weight {
        WeightFormat::F32 | WeightFormat::Q8_0 => 4,
        WeightFormat::F16 | WeightFormat::Bf16 | WeightFormat::Q4_0 | WeightFormat::Q4_1 => 8,
    }
}

/// u32 words of a quantised block on the device: the scale, then elements in order, the first in the lowest bits.
pub(crate) fn block_words(weight: WeightFormat) -> u32 {
    1 + weight.block_elements() / texel_elements(weight)
}

/// u32 words (tile) or texels (panel) that one weight row of `inner` elements takes on the device.
pub fn row_units(kernel: GemmKernel, weight: WeightFormat, inner: u32) -> u32 {
    if weight.is_quantised() {
        return inner / weight.block_elements() * block_words(weight);
    }
    match kernel {
        // Whole vectors of 4 words.
        GemmKernel::Tile { .. } => inner.div_ceil(texel_elements(weight)) * 4,
        GemmKernel::Panel { .. } => inner_texels(inner) * 4 / texel_elements(weight),
    }
}

/// Bytes that `columns` weight rows of `inner` elements take on the device.
pub fn packed_bytes(kernel: GemmKernel, weight: WeightFormat, columns: u32, inner: u32) -> u64 {
    let units = row_units(kernel, weight, inner) as u64;
    match kernel {
        GemmKernel::Tile { .. } => units * 4 * columns as u64,
        GemmKernel::Panel { .. } => {
            let unit = if weight.is_quantised() { 4 } else { 16 };
            units * unit * columns.next_multiple_of(block_columns(kernel)) as u64
        }
    }
}

/// Rows whose packed bytes lie together: a packed weight is that of its first so many rows, then that of the next.
pub fn packed_together(kernel: GemmKernel) -> u32 {
    match kernel {
        GemmKernel::Tile { .. } => 1,
        GemmKernel::Panel { .. } => block_columns(kernel),
    }
}

/// Whether packed rows are the rows as a checkpoint stores them.
pub fn packed_as_stored(kernel: GemmKernel, weight: WeightFormat, inner: u32) -> bool {
    let bytes = row_units(kernel, weight, inner) as usize * 4;
    !kernel.is_panel() && !weight.is_quantised() && bytes == weight.row_bytes(inner)
}

/// Lays out weight rows (row-major, little-endian, `columns` rows of `inner` elements, as a checkpoint stores them) as
/// the kernel reads them. `inner` is whole blocks.
pub fn pack_weight(kernel: GemmKernel, weight: WeightFormat, inner: u32, rows: &[u8]) -> Vec<u8> {
    let columns = rows.len().checked_div(weight.row_bytes(inner)).unwrap_or(0);
    let mut packed = vec![0; packed_bytes(kernel, weight, columns as u32, inner) as usize];
    pack_rows(kernel, weight, inner, rows, &mut packed);
    packed
}

/// As [`pack_weight`], into the [`packed_bytes`] of these rows, whatever they held before.
pub fn pack_rows(kernel: GemmKernel, weight: WeightFormat, inner: u32, rows: &[u8], packed: &mut [u8]) {
    match weight {
        WeightFormat::Q8_0 => pack_blocks(kernel, inner, rows, packed, q8_0_words),
        WeightFormat::Q4_0 => pack_blocks(kernel, inner, rows, packed, q4_0_words),
        WeightFormat::Q4_1 => pack_blocks(kernel, inner, rows, packed, q4_1_words),
        WeightFormat::F32 | WeightFormat::F16 | WeightFormat::Bf16 => {
            pack_floats(kernel, weight, inner, rows, packed);
        }
    }
}

fn pack_floats(kernel: GemmKernel, weight: WeightFormat, inner: u32, rows: &[u8], packed: &mut [u8]) {
    let (row_bytes, units) = (weight.row_bytes(inner), row_units(kernel, weight, inner) as usize);
    if row_bytes == 0 {
        return;
    }
    match kernel {
        GemmKernel::Tile { .. } => {
            for (row, to) in rows.chunks_exact(row_bytes).zip(packed.chunks_exact_mut(units * 4)) {
                let (to, padding) = to.split_at_mut(row_bytes);
                to.copy_from_slice(row);
                padding.fill(0);
            }
        }
        GemmKernel::Panel { lanes, .. } => {
            let lanes = lanes as usize;
            let panels = packed.chunks_exact_mut(units * lanes * 64).zip(rows.chunks(4 * lanes * row_bytes));
            for (panel, rows) in panels {
                if rows.len() < 4 * lanes * row_bytes {
                    panel.fill(0);
                }
                pack_float_panel(lanes, row_bytes, rows, panel);
            }
        }
    }
}

/// Quantised rows: a panel is `4 * lanes` rows whose first words lie side by side, then their second ones; a tile's row lies by
/// itself. `words` says what becomes of a block. Fixed sizes spare the bounds checks.
fn pack_blocks<const B: usize, const W: usize>(
    kernel: GemmKernel,
    inner: u32,
    rows: &[u8],
    packed: &mut [u8],
    words: impl Fn(&[u8; B]) -> [u32; W],
) {
    let blocks = (inner / BLOCK_ELEMENTS) as usize;
    if blocks == 0 {
        return;
    }
    let side_by_side = packed_together(kernel) as usize;
    let row_bytes = blocks * B;
    let panels = packed.chunks_exact_mut(blocks * W * 4 * side_by_side).zip(rows.chunks(side_by_side * row_bytes));
    for (panel, rows) in panels {
        if rows.len() < side_by_side * row_bytes {
            panel.fill(0);
        }
        for (block, to) in panel.as_chunks_mut::<4>().0.chunks_exact_mut(W * side_by_side).enumerate() {
            for (n, row) in rows.chunks_exact(row_bytes).enumerate() {
                let Some(from) = row.as_chunks::<B>().0.get(block) else { continue };
                for (word, to) in words(from).into_iter().zip(to[n..].iter_mut().step_by(side_by_side)) {
                    *to = word.to_le_bytes();
                }
            }
        }
    }
}

/// Up to `4 * lanes` rows of floats: texel `step` of row `4 * lane + j` is texel `(step * 4 + j) * lanes + lane`.
fn pack_float_panel(lanes: usize, row_bytes: usize, rows: &[u8], panel: &mut [u8]) {
    /// Texels of a row in a cache line: rows often are whole powers of two apart, and lie in each other's way in caches.
    const TOGETHER: usize = 4;
    let (texels, _) = panel.as_chunks_mut::<16>();
    let whole = row_bytes / 16;
    for first in (0..whole).step_by(TOGETHER) {
        let steps = first..(first + TOGETHER).min(whole);
        for (n, row) in rows.chunks_exact(row_bytes).enumerate() {
            let from = &row.as_chunks::<16>().0[steps.clone()];
            let column = n % 4 * lanes + n / 4;
            for (step, texel) in steps.clone().zip(from) {
                texels[step * 4 * lanes + column] = *texel;
            }
        }
    }
    let (last, padding) =
        texels[whole * 4 * lanes..].split_at_mut(if !row_bytes.is_multiple_of(16) { 4 * lanes } else { 0 });
    for (n, row) in rows.chunks_exact(row_bytes).enumerate() {
        let rest = &row[whole * 16..];
        if let (false, Some(texel)) = (rest.is_empty(), last.get_mut(n % 4 * lanes + n / 4)) {
            *texel = [0; 16];
            texel[..rest.len()].copy_from_slice(rest);
        }
    }
    padding.fill([0; 16]);
}

/// ggml's Q8_0 block as [`block_words`]: the scale as f32, then 32 signed bytes.
fn q8_0_words(block: &[u8; 34]) -> [u32; 9] {
    let mut words = [0; 9];
    words[0] = scale(block[0], block[1]);
    for (word, bytes) in words[1..].iter_mut().zip(block[2..].as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}

/// ggml's Q4_0 block as [`block_words`]: the scale as f32, then 32 nibbles.
fn q4_0_words(block: &[u8; 18]) -> [u32; 5] {
    nibble_words(scale(block[0], block[1]), &block[2..])
}

/// ggml's Q4_1 block as [`block_words`]: scale and minimum as they are, then 32 nibbles.
fn q4_1_words(block: &[u8; 20]) -> [u32; 5] {
    nibble_words(u32::from_le_bytes([block[0], block[1], block[2], block[3]]), &block[4..])
}

/// The bits of an f16 as f32, without asking the processor each time what it can.
fn scale(low: u8, high: u8) -> u32 {
    f16::from_le_bytes([low, high]).to_f32_const().to_bits()
}

/// Byte i holds elements i and, in its upper half, 16 + i.
fn nibble_words(scale: u32, nibbles: &[u8]) -> [u32; 5] {
    let mut words = [scale, 0, 0, 0, 0];
    for (word, bytes) in nibbles.as_chunks().0.iter().enumerate() {
        let bytes = u64::from_le_bytes(*bytes);
        words[1 + word] = lower_nibbles(bytes);
        words[3 + word] = lower_nibbles(bytes >> 4);
    }
    words
}

/// The lower halves of eight bytes, side by side.
fn lower_nibbles(bytes: u64) -> u32 {
    let nibbles = bytes & 0x0f0f_0f0f_0f0f_0f0f;
    let pairs = (nibbles | nibbles >> 4) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs | pairs >> 8) & 0x0000_ffff_0000_ffff;
    (fours | fours >> 16) as u32
}

/// Elements that a row of the left side of a product takes, padding included.
fn operand_stride(kernel: GemmKernel, inner: u32) -> u32 {
    if kernel.is_panel() { inner_texels(inner) * 4 } else { stride(inner) }
}

/// Bytes that `rows` of `inner` elements take as the left side of a product.
pub fn operand_bytes(kernel: GemmKernel, rows: u32, inner: u32) -> u64 {
    output_bytes(kernel, rows, operand_stride(kernel, inner))
}

/// Lays out `values [rows, inner]` as the left side of a product, as the shaders that produce one do.
pub fn pack_operand(kernel: GemmKernel, inner: u32, values: &[f32]) -> Vec<f32> {
    let width = operand_stride(kernel, inner);
    let mut padded = Vec::with_capacity(values.len() / inner as usize * width as usize);
    for row in values.chunks_exact(inner as usize) {
        padded.extend_from_slice(row);
        padded.resize(padded.len().next_multiple_of(width as usize), 0.0);
    }
    pack_output(kernel, width, &padded)
}

/// Bytes that a product of `rows` rows takes, [`stride`] elements apart.
pub fn output_bytes(kernel: GemmKernel, rows: u32, stride: u32) -> u64 {
    let rows = match kernel {
        GemmKernel::Tile { .. } => rows,
        GemmKernel::Panel { lanes, .. } => rows.next_multiple_of(panel_rows(lanes)),
    };
    rows as u64 * stride as u64 * 4
}

/// Lays out rows of `stride` elements as a product is written.
pub fn pack_output(kernel: GemmKernel, stride: u32, values: &[f32]) -> Vec<f32> {
    let rows = values.len() as u32 / stride;
    let mut packed = vec![0.0; output_bytes(kernel, rows, stride) as usize / 4];
    for (texel, at) in values.chunks_exact(4).zip(output_texels(kernel, rows, stride)) {
        packed[at * 4..][..4].copy_from_slice(texel);
    }
    packed
}

/// The rows of `stride` elements of a product as it is written, one after the other.
pub fn unpack_output(kernel: GemmKernel, rows: u32, stride: u32, packed: &[f32]) -> Vec<f32> {
    output_texels(kernel, rows, stride).flat_map(|at| &packed[at * 4..][..4]).copied().collect()
}

/// Where the groups of 4 elements of a product lie, row by row.
fn output_texels(kernel: GemmKernel, rows: u32, stride: u32) -> impl Iterator<Item = usize> {
    let (rows, texels) = (rows as usize, stride as usize / 4);
    let block = match kernel {
        GemmKernel::Tile { .. } => 1,
        GemmKernel::Panel { lanes, .. } => panel_rows(lanes) as usize,
    };
    (0..rows).flat_map(move |row| (0..texels).map(move |texel| (row / block * texels + texel) * block + row % block))
}

/// What shaders need to know that read a product with either family of kernels.
pub(crate) fn output_context(kernel: GemmKernel) -> minijinja::Value {
    match kernel {
        GemmKernel::Tile { .. } => context! { PANEL => false },
        GemmKernel::Panel { lanes, .. } => context! { PANEL => true, ROWS => panel_rows(lanes), TEXTURE_WIDTH },
    }
}

pub(crate) fn context(kernel: GemmKernel, weight: WeightFormat, residual: bool) -> minijinja::Value {
    match kernel {
        GemmKernel::Tile { cooperative: None, .. } => context! {
            TILE,
            ACROSS => TILE_INVOCATIONS[0],
            DOWN => TILE_INVOCATIONS[1],
            STEP => TILE_STEP,
            PITCH => TILE_PITCH,
            ..operands_context(weight)
        },
        GemmKernel::Tile { cooperative: Some(cooperative), .. } => {
            let Cooperative { f16, size, lanes } = cooperative;
            // f16 weights are f16 as they are, and bf16 ones have so few bits that one f16 holds them.
            let rest_w = f16 && !matches!(weight, WeightFormat::F16 | WeightFormat::Bf16);
            let step = if rest_w || !f16 { 16 } else { 32 };
            let invocations = lanes.filter(|lanes| *lanes <= COOPERATIVE_LANES).map(|lanes| COOPERATIVE_PARTS * lanes);
            context! {
                SIZE => size,
                MATRIX => format!("coop_mat{size}x{size}"),
                ELEMENT => if f16 { "f16" } else { "f32" },
                // Elements of workgroup memory that lie together.
                UNIT => if f16 { 4 } else { 1 },
                SPLIT => f16,
                REST_W => rest_w,
                A_SCALE,
                REST_SCALE,
                STEP => step,
                // 16 bytes more than there are, so that rows lie in different banks.
                PITCH => step + if f16 { 8 } else { 4 },
                ROWS => COOPERATIVE_TILE[0],
                COLUMNS => COOPERATIVE_TILE[1],
                PART_ROWS => COOPERATIVE_PART[0],
                PART_COLUMNS => COOPERATIVE_PART[1],
                PARTS => COOPERATIVE_PARTS,
                TURNS => invocations.is_none(),
                INVOCATIONS => invocations.unwrap_or(COOPERATIVE_INVOCATIONS),
                ..operands_context(weight)
            }
        }
        GemmKernel::Panel { lanes, subgroups } => context! {
            TEXEL_FORMAT => if weight == WeightFormat::F32 { "rgba32float" } else { "rgba32uint" },
            ROWS => panel_rows(lanes),
            LANES => lanes,
            SUBGROUPS => subgroups,
            RESIDUAL => residual,
            TEXTURE_WIDTH,
            ..operands_context(weight)
        },
    }
}

/// What every shader needs to know that reads a weight.
fn operands_context(weight: WeightFormat) -> minijinja::Value {
    context! {
        WEIGHT => weight.name(),
        QUANTISED => weight.is_quantised(),
        BLOCK_WORDS => block_words(weight),
        TEXEL_K => texel_elements(weight),
    }
}

/// What no element of these rows, as a checkpoint stores them, is larger than; 0 if the kernel does not scale weights.
pub fn largest(kernel: GemmKernel, weight: WeightFormat, rows: &[u8]) -> f32 {
    if !kernel.cooperative().is_some_and(|cooperative| cooperative.f16) {
        return 0.0;
    }
    // Of floats that are not negative, the larger one has the larger bits.
    let half = |bytes: &[u8; 2]| u16::from_le_bytes(*bytes) & 0x7fff;
    let halves = || rows.as_chunks().0.iter().map(half).fold(0, u16::max);
    let factor = |low, high| f32::from_bits(scale(low, high)).abs();
    match weight {
        WeightFormat::F32 => {
            let bits = rows.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes) & 0x7fff_ffff);
            f32::from_bits(bits.fold(0, u32::max))
        }
        WeightFormat::F16 => f16::from_bits(halves()).to_f32_const(),
        WeightFormat::Bf16 => f32::from_bits(u32::from(halves()) << 16),
        WeightFormat::Q8_0 => {
            rows.as_chunks::<34>().0.iter().map(|block| 128.0 * factor(block[0], block[1])).fold(0.0, f32::max)
        }
        WeightFormat::Q4_0 => {
            rows.as_chunks::<18>().0.iter().map(|block| 8.0 * factor(block[0], block[1])).fold(0.0, f32::max)
        }
        WeightFormat::Q4_1 => {
            let most = |block: &[u8; 20]| 15.0 * factor(block[0], block[1]) + factor(block[2], block[3]);
            rows.as_chunks().0.iter().map(most).fold(0.0, f32::max)
        }
    }
}

/// The power of two that brings a number near to the largest f16, which is 65,504.
pub fn f16_scale(largest: f32) -> f32 {
    // Exponents as they are stored: the largest number then lies between 2^14 and 2^15. Those of the scale stay away from
    // zero, infinity and what is no normal number.
    let exponent = largest.to_bits() >> 23;
    f32::from_bits((127 + 127 + 14 - exponent).clamp(8, 247) << 23)
}

/// CPU twin: `a [rows, inner]` times the transpose of `w [columns, inner]` plus `bias [columns]`, `[rows, columns]`.
pub fn cpu(a: &[f32], w: &[f32], inner: usize, bias: Option<&[f32]>) -> Vec<f32> {
    let mut c = Vec::with_capacity(a.len() / inner * (w.len() / inner));
    for x in a.chunks_exact(inner) {
        for (n, row) in w.chunks_exact(inner).enumerate() {
            let dot: f32 = x.iter().zip(row).map(|(x, w)| x * w).sum();
            c.push(dot + bias.map_or(0.0, |b| b[n]));
        }
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The layouts, spelt out element by element.
    fn reference(kernel: GemmKernel, weight: WeightFormat, inner: u32, rows: &[u8]) -> Vec<u8> {
        let row_bytes = weight.row_bytes(inner);
        let columns = rows.len().checked_div(row_bytes).unwrap_or(0);
        let mut packed = vec![0; packed_bytes(kernel, weight, columns as u32, inner) as usize];
        let units = row_units(kernel, weight, inner) as usize;
        match kernel {
            GemmKernel::Tile { .. } => {
                for (row, to) in rows.chunks_exact(row_bytes).zip(packed.chunks_exact_mut(units * 4)) {
                    if weight.is_quantised() {
                        to.copy_from_slice(bytemuck::cast_slice(&quantised_words(weight, row)));
                    } else {
                        to[..row_bytes].copy_from_slice(row);
                    }
                }
            }
            GemmKernel::Panel { lanes, .. } => {
                let lanes = lanes as usize;
                for (n, row) in rows.chunks_exact(row_bytes).enumerate() {
                    let (block, lane, j) = (n / (4 * lanes), n % (4 * lanes) / 4, n % 4);
                    if weight.is_quantised() {
                        for (unit, word) in quantised_words(weight, row).into_iter().enumerate() {
                            let t = (block * units + unit) * lanes + lane;
                            packed[t * 16 + j * 4..][..4].copy_from_slice(&word.to_le_bytes());
                        }
                        continue;
                    }
                    for (step, texel) in row.chunks(16).enumerate() {
                        let t = ((block * units + step) * 4 + j) * lanes + lane;
                        packed[t * 16..][..texel.len()].copy_from_slice(texel);
                    }
                }
            }
        }
        packed
    }

    /// A row of ggml's blocks as [`block_words`] each.
    fn quantised_words(weight: WeightFormat, row: &[u8]) -> Vec<u32> {
        let half = |block: &[u8]| f16::from_le_bytes([block[0], block[1]]).to_f32().to_bits();
        let mut words = Vec::with_capacity(row.len() / 4 + row.len() / 32);
        for block in row.chunks_exact(weight.row_bytes(weight.block_elements())) {
            if weight == WeightFormat::Q8_0 {
                words.push(half(block));
                words.extend(block[2..].as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)));
                continue;
            }
            let (scale, nibbles) = match weight {
                WeightFormat::Q4_1 => (u32::from_le_bytes([block[0], block[1], block[2], block[3]]), &block[4..]),
                _ => (half(block), &block[2..]),
            };
            words.push(scale);
            // Byte i holds elements i and, in its upper half, 16 + i.
            for shift in [0, 4] {
                for bytes in nibbles.as_chunks::<8>().0 {
                    words.push(bytes.iter().rev().fold(0, |word, byte| word << 4 | u32::from(byte >> shift & 15)));
                }
            }
        }
        words
    }

    #[test]
    fn every_scale_is_exact() {
        for bits in 0..=u16::MAX {
            let [low, high] = bits.to_le_bytes();
            assert_eq!(scale(low, high), f16::from_bits(bits).to_f32().to_bits(), "{bits:#x}");
        }
    }

    #[test]
    fn no_element_is_larger_than_the_largest_and_all_fit_f16() {
        let kernel =
            GemmKernel::Tile { subgroups: true, cooperative: Some(Cooperative { f16: true, size: 16, lanes: None }) };
        let halves = |bits: [u16; 3]| bits.into_iter().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        let floats = [1.5f32, -3.25, 0.0].into_iter().flat_map(f32::to_le_bytes).collect();
        let half = |value: f32| f16::from_f32(value).to_le_bytes();
        let block = |factors: &[f32], bytes: usize| {
            let mut block: Vec<u8> = factors.iter().flat_map(|factor| half(*factor)).collect();
            block.resize(bytes, 0xff);
            block
        };
        let cases = [
            (WeightFormat::F32, floats, 3.25),
            (WeightFormat::F16, halves([0x3c00, 0xc280, 0]), 3.25),
            (WeightFormat::Bf16, halves([0x3f80, 0xc050, 0]), 3.25),
            (WeightFormat::Q8_0, [block(&[0.5], 34), block(&[-2.0], 34)].concat(), 256.0),
            (WeightFormat::Q4_0, [block(&[-0.5], 18), block(&[0.25], 18)].concat(), 4.0),
            (WeightFormat::Q4_1, block(&[0.5, -1.0], 20), 8.5),
        ];
        for (weight, rows, expected) in cases {
            assert_eq!(largest(kernel, weight, &rows), expected, "{}", weight.name());
            assert_eq!(largest(GemmKernel::BASELINE, weight, &rows), 0.0, "{}", weight.name());
        }
        for value in [1e-20f32, 0.03, 1.0, 65_504.0, 1e30] {
            assert!((16_384.0..32_768.0).contains(&(value * f16_scale(value))), "{value}");
        }
        for value in [0.0, 1e-45, f32::MAX] {
            assert!(f16_scale(value).is_normal() && value * f16_scale(value) < 65_504.0, "{value}");
        }
    }

    #[test]
    fn rows_are_packed_as_the_layouts_say_whatever_was_there_before() {
        let tiles = [
            GemmKernel::BASELINE,
            GemmKernel::Tile {
                subgroups: true,
                cooperative: Some(Cooperative { f16: true, size: 16, lanes: Some(32) }),
            },
        ];
        let panels = [4, 8, 16].map(|lanes| GemmKernel::Panel { lanes, subgroups: false });
        for kernel in tiles.into_iter().chain(panels) {
            for weight in WeightFormat::ALL {
                let inners = match weight.is_quantised() {
                    true => vec![32, 96, 256],
                    false => vec![1, 2, 3, 5, 7, 8, 12, 31, 40, 64, 100],
                };
                for (inner, columns) in inners.into_iter().flat_map(|inner| [0, 1, 5, 31, 64, 77].map(|c| (inner, c))) {
                    let bytes = weight.row_bytes(inner) * columns;
                    let rows: Vec<u8> = (0..bytes).map(|i| (i * 37 + i / 251 + 11) as u8).collect();
                    let expected = reference(kernel, weight, inner, &rows);
                    let name = format!("{} {} {columns} x {inner}", kernel.name(), weight.name());
                    assert!(pack_weight(kernel, weight, inner, &rows) == expected, "{name}");
                    let mut dirty = vec![0xa5; expected.len()];
                    pack_rows(kernel, weight, inner, &rows, &mut dirty);
                    assert!(dirty == expected, "{name}, over other bytes");

                    // Piece by piece it is the same.
                    let together = 2 * packed_together(kernel) as usize;
                    let pieces = rows.chunks((together * weight.row_bytes(inner)).max(1));
                    let pieced: Vec<u8> = pieces.flat_map(|rows| pack_weight(kernel, weight, inner, rows)).collect();
                    assert!(pieced == expected, "{name}, in pieces");
                }
            }
        }
    }
}
