//! The activation of a gated feed-forward block.

use blockpruner_shaders::{Activation, Kernel, activation, gemm, stride};

use super::{Gpu, Operand, Recording, Resource};

/// Appends `output [rows, inner] = function(gate) * up`, where `input` is a product of `2 * stride(inner)` columns, gate
/// before up.
pub fn record_activation(
    gpu: &Gpu,
    recording: &mut Recording,
    function: Activation,
    inner: u32,
    rows: u32,
    input: &Resource,
    output: &Resource,
) -> Operand {
    let kernel = gpu.gemm();
    let params = activation::Params { rows, stride: stride(inner), inner4: gemm::inner_texels(inner) };
    let bindings = [input.clone(), output.clone()];
    let flops = rows as u64 * inner as u64 * 8;
    recording.dispatch(Kernel::Activation { kernel, function }, &params, bindings, params.grid(kernel), flops);
    Operand::new(output, rows)
}
