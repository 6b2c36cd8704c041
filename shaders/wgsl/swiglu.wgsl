// SwiGLU for GPUs: output[r, i] = silu(gate[r, i]) * up[r, i], silu(x) = x / (1 + exp(-x)).
//   gate_up: [rows, 2 * stride], gate before up
//   output:  [rows, stride]
// One invocation an element; grid = elements of a row x rows.
struct Params {
    rows: u32,
    stride: u32,
    // texels of a row of the output, for swiglu_panel.wgsl
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
    let gate = gate_up[base];
    // Beyond -88 exp overflows f32, where WGSL promises nothing; silu is 0 to f32 precision there.
    let silu = gate / (1.0 + exp(min(-gate, 87.0)));
    output[row * params.stride + id.x] = silu * gate_up[base + params.stride];
}
