// Residual add, in place: state[first_row + r, i] += branch[r, i].
//   state:  [.., columns]
//   branch: [rows, columns]
// One invocation an element; grid = elements of a row x rows.
struct Params {
    rows: u32,
    columns: u32,
    first_row: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> branch: array<f32>;
@group(0) @binding(2) var<storage, read_write> state: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let row = id.y;
    if row >= params.rows || id.x >= params.columns {
        return;
    }
    state[(params.first_row + row) * params.columns + id.x] += branch[row * params.columns + id.x];
}
