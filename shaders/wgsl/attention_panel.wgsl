// Causal grouped-query attention with an online softmax, for CPU-type adapters.
//   q, k, v: heads, as heads_panel.wgsl writes them; {{ HEAD_TEXELS }} texels a head, {{ LANES * QUERIES }} queries or {{ KEYS }} keys side by side
//   output:  as the left side of gemm_panel.wgsl: texel (block * inner4 + column / 4) * {{ ROWS }} + r for row block * {{ ROWS }} + r
{% if CONTINUATIONS %}
//   places:  [rows] of the first row of the row's continuation and the rows of its context; 0 and 0 within the context
// A window is a context and continuations of it, one after the other, of which none sees another.
{% endif %}
// One workgroup is one vector of {{ LANES }} lanes, a lane is {{ QUERIES }} queries of one head; keys are taken {{ KEYS }} at a time, each lane loads its
// share of them and hands it round. Nothing in the loop is shared by memory, and every accumulator is a scalar name.
// The blocks of keys start at the window's first key, so a query's result depends on its window alone{% if SLIDING and not CONTINUATIONS %};
// those that no query of the workgroup sees are left out{% endif %}.
// Grid = blocks of queries x heads x windows.
struct Params {
    window: u32,
    heads: u32,
    // query heads that share a key head
    share: u32,
    // blocks of {{ LANES * QUERIES }} queries in a window
    blocks: u32,
    // texels of a row of the output, padding included
    inner4: u32,
    // what scores are multiplied by
    scale: f32,
    first_window: u32,
    // what scores come near to at most, in the variant that caps
    cap: f32,
    // keys that a query sees, itself included, in the variant that slides
    sliding_window: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var q: texture_storage_2d<rgba32float, read>;
@group(0) @binding(2) var k: texture_storage_2d<rgba32float, read>;
@group(0) @binding(3) var v: texture_storage_2d<rgba32float, read>;
@group(0) @binding(4) var output: texture_storage_2d<rgba32float, write>;
{% if CONTINUATIONS %}
@group(0) @binding(5) var<storage, read> places: array<vec2u>;
{% endif %}

// Lower than any score; WGSL may assume that there are no infinities.
const LOWEST = -3.0e38;

{% set PARTS = (KEYS + LANES - 1) // LANES %}
@compute @workgroup_size({{ LANES }})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let head = group.y;
    let window = params.first_window + group.z;
    let query = group.x * {{ LANES * QUERIES }}u + lane;
    let q_base = ((window * params.heads + head) * params.blocks + group.x) * {{ HEAD_TEXELS * LANES * QUERIES }}u + lane;
    let key_blocks = (params.window + {{ KEYS - 1 }}u) / {{ KEYS }}u;
    let kv_base = (window * (params.heads / params.share) + head / params.share) * key_blocks * {{ HEAD_TEXELS * KEYS }}u{% if SUBGROUPS %} + lane{% endif %};
{% if SLOPES %}
    let slope = slope_of(head);
{% endif %}
    // The last query of the block sees this many keys.
    let keys = min((group.x + 1u) * {{ LANES * QUERIES }}u, params.window);
{% if CONTINUATIONS %}
{% for i in range(QUERIES) %}
    let place{{ i }} = places[window * params.window + min(query + {{ i * LANES }}u, params.window - 1u)];
{% endfor %}
{% endif %}
{% for i in range(QUERIES) %}
    var largest{{ i }} = LOWEST;
    var sum{{ i }} = 0.0;
{% for d in range(HEAD_TEXELS) %}
    let q{{ i }}_{{ d }} = textureLoad(q, at(q_base + {{ (d * QUERIES + i) * LANES }}u)) * params.scale;
    var o{{ i }}_{{ d }} = vec4f(0.0);
{% endfor %}
{% endfor %}
{% if SLIDING and not CONTINUATIONS %}
    let query0 = group.x * {{ LANES * QUERIES }}u;
    let first = (query0 + 1u - min(query0 + 1u, params.sliding_window)) / {{ KEYS }}u * {{ KEYS }}u;
{% else %}
    let first = 0u;
{% endif %}
    for (var key = first; key < keys; key += {{ KEYS }}u) {
        let base = kv_base + key * {{ HEAD_TEXELS }}u;
{% for i in range(QUERIES) %}
{% for j in range(KEYS) %}
        var s{{ i }}_{{ j }} = 0.0;
{% endfor %}
{% endfor %}
{% for d in range(HEAD_TEXELS) %}
        {
{% if SUBGROUPS %}
{% for p in range(PARTS) %}
            let part{{ p }} = textureLoad(k, at(base + {{ d * KEYS + p * LANES }}u));
{% endfor %}
{% endif %}
{% for j in range(KEYS) %}
{% if SUBGROUPS %}
            let x{{ j }} = subgroupShuffle(part{{ j // LANES }}, {{ j % LANES }}u);
{% else %}
            let x{{ j }} = textureLoad(k, at(base + {{ d * KEYS + j }}u));
{% endif %}
{% for i in range(QUERIES) %}
            s{{ i }}_{{ j }} += dot(q{{ i }}_{{ d }}, x{{ j }});
{% endfor %}
{% endfor %}
        }
{% endfor %}
{% if SLOPES %}
{% for i in range(QUERIES) %}
{% for j in range(KEYS) %}
        s{{ i }}_{{ j }} = biased(s{{ i }}_{{ j }}, slope, {% if CONTINUATIONS %}position_of(key + {{ j }}u, place{{ i }}){% else %}key + {{ j }}u{% endif %});
{% endfor %}
{% endfor %}
{% endif %}
        // Keys that the query does not see, and with them those past the window, count nothing.
{% for i in range(QUERIES) %}
{% for j in range(KEYS) %}
        s{{ i }}_{{ j }} = select(LOWEST, {% if SOFT_CAP %}capped(s{{ i }}_{{ j }}){% else %}s{{ i }}_{{ j }}{% endif %}, sees(query + {{ i * LANES }}u, key + {{ j }}u{% if CONTINUATIONS %}, place{{ i }}{% endif %}));
{% endfor %}
        let top{{ i }} = max(largest{{ i }}, {% for j in range(KEYS - 1) %}max(s{{ i }}_{{ j }}, {% endfor %}s{{ i }}_{{ KEYS - 1 }}{% for j in range(KEYS - 1) %}){% endfor %});
        let keep{{ i }} = exp(largest{{ i }} - top{{ i }});
        largest{{ i }} = top{{ i }};
{% for j in range(KEYS) %}
        s{{ i }}_{{ j }} = select(0.0, exp(s{{ i }}_{{ j }} - top{{ i }}), sees(query + {{ i * LANES }}u, key + {{ j }}u{% if CONTINUATIONS %}, place{{ i }}{% endif %}));
{% endfor %}
        sum{{ i }} = sum{{ i }} * keep{{ i }}{% for j in range(KEYS) %} + s{{ i }}_{{ j }}{% endfor %};
{% endfor %}
{% for d in range(HEAD_TEXELS) %}
        {
{% if SUBGROUPS %}
{% for p in range(PARTS) %}
            let part{{ p }} = textureLoad(v, at(base + {{ d * KEYS + p * LANES }}u));
{% endfor %}
{% endif %}
{% for i in range(QUERIES) %}
            var t{{ i }} = o{{ i }}_{{ d }} * keep{{ i }};
{% endfor %}
{% for j in range(KEYS) %}
{% if SUBGROUPS %}
            let y{{ j }} = subgroupShuffle(part{{ j // LANES }}, {{ j % LANES }}u);
{% else %}
            let y{{ j }} = textureLoad(v, at(base + {{ d * KEYS + j }}u));
{% endif %}
{% for i in range(QUERIES) %}
            t{{ i }} += s{{ i }}_{{ j }} * y{{ j }};
{% endfor %}
{% endfor %}
{% for i in range(QUERIES) %}
            o{{ i }}_{{ d }} = t{{ i }};
{% endfor %}
        }
{% endfor %}
    }
{% for i in range(QUERIES) %}
    if query + {{ i * LANES }}u < params.window {
        let row = window * params.window + query + {{ i * LANES }}u;
        let to = in_block(row, head * {{ HEAD_TEXELS }}u, params.inner4);
{% for d in range(HEAD_TEXELS) %}
        textureStore(output, at(to + {{ d * ROWS }}u), o{{ i }}_{{ d }} / sum{{ i }});
{% endfor %}
        if head == params.heads - 1u {
            // Padding of the row: whatever stands there must not be NaN, its weights are zeros.
            for (var i = params.heads * {{ HEAD_TEXELS }}u; i < params.inner4; i++) {
                textureStore(output, at(to + (i - head * {{ HEAD_TEXELS }}u) * {{ ROWS }}u), vec4f(0.0));
            }
        }
    }
{% endfor %}
}
