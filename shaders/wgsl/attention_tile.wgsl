// Causal grouped-query attention with an online softmax, for GPUs.
//   q:      [rows, heads, {{ HEAD_TEXELS }}] of 4 neighbouring elements, as heads.wgsl writes it; a batch of windows of `window` rows
//   k, v:   [rows, heads / share, {{ HEAD_TEXELS }}]
//   output: [rows, output_stride]
// One workgroup of 64 invocations handles {{ QUERIES }} queries of one head, {{ KEYS }} keys at a time; {{ PER_QUERY }} invocations share a query.
// The blocks of keys start at the window's first key, so a query's result depends on its window alone{% if SLIDING %};
// those that no query of the workgroup sees are left out{% endif %}.
// Grid = blocks of queries x heads x windows.
struct Params {
    window: u32,
    heads: u32,
    // query heads that share a key head
    share: u32,
    head_dim: u32,
    // what scores are multiplied by
    scale: f32,
    first_window: u32,
    output_stride: u32,
    // what scores come near to at most, in the variant that caps
    cap: f32,
    // keys that a query sees, itself included, in the variant that slides
    sliding_window: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4f>;
@group(0) @binding(2) var<storage, read> k: array<vec4f>;
@group(0) @binding(3) var<storage, read> v: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> output: array<f32>;

// Lower than any score; WGSL may assume that there are no infinities.
const LOWEST = -3.0e38;

var<workgroup> tile_q: array<vec4f, {{ QUERIES * HEAD_TEXELS }}>;
// The keys, then the values, of one block.
var<workgroup> tile_kv: array<vec4f, {{ KEYS * HEAD_TEXELS }}>;
var<workgroup> scores: array<f32, {{ QUERIES * KEYS }}>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) index: u32) {
    let head = group.y;
    let window = params.first_window + group.z;
    let query0 = group.x * {{ QUERIES }}u;
    let i = index / {{ PER_QUERY }}u;
    let c = index % {{ PER_QUERY }}u;
    let query = query0 + i;
    // First texels of the head, in Q and in K and V, and from a row to the next in K and V.
    let from_q = (window * params.window * params.heads + head) * {{ HEAD_TEXELS }}u;
    let kv_texels = params.heads / params.share * {{ HEAD_TEXELS }}u;
    let from_kv = window * params.window * kv_texels + head / params.share * {{ HEAD_TEXELS }}u;
    for (var e = index; e < {{ QUERIES * HEAD_TEXELS }}u; e += 64u) {
        let row = query0 + e / {{ HEAD_TEXELS }}u;
        // Rows past the window are zeros, here and below.
        var value = vec4f(0.0);
        if row < params.window {
            value = q[from_q + row * params.heads * {{ HEAD_TEXELS }}u + e % {{ HEAD_TEXELS }}u];
        }
        tile_q[e] = value * params.scale;
    }
    var largest = LOWEST;
    var sum = 0.0;
{% for d in range(PER_INVOCATION) %}
    var o{{ d }} = vec4f(0.0);
{% endfor %}
    let keys = min(query0 + {{ QUERIES }}u, params.window);
{% if SLIDING %}
    let first = (query0 + 1u - min(query0 + 1u, params.sliding_window)) / {{ KEYS }}u * {{ KEYS }}u;
{% else %}
    let first = 0u;
{% endif %}
    for (var key0 = first; key0 < keys; key0 += {{ KEYS }}u) {
        for (var e = index; e < {{ KEYS * HEAD_TEXELS }}u; e += 64u) {
            let row = key0 + e / {{ HEAD_TEXELS }}u;
            var value = vec4f(0.0);
            if row < params.window {
                value = k[from_kv + row * kv_texels + e % {{ HEAD_TEXELS }}u];
            }
            tile_kv[e] = value;
        }
        workgroupBarrier();
        for (var key = c; key < {{ KEYS }}u; key += {{ PER_QUERY }}u) {
            var s = 0.0;
            for (var d = 0u; d < {{ HEAD_TEXELS }}u; d++) {
                s += dot(tile_q[i * {{ HEAD_TEXELS }}u + d], tile_kv[key * {{ HEAD_TEXELS }}u + d]);
            }
{% if SOFT_CAP %}
            s = capped(s);
{% endif %}
            scores[i * {{ KEYS }}u + key] = select(LOWEST, s, sees(query, key0 + key));
        }
        workgroupBarrier();
        for (var e = index; e < {{ KEYS * HEAD_TEXELS }}u; e += 64u) {
            let row = key0 + e / {{ HEAD_TEXELS }}u;
            var value = vec4f(0.0);
            if row < params.window {
                value = v[from_kv + row * kv_texels + e % {{ HEAD_TEXELS }}u];
            }
            tile_kv[e] = value;
        }
        var top = largest;
        for (var j = 0u; j < {{ KEYS }}u; j++) {
            top = max(top, scores[i * {{ KEYS }}u + j]);
        }
        let keep = exp(largest - top);
        largest = top;
        workgroupBarrier();
        for (var key = c; key < {{ KEYS }}u; key += {{ PER_QUERY }}u) {
            let at = i * {{ KEYS }}u + key;
            scores[at] = select(0.0, exp(scores[at] - top), sees(query, key0 + key));
        }
        workgroupBarrier();
        sum *= keep;
{% for d in range(PER_INVOCATION) %}
        o{{ d }} *= keep;
{% endfor %}
        for (var j = 0u; j < {{ KEYS }}u; j++) {
            let p = scores[i * {{ KEYS }}u + j];
            sum += p;
{% for d in range(PER_INVOCATION) %}
            o{{ d }} += p * tile_kv[min(j * {{ HEAD_TEXELS }}u + c + {{ d * PER_QUERY }}u, {{ KEYS * HEAD_TEXELS - 1 }}u)];
{% endfor %}
        }
        workgroupBarrier();
    }
    if query >= params.window {
        return;
    }
    let to = (window * params.window + query) * params.output_stride + head * params.head_dim;
{% for d in range(PER_INVOCATION) %}
    {
        let value = o{{ d }} / sum;
        let column = (c + {{ d * PER_QUERY }}u) * 4u;
{% for e in range(4) %}
        if column + {{ e }}u < params.head_dim {
            output[to + column + {{ e }}u] = value[{{ e }}];
        }
{% endfor %}
    }
{% endfor %}
}
