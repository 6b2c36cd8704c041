//! What becomes of rows of the residual stream when something is added to them, `change.wgsl`.

use bytemuck::{Pod, Zeroable};

/// Uniform block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Rows compared.
    pub rows: u32,
    /// Elements of a row.
    pub columns: u32,
    /// Elements from one row to the next.
    pub stride: u32,
}

impl Params {
    /// Workgroups for these rows.
    pub fn grid(&self) -> [u32; 3] {
        crate::folded_grid(self.rows)
    }
}

/// CPU twin: of every row of `before` and `after`, both `[rows, columns]`, their product, the squares of their lengths, and that
/// of their difference.
pub fn cpu(before: &[f32], after: &[f32], columns: usize) -> Vec<[f32; 4]> {
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let rows = before.chunks(columns).zip(after.chunks(columns));
    rows.map(|(before, after)| {
        let added: Vec<f32> = before.iter().zip(after).map(|(before, after)| after - before).collect();
        [product(before, after), product(before, before), product(after, after), product(&added, &added)]
    })
    .collect()
}
