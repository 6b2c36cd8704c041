// Causal grouped-query attention with an online softmax, for GPUs.
//   qkv:    [rows, stride], Q, K and V side by side; a batch of windows of `window` rows
//   output: [rows, output_stride]
// One workgroup of 64 invocations handles {{ QUERIES }} queries of one head, {{ KEYS }} keys at a time; {{ PER_QUERY }} invocations share a query.
// The blocks of keys start at the window's first key, so a query's result depends on its window alone.
// Grid = blocks of queries x heads x windows.
struct Params {
    window: u32,
    heads: u32,
    // query heads that share a key head
    share: u32,
    head_dim: u32,
    // 1 / sqrt(head_dim)
    scale: f32,
    first_window: u32,
    stride: u32,
    output_stride: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> qkv: array<f32>;
@group(0) @binding(2) var<storage, read_write> output: array<f32>;

// Lower than any score; WGSL may assume that there are no infinities.
const LOWEST = -3.0e38;

var<workgroup> tile_q: array<vec4f, {{ QUERIES * HEAD_TEXELS }}>;
// The keys, then the values, of one block.
var<workgroup> tile_kv: array<vec4f, {{ KEYS * HEAD_TEXELS }}>;
var<workgroup> scores: array<f32, {{ QUERIES * KEYS }}>;

// Four neighbouring elements of a head; 0 past its end or past the window.
fn load(row: u32, window: u32, column: u32, d: u32) -> vec4f {
    var value = vec4f(0.0);
    if row < params.window {
        let base = (window * params.window + row) * params.stride + column + d;
{% for i in range(4) %}
        if d + {{ i }}u < params.head_dim {
            value[{{ i }}] = qkv[base + {{ i }}u];
        }
{% endfor %}
    }
    return value;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) index: u32) {
    let head = group.y;
    let window = params.first_window + group.z;
    let query0 = group.x * {{ QUERIES }}u;
    let i = index / {{ PER_QUERY }}u;
    let c = index % {{ PER_QUERY }}u;
    let query = query0 + i;
    let k_column = (params.heads + head / params.share) * params.head_dim;
    let v_column = k_column + params.heads / params.share * params.head_dim;
    for (var e = index; e < {{ QUERIES * HEAD_TEXELS }}u; e += 64u) {
        tile_q[e] = load(query0 + e / {{ HEAD_TEXELS }}u, window, head * params.head_dim, e % {{ HEAD_TEXELS }}u * 4u) * params.scale;
    }
    var largest = LOWEST;
    var sum = 0.0;
{% for d in range(PER_INVOCATION) %}
    var o{{ d }} = vec4f(0.0);
{% endfor %}
    let keys = min(query0 + {{ QUERIES }}u, params.window);
    for (var key0 = 0u; key0 < keys; key0 += {{ KEYS }}u) {
        for (var e = index; e < {{ KEYS * HEAD_TEXELS }}u; e += 64u) {
            tile_kv[e] = load(key0 + e / {{ HEAD_TEXELS }}u, window, k_column, e % {{ HEAD_TEXELS }}u * 4u);
        }
        workgroupBarrier();
        for (var key = c; key < {{ KEYS }}u; key += {{ PER_QUERY }}u) {
            var s = 0.0;
            for (var d = 0u; d < {{ HEAD_TEXELS }}u; d++) {
                s += dot(tile_q[i * {{ HEAD_TEXELS }}u + d], tile_kv[key * {{ HEAD_TEXELS }}u + d]);
            }
            scores[i * {{ KEYS }}u + key] = select(LOWEST, s, key0 + key <= query);
        }
        workgroupBarrier();
        for (var e = index; e < {{ KEYS * HEAD_TEXELS }}u; e += 64u) {
            tile_kv[e] = load(key0 + e / {{ HEAD_TEXELS }}u, window, v_column, e % {{ HEAD_TEXELS }}u * 4u);
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
            scores[at] = select(0.0, exp(scores[at] - top), key0 + key <= query);
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
