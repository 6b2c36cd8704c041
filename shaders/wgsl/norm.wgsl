{% if LAYER %}
// Layer norm for GPUs: n(x) = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon) * weight + bias
{% else %}
// Root mean square norm for GPUs: n(x) = x / sqrt(mean(x^2) + epsilon) * weight
{% endif %}
{% if TO_RESIDUAL %}
// of the rows of a product, added to the residual stream: states[first_row + r] += scale * n(input[r]).
//   input:  [rows, stride], as a product writes it
//   states: [.., stride]
{% else %}
// of rows of the residual stream: output[r] = n(input[first_row + {{ "indices[r]" if INDEXED else "r" }}]).
//   input:  [.., stride]
//   output: [rows, stride]
{% endif %}
//   weight: [{{ "2, stride], the bias behind it" if LAYER else "columns]" }}
// One workgroup a row, put together in a fixed order (reduce.wgsl), so a row's result does not depend on its neighbours.
struct Params {
    rows: u32,
    columns: u32,
    stride: u32,
    // texels of a row of the output, for norm_panel.wgsl
    inner4: u32,
    first_row: u32,
    epsilon: f32,
    scale: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
{% if TO_RESIDUAL %}
@group(0) @binding(3) var<storage, read_write> states: array<f32>;
{% else %}
@group(0) @binding(3) var<storage, read_write> output: array<f32>;
{% endif %}
{% if INDEXED %}
@group(0) @binding(4) var<storage, read> indices: array<u32>;
{% endif %}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, lane: Lane) {
    let row = group.y * groups.x + group.x;
    if row >= params.rows {
        return;
    }
{% if TO_RESIDUAL %}
    let base = row * params.stride;
{% elif INDEXED %}
    let base = (params.first_row + indices[row]) * params.stride;
{% else %}
    let base = (params.first_row + row) * params.stride;
{% endif %}
{% if LAYER %}
    var total = 0.0;
    for (var column = lane.index; column < params.columns; column += 64u) {
        total += input[base + column];
    }
    let mean = reduce_add(total, lane) / f32(params.columns);
{% endif %}
    var sum = 0.0;
    for (var column = lane.index; column < params.columns; column += 64u) {
        let value = input[base + column]{{ " - mean" if LAYER }};
        sum += value * value;
    }
    let inverse = 1.0 / sqrt(reduce_add(sum, lane) / f32(params.columns) + params.epsilon);
{% if TO_RESIDUAL %}
    let to = (params.first_row + row) * params.stride;
{% else %}
    let to = row * params.stride;
{% endif %}
    for (var column = lane.index; column < params.columns; column += 64u) {
{% if LAYER %}
        let normed = weight[column] * ((input[base + column] - mean) * inverse) + weight[params.stride + column];
{% else %}
        let normed = weight[column] * (input[base + column] * inverse);
{% endif %}
{% if TO_RESIDUAL %}
        states[to + column] += params.scale * normed;
{% else %}
        output[to + column] = normed;
{% endif %}
    }
}
