//! Root mean square norm, `rms_norm.wgsl` and `rms_norm_panel.wgsl` (Zhang and Sennrich, 2019).

use bytemuck::{Pod, Zeroable};

use crate::{GemmKernel, folded_grid};

/// Uniform block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Rows written.
    pub rows: u32,
    /// Hidden size.
    pub columns: u32,
    /// Elements from one row to the next, of the input and of a row-major output.
    pub stride: u32,
    /// [`crate::gemm::inner_texels`] of the columns.
    pub inner4: u32,
    /// First row read.
    pub first_row: u32,
    /// Rows of a window in the input.
    pub window: u32,
    /// Rows of a window that are written: `window`, or `window - 1` to leave out the position without a target.
    pub kept: u32,
    /// Added to the mean square.
    pub epsilon: f32,
}

/// Workgroups for `rows` rows.
pub fn grid(kernel: GemmKernel, rows: u32) -> [u32; 3] {
    match kernel {
        GemmKernel::Tile { .. } => folded_grid(rows),
        GemmKernel::Panel { lanes, .. } => [rows.div_ceil(lanes), 1, 1],
    }
}

/// CPU twin: see [`Params`]; `input [.., columns]`, `weight [columns]`, result `[rows, columns]`.
pub fn cpu(params: &Params, input: &[f32], weight: &[f32]) -> Vec<f32> {
    let columns = params.columns as usize;
    let mut output = Vec::with_capacity(params.rows as usize * columns);
    for row in 0..params.rows {
        let from = params.first_row + row / params.kept * params.window + row % params.kept;
        let x = &input[from as usize * columns..][..columns];
        let mean = x.iter().map(|v| v * v).sum::<f32>() / columns as f32;
        let scale = 1.0 / (mean + params.epsilon).sqrt();
        output.extend(x.iter().zip(weight).map(|(x, w)| w * (x * scale)));
    }
    output
}
