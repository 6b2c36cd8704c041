// Causal grouped-query attention with an online softmax, for GPUs.
//   q:      [rows, heads, {{ HEAD_TEXELS }}] of 4 neighbouring elements, as heads.wgsl writes it; a batch of windows of `window` rows
//   k, v:   [rows, heads / share, {{ HEAD_TEXELS }}]
//   output: [rows, output_stride]
{% if CONTINUATIONS %}
//   places: [rows] of the first row of the row's continuation and the rows of its context; 0 and 0 within the context
// A window is a context and continuations of it, one after the other, of which none sees another.
{% endif %}
// One workgroup of 64 invocations handles {{ 8 * PER_INVOCATION }} queries of one head, {{ KEYS }} keys at a time. Eight invocations share {{ PER_INVOCATION }} queries: each
// scores them with every eighth key, and sums up every eighth vector of their values.
// The blocks of keys start at the window's first key, so a query's result depends on its window alone{% if SLIDING and not CONTINUATIONS %};
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
{% if CONTINUATIONS %}
@group(0) @binding(5) var<storage, read> places: array<vec2u>;
{% endif %}

// Lower than any score; WGSL may assume that there are no infinities.
const LOWEST = -3.0e38;

{% set QUERIES = 8 * PER_INVOCATION %}
{% set EACH = ["", "f32", "vec2f", "", "vec4f"][PER_INVOCATION] %}
{% set OF = [""] if PER_INVOCATION == 1 else ["[0]", "[1]", "[2]", "[3]"] %}
var<workgroup> tile_q: array<vec4f, {{ QUERIES * PITCH }}>;
// The keys, then the values, of one block.
var<workgroup> tile_kv: array<vec4f, {{ KEYS * PITCH }}>;
// The scores of a key, for the queries that invocations share.
var<workgroup> scores: array<{{ EACH }}, {{ KEYS * 8 }}>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) index: u32,
) {
    let head = group.y;
    let window = params.first_window + group.z;
    // The last queries see most keys: whoever takes longest begins first.
    let query0 = (groups.x - 1u - group.x) * {{ QUERIES }}u;
    // This invocation's queries are 8 rows apart, so that those of its neighbours lie in other banks.
    let sharing = index / 8u;
    let c = index % 8u;
    // First texels of the head, in Q and in K and V, and from a row to the next in K and V.
    let from_q = (window * params.window * params.heads + head) * {{ HEAD_TEXELS }}u;
    let kv_texels = params.heads / params.share * {{ HEAD_TEXELS }}u;
    let from_kv = window * params.window * kv_texels + head / params.share * {{ HEAD_TEXELS }}u;
    for (var e = index; e < {{ QUERIES * HEAD_TEXELS }}u; e += 64u) {
        let row = e / {{ HEAD_TEXELS }}u;
        // Rows past the window are zeros, here and below.
        var value = vec4f(0.0);
        if query0 + row < params.window {
            value = q[from_q + (query0 + row) * params.heads * {{ HEAD_TEXELS }}u + e % {{ HEAD_TEXELS }}u];
        }
        tile_q[row * {{ PITCH }}u + e % {{ HEAD_TEXELS }}u] = value * params.scale;
    }
    var largest = {{ EACH }}(LOWEST);
    var sum = {{ EACH }}(0.0);
{% for r in range(PER_INVOCATION) %}
{% for d in range(VALUES) %}
    var o{{ r }}_{{ d }} = vec4f(0.0);
{% endfor %}
{% endfor %}
    let keys = min(query0 + {{ QUERIES }}u, params.window);
{% if SLOPES %}
    let slope = slope_of(head);
{% endif %}
{% if CONTINUATIONS %}
{% for r in range(PER_INVOCATION) %}
    let place{{ r }} = places[window * params.window + min(query0 + sharing + {{ 8 * r }}u, params.window - 1u)];
{% endfor %}
{% endif %}
{% if SLIDING and not CONTINUATIONS %}
    let first = (query0 + 1u - min(query0 + 1u, params.sliding_window)) / {{ KEYS }}u * {{ KEYS }}u;
{% else %}
    let first = 0u;
{% endif %}
    for (var key0 = first; key0 < keys; key0 += {{ KEYS }}u) {
        for (var e = index; e < {{ KEYS * HEAD_TEXELS }}u; e += 64u) {
            let row = e / {{ HEAD_TEXELS }}u;
            var value = vec4f(0.0);
            if key0 + row < params.window {
                value = k[from_kv + (key0 + row) * kv_texels + e % {{ HEAD_TEXELS }}u];
            }
            tile_kv[row * {{ PITCH }}u + e % {{ HEAD_TEXELS }}u] = value;
        }
        workgroupBarrier();
{% set OWN = (KEYS + 7) // 8 %}
{% for j in range(OWN) %}
        var s{{ j }} = {{ EACH }}(LOWEST);
{% endfor %}
        if c < {{ KEYS }}u {
{% for j in range(OWN) %}
{% for r in range(PER_INVOCATION) %}
            var dot{{ j }}_{{ r }} = 0.0;
{% endfor %}
{% endfor %}
            for (var d = 0u; d < {{ HEAD_TEXELS }}u; d++) {
{% for j in range(OWN) %}
                let key{{ j }} = tile_kv[(c + {{ 8 * j }}u) * {{ PITCH }}u + d];
{% endfor %}
{% for r in range(PER_INVOCATION) %}
                let query{{ r }} = tile_q[(sharing + {{ 8 * r }}u) * {{ PITCH }}u + d];
{% for j in range(OWN) %}
                dot{{ j }}_{{ r }} += dot(query{{ r }}, key{{ j }});
{% endfor %}
{% endfor %}
            }
{% for j in range(OWN) %}
{% for r in range(PER_INVOCATION) %}
{% if SLOPES %}
            dot{{ j }}_{{ r }} = biased(dot{{ j }}_{{ r }}, slope, {% if CONTINUATIONS %}position_of(key0 + c + {{ 8 * j }}u, place{{ r }}){% else %}key0 + c + {{ 8 * j }}u{% endif %});
{% endif %}
            s{{ j }}{{ OF[r] }} = select(LOWEST, {% if SOFT_CAP %}capped({% endif %}dot{{ j }}_{{ r }}{% if SOFT_CAP %}){% endif %}, sees(query0 + sharing + {{ 8 * r }}u, key0 + c + {{ 8 * j }}u{% if CONTINUATIONS %}, place{{ r }}{% endif %}));
{% endfor %}
            scores[(c + {{ 8 * j }}u) * 8u + sharing] = s{{ j }};
{% endfor %}
        }
        workgroupBarrier();
        for (var e = index; e < {{ KEYS * HEAD_TEXELS }}u; e += 64u) {
            let row = e / {{ HEAD_TEXELS }}u;
            var value = vec4f(0.0);
            if key0 + row < params.window {
                value = v[from_kv + (key0 + row) * kv_texels + e % {{ HEAD_TEXELS }}u];
            }
            tile_kv[row * {{ PITCH }}u + e % {{ HEAD_TEXELS }}u] = value;
        }
        var top = largest;
        for (var j = 0u; j < {{ KEYS }}u; j++) {
            top = max(top, scores[j * 8u + sharing]);
        }
        let keep = exp(largest - top);
        largest = top;
        workgroupBarrier();
        if c < {{ KEYS }}u {
{% for j in range(OWN) %}
            // What is not seen counts nothing, even where nothing was seen yet.
            scores[(c + {{ 8 * j }}u) * 8u + sharing] = select(exp(s{{ j }} - top), {{ EACH }}(0.0), s{{ j }} == {{ EACH }}(LOWEST));
{% endfor %}
        }
        workgroupBarrier();
        sum *= keep;
{% for r in range(PER_INVOCATION) %}
{% for d in range(VALUES) %}
        o{{ r }}_{{ d }} *= keep{{ OF[r] }};
{% endfor %}
{% endfor %}
        for (var j = 0u; j < {{ KEYS }}u; j++) {
            let p = scores[j * 8u + sharing];
            sum += p;
{% for d in range(VALUES) %}
            let value{{ d }} = tile_kv[j * {{ PITCH }}u + min(c + {{ 8 * d }}u, {{ HEAD_TEXELS - 1 }}u)];
{% for r in range(PER_INVOCATION) %}
            o{{ r }}_{{ d }} += p{{ OF[r] }} * value{{ d }};
{% endfor %}
{% endfor %}
        }
        workgroupBarrier();
    }
{% for r in range(PER_INVOCATION) %}
    {
        let query = query0 + sharing + {{ 8 * r }}u;
        let to = (window * params.window + query) * params.output_stride + head * params.head_dim;
{% for d in range(VALUES) %}
        write(query, to, (c + {{ 8 * d }}u) * 4u, o{{ r }}_{{ d }} / sum{{ OF[r] }});
{% endfor %}
    }
{% endfor %}
}

// Takes 4 neighbouring elements of a head to the output.
fn write(query: u32, to: u32, column: u32, value: vec4f) {
    if query >= params.window {
        return;
    }
{% for e in range(4) %}
    if column + {{ e }}u < params.head_dim {
        output[to + column + {{ e }}u] = value[{{ e }}];
    }
{% endfor %}
}
