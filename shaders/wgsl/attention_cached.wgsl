// Causal grouped-query attention of new positions to everything in the KV cache, with an online softmax.
//   table:        [rows, head_dim / 2] of (cos, sin) of the new positions, the scaling of attention included
//   qkv:          [rows, stride], as a product writes it; Q stands first and is turned here; its row r is position past + r
//   keys, values: [positions, kv_heads, {{ HEAD_TEXELS }}], written by cache_append.wgsl, the new positions included
{% if PANEL %}
//   output:       as the left side of gemm_panel.wgsl: texel (block * inner4 + column / 4) * {{ ROWS }} + r for row block * {{ ROWS }} + r
{% else %}
//   output:       [rows, output_stride]
{% endif %}
// One workgroup of 64 invocations a row and head. For 64 keys at a time, first an invocation is a key and finds its
// score, then it is {{ PER_INVOCATION }} texel(s) of the head and one of {{ PARTS }} part(s) of the keys. The blocks of keys start at position 0 and the trees
// are fixed, so a position's result does not depend on what it is computed with.
// Software drivers may stop a loop after 65,535 iterations in total: here that are {{ 1 + KEYS_PER_PART // 4 }} for 64 keys.
// Grid = heads x rows.
struct Params {
    // positions that the cache held before these rows
    past: u32,
    heads: u32,
    // query heads that share a key head
    share: u32,
    // 1 / sqrt(head_dim)
    scale: f32,
    // elements from one row of qkv to the next
    stride: u32,
    // elements from one row of the output to the next; or texels, padding included
    output_stride: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
{% if PANEL %}
@group(0) @binding(1) var table: texture_storage_2d<rgba32float, read>;
@group(0) @binding(2) var qkv: texture_storage_2d<rgba32float, read>;
{% else %}
@group(0) @binding(1) var<storage, read> table: array<vec2f>;
@group(0) @binding(2) var<storage, read> qkv: array<f32>;
{% endif %}
@group(0) @binding(3) var<storage, read> keys: array<vec4f>;
@group(0) @binding(4) var<storage, read> values: array<vec4f>;
{% if PANEL %}
@group(0) @binding(5) var output: texture_storage_2d<rgba32float, write>;
{% else %}
@group(0) @binding(5) var<storage, read_write> output: array<f32>;
{% endif %}

const HEAD_DIM = {{ HEAD_DIM }}u;
const HALF = {{ HEAD_DIM // 2 }}u;
// Lower than any score; WGSL may assume that there are no infinities.
const LOWEST = -3.0e38;

var<workgroup> q: array<vec4f, {{ HEAD_TEXELS }}>;
var<workgroup> scores: array<f32, 64>;
var<workgroup> tops: array<f32, 8>;
var<workgroup> partial: array<vec4f, 64>;
var<workgroup> sums: array<f32, 64>;

// Four neighbouring elements of the query, turned and scaled; 0 past its end.
fn query(row: u32, head: u32, d: u32) -> vec4f {
    let base = head * HEAD_DIM;
    var texel = vec4f(0.0);
    for (var e = 0u; e < 4u; e++) {
        let i = d + e;
        if i >= HEAD_DIM {
            break;
        }
        let by = turn(row * HALF + i % HALF);
        if i < HALF {
            texel[e] = projected(row, base + i) * by.x - projected(row, base + i + HALF) * by.y;
        } else {
            texel[e] = projected(row, base + i) * by.x + projected(row, base + i - HALF) * by.y;
        }
    }
    return texel * params.scale;
}

fn store(row: u32, head: u32, texel: u32, value: vec4f) {
{% if PANEL %}
    textureStore(output, at(in_block(row, head * {{ HEAD_TEXELS }}u + texel, params.output_stride)), value);
{% else %}
    let to = row * params.output_stride + head * HEAD_DIM;
    for (var e = 0u; e < 4u; e++) {
        if texel * 4u + e < HEAD_DIM {
            output[to + texel * 4u + e] = value[e];
        }
    }
{% endif %}
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let head = group.x;
    let row = group.y;
    let count = params.past + row + 1u;
    let kv_texels = params.heads / params.share * {{ HEAD_TEXELS }}u;
    let kv_base = head / params.share * {{ HEAD_TEXELS }}u;
    for (var e = lane; e < {{ HEAD_TEXELS }}u; e += 64u) {
        q[e] = query(row, head, e * 4u);
    }
    let part = lane / {{ LANES_PER_PART }}u;
    let column = lane % {{ LANES_PER_PART }}u;
    var largest = LOWEST;
    var sum = 0.0;
{% for d in range(PER_INVOCATION) %}
    let texel{{ d }} = kv_base + min(column + {{ 64 * d }}u, {{ HEAD_TEXELS - 1 }}u);
    var o{{ d }} = vec4f(0.0);
{% endfor %}
    workgroupBarrier();
    for (var key0 = 0u; key0 < count; key0 += 64u) {
        let key = key0 + lane;
        // A key past the last is the last once more and then counts nothing.
        let from_k = min(key, count - 1u) * kv_texels + kv_base;
        var s = 0.0;
{% for d in range(HEAD_TEXELS) %}
        s += dot(q[{{ d }}], keys[from_k + {{ d }}u]);
{% endfor %}
        s = select(LOWEST, s, key < count);
        scores[lane] = s;
        workgroupBarrier();
        if lane < 8u {
            var eight = scores[lane * 8u];
{% for j in range(1, 8) %}
            eight = max(eight, scores[lane * 8u + {{ j }}u]);
{% endfor %}
            tops[lane] = eight;
        }
        workgroupBarrier();
        var top = largest;
{% for j in range(8) %}
        top = max(top, tops[{{ j }}]);
{% endfor %}
        let keep = exp(largest - top);
        largest = top;
        scores[lane] = select(0.0, exp(s - top), key < count);
        workgroupBarrier();
        sum *= keep;
{% for d in range(PER_INVOCATION) %}
        o{{ d }} *= keep;
{% endfor %}
        for (var j = part; j < 64u; j += {{ 4 * PARTS }}u) {
{% for i in range(4) %}
            {
                let p = scores[j + {{ i * PARTS }}u];
                let from_v = min(key0 + j + {{ i * PARTS }}u, count - 1u) * kv_texels;
                sum += p;
{% for d in range(PER_INVOCATION) %}
                o{{ d }} += p * values[from_v + texel{{ d }}];
{% endfor %}
            }
{% endfor %}
        }
        workgroupBarrier();
    }
    sums[lane] = sum;
{% for d in range(PER_INVOCATION) %}
    partial[lane] = o{{ d }};
    workgroupBarrier();
    if part == 0u && column + {{ 64 * d }}u < {{ HEAD_TEXELS }}u {
        var total = sums[lane];
        var value = partial[lane];
{% for i in range(1, PARTS) %}
        total += sums[lane + {{ i * LANES_PER_PART }}u];
        value += partial[lane + {{ i * LANES_PER_PART }}u];
{% endfor %}
        store(row, head, column + {{ 64 * d }}u, value / total);
    }
    workgroupBarrier();
{% endfor %}
{% if PANEL %}
    if lane == 0u && head == params.heads - 1u {
        // Padding of the row: whatever stands there must not be NaN, its weights are zeros.
        for (var i = params.heads * {{ HEAD_TEXELS }}u; i < params.output_stride; i++) {
            store(row, 0u, i, vec4f(0.0));
        }
    }
{% endif %}
}
