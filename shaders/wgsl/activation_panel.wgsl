// Activation for CPU-type adapters, as activation.wgsl, written as the left side of gemm_panel.wgsl.
//   input:   [rows, {{ "2 * stride], gate before up, each" if GATED else "stride]," }} padded with zeros, as gemm_panel.wgsl writes it
//   output:  texel (block * inner4 + k4) * {{ ROWS }} + r holds 4 neighbouring elements of row block * {{ ROWS }} + r, zeros past the input
// One invocation a texel; grid = texels of a row x rows.
struct Params {
    rows: u32,
    stride: u32,
    inner4: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var input: texture_storage_2d<rgba32float, read>;
@group(0) @binding(2) var output: texture_storage_2d<rgba32float, write>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let stride4 = params.stride / 4u;
    let row = id.y;
    if row >= params.rows || id.x >= params.inner4 {
        return;
    }
    var value = vec4f(0.0);
    if id.x < stride4 {
{% if GATED %}
        let base = in_block(row, id.x, stride4 * 2u);
        value = activated(textureLoad(input, at(base))) * textureLoad(input, at(base + stride4 * {{ ROWS }}u));
{% else %}
        value = activated(textureLoad(input, at(in_block(row, id.x, stride4))));
{% endif %}
    }
    textureStore(output, at(in_block(row, id.x, params.inner4)), value);
}
