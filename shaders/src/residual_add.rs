//! Residual add, `residual_add.wgsl`.

use bytemuck::{Pod, Zeroable};

/// Uniform block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Rows of the branch.
    pub rows: u32,
    /// Hidden size.
    pub columns: u32,
    /// First row of the state that the branch is added to.
    pub first_row: u32,
}

/// CPU twin, in place on `state`.
pub fn cpu(params: &Params, branch: &[f32], state: &mut [f32]) {
    let from = (params.first_row * params.columns) as usize;
    for (state, branch) in state[from..].iter_mut().zip(branch) {
        *state += branch;
    }
}
