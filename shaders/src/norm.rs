//! Root mean square norm (Zhang and Sennrich, 2019) and layer norm (Ba et al., 2016), `norm.wgsl` and `norm_panel.wgsl`; and
//! rows that are not normed, `operand.wgsl`.

use bytemuck::{Pod, Zeroable};

use crate::{GemmKernel, folded_grid, groups_of_64};

/// What a norm divides by, and whether it takes the mean off first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NormKind {
    /// `x / sqrt(mean(x^2) + epsilon) * weight`.
    Rms,
    /// `(x - mean(x)) / sqrt(variance(x) + epsilon) * weight + bias`.
    Layer,
}

impl NormKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Rms, Self::Layer];

    /// `root mean square norm` or `layer norm`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rms => "root mean square norm",
            Self::Layer => "layer norm",
        }
    }
}

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
    /// Added to the mean square, or to the variance.
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

pub(crate) fn context(kernel: GemmKernel, kind: NormKind, rows: NormRows) -> minijinja::Value {
    minijinja::context! {
        LAYER => kind == NormKind::Layer,
        TO_RESIDUAL => rows == NormRows::Product,
        INDEXED => rows == NormRows::Indexed,
        ..crate::row_context(kernel)
    }
}

/// CPU twin: every row of `input [.., weight.len()]` normed; by a [`NormKind::Layer`] if there is a bias, as long as the weight.
pub fn cpu(input: &[f32], weight: &[f32], bias: Option<&[f32]>, epsilon: f32) -> Vec<f32> {
    let mean = |x: &[f32]| x.iter().sum::<f32>() / x.len() as f32;
    let mut output = Vec::with_capacity(input.len());
    for x in input.chunks(weight.len()) {
        let middle = if bias.is_some() { mean(x) } else { 0.0 };
        let squares: Vec<f32> = x.iter().map(|v| (v - middle) * (v - middle)).collect();
        let inverse = 1.0 / (mean(&squares) + epsilon).sqrt();
        let normed = x.iter().zip(weight).map(|(x, w)| w * ((x - middle) * inverse));
        match bias {
            None => output.extend(normed),
            Some(bias) => output.extend(normed.zip(bias).map(|(normed, bias)| normed + bias)),
        }
    }
    output
}
