//! What becomes of the residual stream when something is added to it.

use blockpruner_shaders::change::Params;
use blockpruner_shaders::{Kernel, stride};

use super::{Recording, Resource};

/// Appends a comparison of the first `rows` rows of `before` and `after`, both `[.., stride(columns)]`: `output [rows, 4]` is
/// (before . after, |before|^2, |after|^2, |after - before|^2).
pub fn record_change(
    recording: &mut Recording,
    (before, after): (&wgpu::Buffer, &wgpu::Buffer),
    (rows, columns): (u32, u32),
    output: &wgpu::Buffer,
) {
    let params = Params { rows, columns, stride: stride(columns) };
    let bindings: [Resource; 3] = [before.into(), after.into(), output.into()];
    let flops = rows as u64 * columns as u64 * 9;
    recording.dispatch(Kernel::Change, &params, bindings, params.grid(), flops);
}
