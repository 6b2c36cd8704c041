// Gated activation for GPUs: output[r, i] = f(gate[r, i]) * up[r, i]; f is in activations.wgsl.
//   gate_up: [rows, 2 * stride], gate before up
//   output:  [rows, stride]
// One invocation an element; grid = elements of a row x rows.
struct Params {
    rows: u32,
    stride: u32,
    // texels of a row of the output, for activation_panel.wgsl
    inner4: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> gate_up: array<f32>;
@group(0) @binding(2) var<storage, read_write> output: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let row = id.y;
    if row >= params.rows || id.x >= params.stride {
        return;
    }
    let base = row * params.stride * 2u + id.x;
    output[row * params.stride + id.x] = activated(gate_up[base]) * gate_up[base + params.stride];
}
