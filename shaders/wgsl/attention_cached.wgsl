// Causal grouped-query attention of new positions to everything in the KV cache, with an online softmax.
//   q:            [rows, heads, {{ HEAD_TEXELS }}] of 4 neighbouring elements, as heads.wgsl writes it; its row r is position past + r
//   keys, values: [positions, kv_heads, {{ HEAD_TEXELS }}], the new positions included
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
    // what scores are multiplied by
    scale: f32,
    // elements from one row of the output to the next; or texels, padding included
    output_stride: u32,
    // what scores come near to at most, in the variant that caps
    cap: f32,
    // keys that a query sees, itself included, in the variant that slides
    sliding_window: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4f>;
@group(0) @binding(2) var<storage, read> keys: array<vec4f>;
@group(0) @binding(3) var<storage, read> values: array<vec4f>;
{% if PANEL %}
@group(0) @binding(4) var output: texture_storage_2d<rgba32float, write>;
{% else %}
@group(0) @binding(4) var<storage, read_write> output: array<f32>;
{% endif %}

const HEAD_DIM = {{ HEAD_DIM }}u;
// Lower than any score; WGSL may assume that there are no infinities.
const LOWEST = -3.0e38;

var<workgroup> query: array<vec4f, {{ HEAD_TEXELS }}>;
var<workgroup> scores: array<f32, 64>;
var<workgroup> tops: array<f32, 8>;
var<workgroup> partial: array<vec4f, 64>;
var<workgroup> sums: array<f32, 64>;

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
        query[e] = q[(row * params.heads + head) * {{ HEAD_TEXELS }}u + e] * params.scale;
    }
    let part = lane / {{ LANES_PER_PART }}u;
    let column = lane % {{ LANES_PER_PART }}u;
    var largest = LOWEST;
    var sum = 0.0;
{% if SLOPES %}
    let slope = slope_of(head);
{% endif %}
{% for d in range(PER_INVOCATION) %}
    let texel{{ d }} = kv_base + min(column + {{ 64 * d }}u, {{ HEAD_TEXELS - 1 }}u);
    var o{{ d }} = vec4f(0.0);
{% endfor %}
    workgroupBarrier();
{% if SLIDING %}
    let first = (count - min(count, params.sliding_window)) / 64u * 64u;
{% else %}
    let first = 0u;
{% endif %}
    for (var key0 = first; key0 < count; key0 += 64u) {
        let key = key0 + lane;
        // A key past the last is the last once more and then counts nothing.
        let from_k = min(key, count - 1u) * kv_texels + kv_base;
        var s = 0.0;
{% for d in range(HEAD_TEXELS) %}
        s += dot(query[{{ d }}], keys[from_k + {{ d }}u]);
{% endfor %}
{% if SLOPES %}
        s = biased(s, slope, key);
{% endif %}
{% if SOFT_CAP %}
        s = capped(s);
{% endif %}
        let counts = sees(count - 1u, key);
        s = select(LOWEST, s, counts);
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
        scores[lane] = select(0.0, exp(s - top), counts);
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
