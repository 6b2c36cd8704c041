//! Gated activations, `activation.wgsl` and `activation_panel.wgsl`: SwiGLU and GeGLU (Shazeer, 2020).

use bytemuck::{Pod, Zeroable};

use crate::{GemmKernel, groups_of_64};

/// The function of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// x / (1 + exp(-x)).
    Silu,
    /// 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), the usual approximation of GELU (Hendrycks and Gimpel, 2016).
    GeluTanh,
}

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

/// sqrt(2 / pi).
const ROOT: f32 = 0.797_884_6;

impl Activation {
    /// All functions.
    pub const ALL: [Self; 2] = [Self::Silu, Self::GeluTanh];

    /// `silu` or `gelu_tanh`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Silu => "silu",
            Self::GeluTanh => "gelu_tanh",
        }
    }

    /// The function, on the CPU.
    pub fn of(self, x: f32) -> f32 {
        match self {
            Self::Silu => x / (1.0 + (-x).exp()),
            Self::GeluTanh => 0.5 * x * (1.0 + (ROOT * (x + 0.044_715 * x * x * x)).tanh()),
        }
    }
}

pub(crate) fn context(kernel: GemmKernel, function: Activation) -> minijinja::Value {
    minijinja::context! {
        FUNCTION => function.name(),
        ROOT => ROOT.to_string(),
        ..crate::gemm::output_context(kernel)
    }
}

/// CPU twin: `gate_up [rows, 2 * columns]` to `[rows, columns]`.
pub fn cpu(function: Activation, columns: usize, gate_up: &[f32]) -> Vec<f32> {
    let mut output = Vec::with_capacity(gate_up.len() / 2);
    for row in gate_up.chunks(2 * columns) {
        let (gate, up) = row.split_at(columns);
        output.extend(gate.iter().zip(up).map(|(g, u)| function.of(*g) * u));
    }
    output
}
