// Puts the keys and values of new positions into the KV cache; keys are turned by their position on the way, as
// rotary.wgsl does.
//   table:        [rows, head_dim / 2] of (cos, sin) of the new positions, the scaling of attention included
//   qkv:          [rows, stride], as a product writes it; Q, K and V side by side
//   keys, values: [positions, kv_heads, {{ HEAD_TEXELS }}] of 4 neighbouring elements of a head, zeros past its end
// One invocation a texel of K and one of V; grid = texels of K and V of a row x rows.
struct Params {
    rows: u32,
    // positions that the cache holds already
    past: u32,
    heads: u32,
    kv_heads: u32,
    stride: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
{% if PANEL %}
@group(0) @binding(1) var table: texture_storage_2d<rgba32float, read>;
@group(0) @binding(2) var qkv: texture_storage_2d<rgba32float, read>;
{% else %}
@group(0) @binding(1) var<storage, read> table: array<vec2f>;
@group(0) @binding(2) var<storage, read> qkv: array<f32>;
{% endif %}
@group(0) @binding(3) var<storage, read_write> keys: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> values: array<vec4f>;

const HEAD_DIM = {{ HEAD_DIM }}u;
const HALF = {{ HEAD_DIM // 2 }}u;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let row = id.y;
    let texels = params.kv_heads * {{ HEAD_TEXELS }}u;
    if row >= params.rows || id.x >= 2u * texels {
        return;
    }
    let is_key = id.x < texels;
    let t = id.x % texels;
    let d = t % {{ HEAD_TEXELS }}u * 4u;
    let head = params.heads + id.x / {{ HEAD_TEXELS }}u;
    let base = head * HEAD_DIM;
    var texel = vec4f(0.0);
    for (var e = 0u; e < 4u; e++) {
        let i = d + e;
        if i >= HEAD_DIM {
            break;
        }
        var x = projected(row, base + i);
        if is_key {
            let by = turn(row * HALF + i % HALF);
            if i < HALF {
                x = x * by.x - projected(row, base + i + HALF) * by.y;
            } else {
                x = x * by.x + projected(row, base + i - HALF) * by.y;
            }
        }
        texel[e] = x;
    }
    let to = (params.past + row) * texels + t;
    if is_key {
        keys[to] = texel;
    } else {
        values[to] = texel;
    }
}
