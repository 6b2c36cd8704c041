//! Token ids to hidden states: `embedding_rows.wgsl` for row-major tables, `embedding_panel.wgsl` for panels.

use bytemuck::{Pod, Zeroable};

use crate::gemm::texel_elements;
use crate::{GemmKernel, WeightFormat, groups_of_64};

/// Uniform block of both shaders.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Tokens.
    pub rows: u32,
    /// Hidden size.
    pub columns: u32,
    /// Elements from one row of the output to the next.
    pub stride: u32,
    /// u32 words (row-major) or texels (panels) in one row of the table.
    pub row_units: u32,
    /// First vocabulary row of this part of the table.
    pub first_token: u32,
    /// Vocabulary rows of this part of the table.
    pub count: u32,
    /// What every element is multiplied by.
    pub scale: f32,
}

/// The grid for `rows` tokens and a table of `columns` columns.
pub fn grid(kernel: GemmKernel, weight: WeightFormat, columns: u32, rows: u32) -> [u32; 3] {
    let elements = match kernel {
        GemmKernel::Tile { .. } if !weight.is_quantised() => 2,
        _ => texel_elements(weight),
    };
    [groups_of_64(columns.div_ceil(elements)), rows, 1]
}

/// CPU twin: rows of `output [tokens, columns]` whose token lies in `first_token..`, from `table [count, columns]`,
/// multiplied by `scale`.
pub fn cpu(tokens: &[u32], table: &[f32], columns: usize, first_token: u32, scale: f32, output: &mut [f32]) {
    let count = table.len() / columns;
    for (token, row) in tokens.iter().zip(output.chunks_mut(columns)) {
        let index = token.wrapping_sub(first_token) as usize;
        if index < count {
            row.iter_mut().zip(&table[index * columns..]).for_each(|(to, x)| *to = x * scale);
        }
    }
}
