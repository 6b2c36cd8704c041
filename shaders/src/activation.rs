//! Activations of feed-forward blocks, `activation.wgsl` and `activation_panel.wgsl`: by themselves, or gating another
//! product, as SwiGLU and GeGLU do (Shazeer, 2020).

use bytemuck::{Pod, Zeroable};

use crate::{GemmKernel, groups_of_64};

/// The function of the activation, or of its gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// x / (1 + exp(-x)).
    Silu,
    /// 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), the usual approximation of GELU (Hendrycks and Gimpel, 2016).
    GeluTanh,
    /// GELU itself: 0.5 x (1 + erf(x / sqrt(2))).
    Gelu,
    /// max(x, 0).
    Relu,
    /// max(x, 0)^2 (So et al., 2021).
    ReluSquared,
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

/// erf(x) = 1 - (a1 t + .. + a5 t^5) exp(-x^2) with t = 1 / (1 + p x), for x >= 0: formula 7.1.26 of Abramowitz and Stegun
/// (1964), good to 1.5e-7. p, then a1 to a5.
const ERF: [f64; 6] = [0.327_591_1, 0.254_829_592, -0.284_496_736, 1.421_413_741, -1.453_152_027, 1.061_405_429];

/// erf by the formula of [`ERF`], here in f64, so that a twin shows what the formula and f32 lose together.
fn erf(x: f64) -> f64 {
    let [p, factors @ ..] = ERF;
    let t = 1.0 / (1.0 + p * x.abs());
    let sum = factors.iter().rev().fold(0.0, |sum, factor| (sum + factor) * t);
    (1.0 - sum * (-x * x).exp()).copysign(x)
}

impl Activation {
    /// All functions.
    pub const ALL: [Self; 5] = [Self::Silu, Self::GeluTanh, Self::Gelu, Self::Relu, Self::ReluSquared];

    /// `silu`, `gelu_tanh`, `gelu`, `relu` or `relu_squared`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Silu => "silu",
            Self::GeluTanh => "gelu_tanh",
            Self::Gelu => "gelu",
            Self::Relu => "relu",
            Self::ReluSquared => "relu_squared",
        }
    }

    /// The function, on the CPU.
    pub fn of(self, x: f32) -> f32 {
        match self {
            Self::Silu => x / (1.0 + (-x).exp()),
            Self::GeluTanh => 0.5 * x * (1.0 + (ROOT * (x + 0.044_715 * x * x * x)).tanh()),
            Self::Gelu => (0.5 * f64::from(x) * (1.0 + erf(f64::from(x) * std::f64::consts::FRAC_1_SQRT_2))) as f32,
            Self::Relu => x.max(0.0),
            Self::ReluSquared => x.max(0.0) * x.max(0.0),
        }
    }
}

pub(crate) fn context(kernel: GemmKernel, function: Activation, gated: bool) -> minijinja::Value {
    minijinja::context! {
        FUNCTION => function.name(),
        GATED => gated,
        ROOT => ROOT.to_string(),
        ERF => ERF.map(|constant| constant.to_string()),
        ..crate::gemm::output_context(kernel)
    }
}

/// CPU twin: `input [rows, columns]`, or if it is gated `[rows, 2 * columns]` with the gate before what it multiplies, to
/// `[rows, columns]`.
pub fn cpu(function: Activation, gated: bool, columns: usize, input: &[f32]) -> Vec<f32> {
    if !gated {
        return input.iter().map(|x| function.of(*x)).collect();
    }
    let mut output = Vec::with_capacity(input.len() / 2);
    for row in input.chunks(2 * columns) {
        let (gate, up) = row.split_at(columns);
        output.extend(gate.iter().zip(up).map(|(g, u)| function.of(*g) * u));
    }
    output
}
