//! Token ids to hidden states, and what positions add to them: `embedding_rows.wgsl` for row-major tables,
//! `embedding_panel.wgsl` for panels.

use bytemuck::{Pod, Zeroable};

use crate::gemm::{self, texel_elements};
use crate::{GemmKernel, WeightFormat, groups_of_64};

/// Which row of a table a row of the output takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Index {
    /// That of its token.
    Token,
    /// That of its position, where positions begin anew in each window; it is added.
    WindowPosition,
    /// That of a position that is given for each row; it is added.
    Position,
}

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
    /// First of the table's rows in this part of it.
    pub first_row: u32,
    /// The table's rows in this part of it.
    pub count: u32,
    /// What every element is multiplied by.
    pub scale: f32,
    /// For positions: rows of a window, in each of which the table's rows begin anew,
    pub window: u32,
    /// and the table's row for the first of them.
    pub first_position: u32,
}

pub(crate) fn context(kernel: GemmKernel, weight: WeightFormat, index: Index) -> minijinja::Value {
    minijinja::context! {
        POSITIONS => index != Index::Token,
        EACH_ROW => index == Index::Position,
        ..gemm::context(kernel, weight, false)
    }
}

/// The grid for `rows` tokens and a table of `columns` columns.
pub fn grid(kernel: GemmKernel, weight: WeightFormat, columns: u32, rows: u32) -> [u32; 3] {
    let elements = match kernel {
        GemmKernel::Tile { .. } if !weight.is_quantised() => 2,
        _ => texel_elements(weight),
    };
    [groups_of_64(columns.div_ceil(elements)), rows, 1]
}

/// CPU twin: rows of `output [tokens, columns]` whose token lies in `first_row..`, from `table [count, columns]`, multiplied
/// by `scale`.
pub fn cpu(tokens: &[u32], table: &[f32], columns: usize, first_row: u32, scale: f32, output: &mut [f32]) {
    each_row(tokens.iter().copied(), table, columns, first_row, output, |to, x| *to = x * scale);
}

/// CPU twin for positions: `output [rows, columns]` plus the rows `first_position + positions [rows]` of `table [count, columns]`,
/// of which those are there that lie in `first_row..`.
pub fn cpu_positions(
    (positions, first_position): (&[u32], u32),
    table: &[f32],
    columns: usize,
    first_row: u32,
    output: &mut [f32],
) {
    let rows = positions.iter().map(|position| first_position + position);
    each_row(rows, table, columns, first_row, output, |to, x| *to += x);
}

fn each_row(
    rows: impl Iterator<Item = u32>,
    table: &[f32],
    columns: usize,
    first_row: u32,
    output: &mut [f32],
    put: impl Fn(&mut f32, f32),
) {
    let count = table.len() / columns;
    for (index, row) in rows.zip(output.chunks_mut(columns)) {
        let index = index.wrapping_sub(first_row) as usize;
        if index < count {
            row.iter_mut().zip(&table[index * columns..]).for_each(|(to, x)| put(to, *x));
        }
    }
}
