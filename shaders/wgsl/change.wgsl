// What becomes of rows of the residual stream: of the states before and after something was added to them,
//   output[r] = (before . after, |before|^2, |after|^2, |after - before|^2)
//   before, after: [rows, stride]
//   output:        [rows]
// The residual stream lies in buffers, whatever the kernels: this is one shader for all of them. One workgroup a row, put together
// by a fixed tree, so a row's result does not depend on its neighbours.
struct Params {
    rows: u32,
    columns: u32,
    stride: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> before: array<f32>;
@group(0) @binding(2) var<storage, read> after: array<f32>;
@group(0) @binding(3) var<storage, read_write> output: array<vec4f>;

var<workgroup> partial: array<vec4f, 64>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.y * groups.x + group.x;
    if row >= params.rows {
        return;
    }
    let base = row * params.stride;
    var sums = vec4f();
    for (var column = lane; column < params.columns; column += 64u) {
        let x = before[base + column];
        let y = after[base + column];
        sums += vec4f(x * y, x * x, y * y, (y - x) * (y - x));
    }
    partial[lane] = sums;
    workgroupBarrier();
{% for half in [32, 16, 8, 4, 2, 1] %}
    if lane < {{ half }}u {
        partial[lane] += partial[lane + {{ half }}u];
    }
    workgroupBarrier();
{% endfor %}
    if lane == 0u {
        output[row] = partial[0];
    }
}
