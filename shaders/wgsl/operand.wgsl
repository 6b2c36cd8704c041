// Rows of the residual stream as they are, as the left side of a product: output[r] = input[first_row + r], for models
// that norm what a block adds and not what it reads.
//   input:  [.., stride]
{% if PANEL %}
//   output: as the left side of gemm_panel.wgsl: texel (block * inner4 + k4) * {{ ROWS }} + r holds 4 neighbouring elements of row
//           block * {{ ROWS }} + r, zeros past the input
// One invocation a texel; grid = texels of a row x rows.
{% else %}
//   output: [rows, stride]
// One invocation an element; grid = elements of a row x rows.
{% endif %}
struct Params {
    rows: u32,
    columns: u32,
    stride: u32,
    // texels of a row of the output
    inner4: u32,
    first_row: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
{% if PANEL %}
@group(0) @binding(1) var input: texture_storage_2d<rgba32float, read>;
@group(0) @binding(2) var output: texture_storage_2d<rgba32float, write>;
{% else %}
@group(0) @binding(1) var<storage, read> input: array<f32>;
@group(0) @binding(2) var<storage, read_write> output: array<f32>;
{% endif %}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let row = id.y;
{% if PANEL %}
    if row >= params.rows || id.x >= params.inner4 {
        return;
    }
    // What stands past the columns is nobody's concern where it is, and zero here.
    let there = 4u * id.x + vec4u(0u, 1u, 2u, 3u) < vec4u(params.columns);
    var value = vec4f(0.0);
    if id.x < params.stride / 4u {
        value = select(value, textureLoad(input, at((params.first_row + row) * (params.stride / 4u) + id.x)), there);
    }
    textureStore(output, at(in_block(row, id.x, params.inner4)), value);
{% else %}
    if row < params.rows && id.x < params.columns {
        output[row * params.stride + id.x] = input[(params.first_row + row) * params.stride + id.x];
    }
{% endif %}
}
