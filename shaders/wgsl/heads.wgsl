// The heads of a fused projection, for GPUs: {% if NORMED %}Q and K normed, {% endif %}{% if HALF %}Q and K turned by their position, {% endif %}each to a buffer of its own.
//   table:   [window, {{ HALF }}] of (cos, sin), the scaling of attention included
//   qkv:     [rows, stride], as a product writes it: Q, K and V side by side; row r is position r % window
{% if NORMED %}
//   weights: [{{ HEAD_DIM }}] for every head, or [heads, {{ HEAD_DIM }}]
{% endif %}
//   q:       [rows, heads, {{ HEAD_TEXELS }}] of 4 neighbouring elements of a head, zeros past its end
//   k, v:    [past + rows, kv_heads, {{ HEAD_TEXELS }}], from row `past` on
// An element of the first half of {{ 2 * HALF }} is turned with the one {{ HALF }} after it, as in Hugging Face checkpoints:
// (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin). What follows them in a head stays.
{% if NORMED %}
// One workgroup a row and head; what is over the whole row is found by every head again. Grid = heads x rows.
{% else %}
// One invocation a texel; grid = texels of a row x rows.
{% endif %}
struct Params {
    rows: u32,
    window: u32,
    stride: u32,
    heads: u32,
    kv_heads: u32,
    // heads before this one, of those of Q, K and V together, are left out
    first_head: u32,
    // rows of k and v that are there already
    past: u32,
    // neighbouring columns that are normed together, in Q and in K
    query_span: u32,
    key_span: u32,
    // from the span of a head to that of the next: a head, or 0 where all heads are normed together
    span_step: u32,
    query_epsilon: f32,
    key_epsilon: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> table: array<vec2f>;
@group(0) @binding(2) var<storage, read> qkv: array<f32>;
@group(0) @binding(3) var<storage, read_write> q: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> k: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> v: array<vec4f>;
{% if NORMED %}
@group(0) @binding(6) var<storage, read> query_weight: array<f32>;
@group(0) @binding(7) var<storage, read> key_weight: array<f32>;
{% endif %}

const HEAD_DIM = {{ HEAD_DIM }}u;
const HALF = {{ HALF }}u;

// Where a head is read, and what is done to it.
struct Head {
    row: u32,
    // first column
    base: u32,
    // 0 for Q, 1 for K, 2 for V
    part: u32,
    // among the heads of its part
    index: u32,
    // what normed elements are multiplied by
    inverse: f32,
{% if EACH_HEAD %}
    // what is taken off them first
    mean: f32,
{% endif %}
}

fn head_of(row: u32, head: u32) -> Head {
    var part = 0u;
    var index = head;
    if head >= params.heads + params.kv_heads {
        part = 2u;
        index = head - params.heads - params.kv_heads;
    } else if head >= params.heads {
        part = 1u;
        index = head - params.heads;
    }
    return Head(row, head * HEAD_DIM, part, index, 1.0{% if EACH_HEAD %}, 0.0{% endif %});
}

fn element(head: Head, i: u32) -> f32 {
    let x = qkv[head.row * params.stride + head.base + i];
{% if NORMED %}
    let weight = head.index * {% if EACH_HEAD %}HEAD_DIM{% else %}(HEAD_DIM - params.span_step){% endif %} + i;
    if head.part == 0u {
        return query_weight[weight] * ({% if EACH_HEAD %}(x - head.mean){% else %}x{% endif %} * head.inverse);
    }
    if head.part == 1u {
        return key_weight[weight] * ({% if EACH_HEAD %}(x - head.mean){% else %}x{% endif %} * head.inverse);
    }
{% endif %}
    return x;
}

// Four neighbouring elements of a head; 0 past its end.
fn texel_of(head: Head, d: u32) -> vec4f {
    var texel = vec4f(0.0);
{% for e in range(4) %}
    {
        let i = d + {{ e }}u;
        if i < HEAD_DIM {
            texel[{{ e }}] = element(head, i);
{% if HALF %}
            if head.part < 2u && i < 2u * HALF {
                let turn = table[head.row % params.window * HALF + i % HALF];
                if i < HALF {
                    texel[{{ e }}] = texel[{{ e }}] * turn.x - element(head, i + HALF) * turn.y;
                } else {
                    texel[{{ e }}] = texel[{{ e }}] * turn.x + element(head, i - HALF) * turn.y;
                }
            }
{% endif %}
        }
    }
{% endfor %}
    return texel;
}

fn put(head: Head, texel: u32, value: vec4f) {
    let to = head.index * {{ HEAD_TEXELS }}u + texel;
    if head.part == 0u {
        q[head.row * params.heads * {{ HEAD_TEXELS }}u + to] = value;
    } else if head.part == 1u {
        k[(params.past + head.row) * params.kv_heads * {{ HEAD_TEXELS }}u + to] = value;
    } else {
        v[(params.past + head.row) * params.kv_heads * {{ HEAD_TEXELS }}u + to] = value;
    }
}

@compute @workgroup_size(64)
{% if NORMED %}
fn main(@builtin(workgroup_id) group: vec3u, lane: Lane) {
    var head = head_of(group.y, params.first_head + group.x);
    var span = select(params.query_span, params.key_span, head.part == 1u);
    var first = head.row * params.stride + head.base - head.index * (HEAD_DIM - params.span_step);
    if head.part == 2u {
        span = 0u;
    }
{% if EACH_HEAD %}
    var total = 0.0;
    for (var column = lane.index; column < span; column += 64u) {
        total += qkv[first + column];
    }
    head.mean = reduce_add(total, lane) / f32(max(span, 1u));
{% endif %}
    var sum = 0.0;
    for (var column = lane.index; column < span; column += 64u) {
        let value = qkv[first + column]{{ " - head.mean" if EACH_HEAD }};
        sum += value * value;
    }
    let epsilon = select(params.query_epsilon, params.key_epsilon, head.part == 1u);
    head.inverse = 1.0 / sqrt(reduce_add(sum, lane) / f32(max(span, 1u)) + epsilon);
    for (var texel = lane.index; texel < {{ HEAD_TEXELS }}u; texel += 64u) {
        put(head, texel, texel_of(head, 4u * texel));
    }
}
{% else %}
fn main(@builtin(global_invocation_id) id: vec3u) {
    let number = params.first_head + id.x / {{ HEAD_TEXELS }}u;
    if id.y >= params.rows || number >= params.heads + 2u * params.kv_heads {
        return;
    }
    let head = head_of(id.y, number);
    let texel = id.x % {{ HEAD_TEXELS }}u;
    put(head, texel, texel_of(head, 4u * texel));
}
{% endif %}
