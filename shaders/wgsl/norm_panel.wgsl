// {{ "Layer norm" if LAYER else "Root mean square norm" }} for CPU-type adapters, as norm.wgsl.
{% if TO_RESIDUAL %}
//   input:    [rows, stride], as gemm_panel.wgsl writes it
//   weight:   [{{ "2, " if LAYER }}stride], padded with zeros
//   residual: [rows, stride]
//   output:   [rows, stride], the sums of the two
{% else %}
//   input:  [.., stride], weight: [{{ "2, " if LAYER }}stride], both padded with zeros
//   output: as the left side of gemm_panel.wgsl: texel (block * inner4 + k4) * {{ ROWS }} + r holds 4 neighbouring elements of row
//           block * {{ ROWS }} + r, zeros past the input
{% endif %}
// One lane a row, so that nothing is shared between lanes.
struct Params {
    rows: u32,
    columns: u32,
    stride: u32,
    inner4: u32,
    first_row: u32,
    epsilon: f32,
    scale: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var input: texture_storage_2d<rgba32float, read>;
@group(0) @binding(2) var weight: texture_storage_2d<rgba32float, read>;
@group(0) @binding(3) var output: texture_storage_2d<rgba32float, write>;
{% if TO_RESIDUAL %}
@group(0) @binding(4) var residual: texture_storage_2d<rgba32float, read>;
{% elif INDEXED %}
@group(0) @binding(4) var<storage, read> indices: array<u32>;
{% endif %}

{% set NEXT = ROWS if TO_RESIDUAL else 1 %}
@compute @workgroup_size({{ LANES }})
fn main(@builtin(global_invocation_id) id: vec3u) {
    let stride4 = params.stride / 4u;
    let row = id.x;
    if row >= params.rows {
        return;
    }
{% if TO_RESIDUAL %}
    let base = in_block(row, 0u, stride4);
{% elif INDEXED %}
    let base = (params.first_row + indices[row]) * stride4;
{% else %}
    let base = (params.first_row + row) * stride4;
{% endif %}
{% if LAYER %}
    var totals = vec4f(0.0);
    for (var i = 0u; i < stride4; i++) {
        totals += textureLoad(input, at(base + i{% if NEXT > 1 %} * {{ NEXT }}u{% endif %}));
    }
    let mean = ((totals.x + totals.y) + (totals.z + totals.w)) / f32(params.columns);
    // What is past the columns of the last texel does not count.
    let columns = vec4u(0u, 1u, 2u, 3u);
{% endif %}
    var squares = vec4f(0.0);
    for (var i = 0u; i < stride4; i++) {
        let value = textureLoad(input, at(base + i{% if NEXT > 1 %} * {{ NEXT }}u{% endif %}));
{% if LAYER %}
        let distance = select(vec4f(0.0), value - mean, vec4u(4u * i) + columns < vec4u(params.columns));
        squares += distance * distance;
{% else %}
        squares += value * value;
{% endif %}
    }
    let sum = (squares.x + squares.y) + (squares.z + squares.w);
    let inverse = 1.0 / sqrt(sum / f32(params.columns) + params.epsilon);
{% if TO_RESIDUAL %}
    let scale = params.scale;
    let to = row * stride4;
    for (var i = 0u; i < stride4; i++) {
{% if LAYER %}
        let normed = textureLoad(weight, at(i)) * ((textureLoad(input, at(base + i * {{ ROWS }}u)) - mean) * inverse) + textureLoad(weight, at(stride4 + i));
{% else %}
        let normed = textureLoad(weight, at(i)) * (textureLoad(input, at(base + i * {{ ROWS }}u)) * inverse);
{% endif %}
        textureStore(output, at(to + i), textureLoad(residual, at(to + i)) + scale * normed);
    }
{% else %}
    let to = in_block(row, 0u, params.inner4);
    for (var i = 0u; i < stride4; i++) {
{% if LAYER %}
        let normed = textureLoad(weight, at(i)) * ((textureLoad(input, at(base + i)) - mean) * inverse) + textureLoad(weight, at(stride4 + i));
        textureStore(output, at(to + i * {{ ROWS }}u), normed);
{% else %}
        textureStore(output, at(to + i * {{ ROWS }}u), textureLoad(weight, at(i)) * (textureLoad(input, at(base + i)) * inverse));
{% endif %}
    }
    for (var i = stride4; i < params.inner4; i++) {
        textureStore(output, at(to + i * {{ ROWS }}u), vec4f(0.0));
    }
{% endif %}
}
