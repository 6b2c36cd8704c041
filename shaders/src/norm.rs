//! Root mean square norm (Zhang and Sennrich, 2019), `norm.wgsl` and `norm_panel.wgsl`; and rows that are not normed,
//! `operand.wgsl`.

use bytemuck::{Pod, Zeroable};

use crate::{GemmKernel, folded_grid, groups_of_64};

/// Which rows are normed, and where they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NormRows {
    /// Neighbouring rows of the residual stream, to the left side of a product.
    Contiguous,
    /// Rows of the residual stream that a buffer of u32 names, counted from the first row, to the left side of a product.
    Indexed,
    /// Rows of a product, scaled and added to the residual stream.
    Product,
}

/// Uniform block of the norms.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Rows written.
    pub rows: u32,
    /// Elements of a row.
    pub columns: u32,
    /// Elements from one row to the next, of everything that is row-major.
    pub stride: u32,
    /// [`crate::gemm::inner_texels`] of the columns.
    pub inner4: u32,
    /// First row of the residual stream.
    pub first_row: u32,
    /// Added to the mean square.
    pub epsilon: f32,
    /// What a normed row of a product is multiplied by before it is added.
    pub scale: f32,
}

/// Uniform block of `operand.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct OperandParams {
    /// Rows written.
    pub rows: u32,
    /// Elements of a row.
    pub columns: u32,
    /// Elements from one row to the next.
    pub stride: u32,
    /// [`crate::gemm::inner_texels`] of the columns.
    pub inner4: u32,
    /// First row of the residual stream.
    pub first_row: u32,
}

/// Workgroups that norm `rows` rows.
pub fn grid(kernel: GemmKernel, rows: u32) -> [u32; 3] {
    match kernel {
        GemmKernel::Tile { .. } => folded_grid(rows),
        GemmKernel::Panel { lanes, .. } => [rows.div_ceil(lanes), 1, 1],
    }
}

impl OperandParams {
    /// Workgroups for these rows.
    pub fn grid(&self, kernel: GemmKernel) -> [u32; 3] {
        let items = if kernel.is_panel() { self.inner4 } else { self.columns };
        [groups_of_64(items), self.rows, 1]
    }
}

pub(crate) fn context(kernel: GemmKernel, rows: NormRows) -> minijinja::Value {
    minijinja::context! {
        TO_RESIDUAL => rows == NormRows::Product,
        INDEXED => rows == NormRows::Indexed,
        ..crate::row_context(kernel)
    }
}

/// CPU twin: every row of `input [.., weight.len()]` normed.
pub fn cpu(input: &[f32], weight: &[f32], epsilon: f32) -> Vec<f32> {
    let mut output = Vec::with_capacity(input.len());
    for x in input.chunks(weight.len()) {
        let mean = x.iter().map(|v| v * v).sum::<f32>() / weight.len() as f32;
        let inverse = 1.0 / (mean + epsilon).sqrt();
        output.extend(x.iter().zip(weight).map(|(x, w)| w * (x * inverse)));
    }
    output
}
