// Root mean square norm for GPUs: output[r] = input[map(r)] / sqrt(mean(input[map(r)]^2) + epsilon) * weight
//   input:  [.., stride], read from row first_row + map(r), map(r) = (r / kept) * window + r % kept:
//           kept = window takes every row, kept = window - 1 leaves out the last position of each window
//   weight: [columns]
//   output: [rows, stride]
// One workgroup a row, put together in a fixed order (reduce.wgsl), so a row's result does not depend on its neighbours.
struct Params {
    rows: u32,
    columns: u32,
    stride: u32,
    // texels of a row of the output, for rms_norm_panel.wgsl
    inner4: u32,
    first_row: u32,
    window: u32,
    kept: u32,
    epsilon: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> output: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, lane: Lane) {
    let row = group.y * groups.x + group.x;
    if row >= params.rows {
        return;
    }
    let base = (params.first_row + (row / params.kept) * params.window + row % params.kept) * params.stride;
    var sum = 0.0;
    for (var column = lane.index; column < params.columns; column += 64u) {
        let value = input[base + column];
        sum += value * value;
    }
    let scale = 1.0 / sqrt(reduce_add(sum, lane) / f32(params.columns) + params.epsilon);
    for (var column = lane.index; column < params.columns; column += 64u) {
        output[row * params.stride + column] = weight[column] * (input[base + column] * scale);
    }
}
