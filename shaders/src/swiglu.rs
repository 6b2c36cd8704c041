//! SwiGLU activation, `swiglu.wgsl` and `swiglu_panel.wgsl` (Shazeer, 2020).

use bytemuck::{Pod, Zeroable};

use crate::{GemmKernel, groups_of_64};

/// Uniform block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Tokens.
    pub rows: u32,
    /// Intermediate size, padded to whole vectors: [`crate::stride`].
    pub stride: u32,
    /// [`crate::gemm::inner_texels`] of the intermediate size.
    pub inner4: u32,
}

impl Params {
    /// Workgroups for these rows.
    pub fn grid(&self, kernel: GemmKernel) -> [u32; 3] {
        let items = match kernel {
            GemmKernel::Tile { .. } => self.stride,
            GemmKernel::Panel { .. } => self.inner4,
        };
        [groups_of_64(items), self.rows, 1]
    }
}

/// CPU twin: `gate_up [rows, 2 * columns]` to `[rows, columns]`.
pub fn cpu(columns: usize, gate_up: &[f32]) -> Vec<f32> {
    let mut output = Vec::with_capacity(gate_up.len() / 2);
    for row in gate_up.chunks(2 * columns) {
        let (gate, up) = row.split_at(columns);
        output.extend(gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u));
    }
    output
}
