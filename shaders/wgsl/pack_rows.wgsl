// Copies the rows of a matrix into the texture that gemm_panel.wgsl reads: texel (block, k4, r) holds 4 neighbouring
// k of row block * {{ ROWS }} + r; rows and columns that do not exist are zeros.
//   input:  [rows, columns]
//   output: texels t = (block * inner4 + k4) * {{ ROWS }} + r at (t % {{ TEXTURE_WIDTH }}, t / {{ TEXTURE_WIDTH }})
// One invocation a texel; grid = texels of a block of rows x blocks.
struct Params {
    rows: u32,
    columns: u32,
    inner4: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<f32>;
@group(0) @binding(2) var output: texture_storage_2d<rgba32float, write>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= params.inner4 * {{ ROWS }}u {
        return;
    }
    let row = id.y * {{ ROWS }}u + id.x % {{ ROWS }}u;
    let column = (id.x / {{ ROWS }}u) * 4u;
    var texel = vec4f(0.0);
    if row < params.rows {
        let base = row * params.columns + column;
{% for k in range(4) %}
        if column + {{ k }}u < params.columns {
            texel[{{ k }}] = input[base + {{ k }}u];
        }
{% endfor %}
    }
    let t = id.y * params.inner4 * {{ ROWS }}u + id.x;
    textureStore(output, vec2u(t % {{ TEXTURE_WIDTH }}u, t / {{ TEXTURE_WIDTH }}u), texel);
}
