// Rotary position embedding, in place, on the Q and K parts of a fused projection (halves rotated, as in Hugging Face
// checkpoints): (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin) with x2 half a head after x1.
//   qkv:   [rows, stride]; heads of head_dim columns, the first `heads` of them (Q, then K) are rotated
//   table: [window, head_dim / 2] of (cos, sin), the scaling of attention included
// Row r is position r % window. One invocation a pair; grid = pairs of a row x rows.
struct Params {
    rows: u32,
    stride: u32,
    heads: u32,
    half_dim: u32,
    window: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> table: array<vec2f>;
@group(0) @binding(2) var<storage, read_write> qkv: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let row = id.y;
    if row >= params.rows || id.x >= params.heads * params.half_dim {
        return;
    }
    let head = id.x / params.half_dim;
    let i = id.x % params.half_dim;
    let turn = table[(row % params.window) * params.half_dim + i];
    let first = row * params.stride + head * params.half_dim * 2u + i;
    let second = first + params.half_dim;
    let x1 = qkv[first];
    let x2 = qkv[second];
    qkv[first] = x1 * turn.x - x2 * turn.y;
    qkv[second] = x2 * turn.x + x1 * turn.y;
}
