//! The activation of a feed-forward block.

use blockpruner_shaders::{Activation, Kernel, activation, gemm, stride};

use super::{Gpu, Operand, Recording, Resource};

/// Appends `output [rows, inner] = function(input)` or, if it is gated, `function(gate) * up`, where `input` is a product of
/// `2 * stride(inner)` columns, gate before up.
#[allow(clippy::too_many_arguments, reason = "one dispatch, spelt out")]
pub fn record_activation(
    gpu: &Gpu,
    recording: &mut Recording,
    (function, gated): (Activation, bool),
    inner: u32,
    rows: u32,
    input: &Resource,
    output: &Resource,
) -> Operand {
    let kernel = gpu.gemm();
    let params = activation::Params { rows, stride: stride(inner), inner4: gemm::inner_texels(inner) };
    let bindings = [input.clone(), output.clone()];
    let flops = rows as u64 * inner as u64 * 8;
    recording.dispatch(Kernel::Activation { kernel, function, gated }, &params, bindings, params.grid(kernel), flops);
    Operand::new(output, rows)
}
