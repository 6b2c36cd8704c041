{% if GATED %}
// Gated activation for GPUs: output[r, i] = f(gate[r, i]) * up[r, i]; f is in activations.wgsl.
//   input:   [rows, 2 * stride], gate before up
{% else %}
// Activation for GPUs: output[r, i] = f(input[r, i]); f is in activations.wgsl.
//   input:   [rows, stride]
{% endif %}
//   output:  [rows, stride]
// One invocation an element; grid = elements of a row x rows.
struct Params {
    rows: u32,
    stride: u32,
    // texels of a row of the output, for activation_panel.wgsl
    inner4: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<f32>;
@group(0) @binding(2) var<storage, read_write> output: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let row = id.y;
    if row >= params.rows || id.x >= params.stride {
        return;
    }
{% if GATED %}
    let base = row * params.stride * 2u + id.x;
    output[row * params.stride + id.x] = activated(input[base]) * input[base + params.stride];
{% else %}
    output[row * params.stride + id.x] = activated(input[row * params.stride + id.x]);
{% endif %}
}
