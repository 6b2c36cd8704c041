// Causal grouped-query attention with an online softmax, for CPU-type adapters.
//   q, k, v: heads packed by attention_pack.wgsl; {{ HEAD_TEXELS }} texels a head
//   output:  [rows, heads * head_dim]
// One workgroup is one vector of {{ LANES }} lanes, a lane is one query of one head; all lanes read the same keys, {{ KEYS }} at a time.
// The blocks of keys start at the window's first key, so a query's result depends on its window alone.
// Grid = blocks of queries x heads x windows.
struct Params {
    window: u32,
    heads: u32,
    // query heads that share a key head
    share: u32,
    head_dim: u32,
    // blocks of {{ LANES }} queries in a window
    blocks: u32,
    // 1 / sqrt(head_dim)
    scale: f32,
    first_window: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var q: texture_storage_2d<rgba32float, read>;
@group(0) @binding(2) var k: texture_storage_2d<rgba32float, read>;
@group(0) @binding(3) var v: texture_storage_2d<rgba32float, read>;
@group(0) @binding(4) var<storage, read_write> output: array<f32>;

// Lower than any score; WGSL may assume that there are no infinities.
const LOWEST = -3.0e38;

fn at(t: u32) -> vec2u {
    return vec2u(t % {{ TEXTURE_WIDTH }}u, t / {{ TEXTURE_WIDTH }}u);
}

@compute @workgroup_size({{ LANES }})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let head = group.y;
    let window = params.first_window + group.z;
    let query = group.x * {{ LANES }}u + lane;
    let q_base = ((window * params.heads + head) * params.blocks + group.x) * {{ HEAD_TEXELS * LANES }}u + lane;
    let kv_base = (window * (params.heads / params.share) + head / params.share) * params.window * {{ HEAD_TEXELS }}u;
    // The last query of the block sees this many keys.
    let keys = min((group.x + 1u) * {{ LANES }}u, params.window);
    var largest = LOWEST;
    var sum = 0.0;
{% for d in range(HEAD_TEXELS) %}
    var o{{ d }} = vec4f(0.0);
{% endfor %}
    for (var key = 0u; key < keys; key += {{ KEYS }}u) {
        let base = kv_base + key * {{ HEAD_TEXELS }}u;
{% for j in range(KEYS) %}
        var s{{ j }} = 0.0;
{% endfor %}
        for (var d = 0u; d < {{ HEAD_TEXELS // UNROLL }}u; d++) {
{% for u in range(UNROLL) %}
            {
                let qd = textureLoad(q, at(q_base + (d * {{ UNROLL }}u + {{ u }}u) * {{ LANES }}u));
{% for j in range(KEYS) %}
                s{{ j }} += dot(qd, textureLoad(k, at(base + {{ j * HEAD_TEXELS }}u + d * {{ UNROLL }}u + {{ u }}u)));
{% endfor %}
            }
{% endfor %}
        }
        // Keys past the query, and with them those past the window, count nothing.
{% for j in range(KEYS) %}
        s{{ j }} = select(LOWEST, s{{ j }} * params.scale, key + {{ j }}u <= query);
{% endfor %}
        var top = largest;
{% for j in range(KEYS) %}
        top = max(top, s{{ j }});
{% endfor %}
        let keep = exp(largest - top);
        largest = top;
{% for j in range(KEYS) %}
        let p{{ j }} = select(0.0, exp(s{{ j }} - top), key + {{ j }}u <= query);
{% endfor %}
        sum = sum * keep{% for j in range(KEYS) %} + p{{ j }}{% endfor %};
{% for d in range(HEAD_TEXELS) %}
        o{{ d }} *= keep;
{% endfor %}
{% for j in range(KEYS) %}
{% for d in range(HEAD_TEXELS) %}
        o{{ d }} += p{{ j }} * textureLoad(v, at(base + {{ j * HEAD_TEXELS + d }}u));
{% endfor %}
{% endfor %}
    }
    if query >= params.window {
        return;
    }
    let to = ((window * params.window + query) * params.heads + head) * params.head_dim;
{% for d in range(HEAD_TEXELS) %}
    o{{ d }} /= sum;
{% for i in range(4) %}
    if {{ 4 * d + i }}u < params.head_dim {
        output[to + {{ 4 * d + i }}u] = o{{ d }}[{{ i }}];
    }
{% endfor %}
{% endfor %}
}
