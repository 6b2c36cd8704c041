//! SwiGLU activation, `swiglu.wgsl` (Shazeer, 2020).

use bytemuck::{Pod, Zeroable};

/// Uniform block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Tokens.
    pub rows: u32,
    /// Intermediate size.
    pub columns: u32,
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
