// Root mean square norm for CPU-type adapters, as rms_norm.wgsl, written as the left side of gemm_panel.wgsl.
//   input:  [.., stride], weight: [stride], both padded with zeros
//   output: texel (block * inner4 + k4) * {{ ROWS }} + r holds 4 neighbouring elements of row block * {{ ROWS }} + r, zeros past the input
// One lane a row, so that nothing is shared between lanes.
struct Params {
    rows: u32,
    columns: u32,
    stride: u32,
    inner4: u32,
    first_row: u32,
    window: u32,
    kept: u32,
    epsilon: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var input: texture_storage_2d<rgba32float, read>;
@group(0) @binding(2) var weight: texture_storage_2d<rgba32float, read>;
@group(0) @binding(3) var output: texture_storage_2d<rgba32float, write>;

@compute @workgroup_size({{ LANES }})
fn main(@builtin(global_invocation_id) id: vec3u) {
    let stride4 = params.stride / 4u;
    let row = id.x;
    if row >= params.rows {
        return;
    }
    let base = (params.first_row + (row / params.kept) * params.window + row % params.kept) * stride4;
    var squares = vec4f(0.0);
    for (var i = 0u; i < stride4; i++) {
        let value = textureLoad(input, at(base + i));
        squares += value * value;
    }
    let sum = (squares.x + squares.y) + (squares.z + squares.w);
    let scale = 1.0 / sqrt(sum / f32(params.columns) + params.epsilon);
    let to = in_block(row, 0u, params.inner4);
    for (var i = 0u; i < stride4; i++) {
        textureStore(output, at(to + i * {{ ROWS }}u), textureLoad(weight, at(i)) * (textureLoad(input, at(base + i)) * scale));
    }
    for (var i = stride4; i < params.inner4; i++) {
        textureStore(output, at(to + i * {{ ROWS }}u), vec4f(0.0));
    }
}
