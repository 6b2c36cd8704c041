// Heads of a fused projection, for CPU-type adapters: {% if NORMED %}normed, {% endif %}{% if HALF %}turned by their position, as heads.wgsl does, {% endif %}
{% if PANELS %}
// to a texture that attention_panel.wgsl reads.
{% else %}
// to buffers that attention_cached.wgsl reads.
{% endif %}
//   table:  [{{ "rows" if EACH_ROW else "window" }}, {{ HALF }}] of (cos, sin), the scaling of attention included; two a texel
//   qkv:    [rows, stride], as gemm_panel.wgsl writes it; a batch of windows of `window` rows
{% if NORMED %}
//   weight: [{{ HEAD_DIM }}] for every head, or [heads, {{ HEAD_DIM }}]
{% endif %}
{% if PANELS %}
//   output: texel t = (((window_index * heads + head) * blocks + block) * {{ HEAD_TEXELS }} + d4) * group + r
//           holds 4 neighbouring elements of row block * group + r of its window; rows that do not exist are zeros
// One lane a row, so that neighbouring lanes read and write neighbouring texels; grid = rows x heads x windows.
{% else %}
//   q, k, v: as heads.wgsl writes them
// One lane a row, so that neighbouring lanes read neighbouring texels; grid = rows x heads.
{% endif %}
{% if PANELS %}
struct Params {
    window: u32,
    stride: u32,
    // of the part of the projection that is written: Q, K or V
    first_column: u32,
    heads: u32,
    // rows that lie side by side in the texture
    group: u32,
    // blocks of `group` rows in a window
    blocks: u32,
    // neighbouring columns that are normed together
    span: u32,
    // from the span of a head to that of the next: a head, or 0 where all heads are normed together
    span_step: u32,
    epsilon: f32,
}
{% else %}
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
{% endif %}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var table: texture_storage_2d<rgba32float, read>;
@group(0) @binding(2) var qkv: texture_storage_2d<rgba32float, read>;
{% if PANELS %}
@group(0) @binding(3) var output: texture_storage_2d<rgba32float, write>;
{% if NORMED %}
@group(0) @binding(4) var weight: texture_storage_2d<rgba32float, read>;
{% endif %}
{% else %}
@group(0) @binding(3) var<storage, read_write> q: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> k: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> v: array<vec4f>;
{% if NORMED %}
@group(0) @binding(6) var query_weight: texture_storage_2d<rgba32float, read>;
@group(0) @binding(7) var key_weight: texture_storage_2d<rgba32float, read>;
{% endif %}
{% endif %}

const HALF = {{ HALF }}u;

// Where a head is read and written, and what is done to it.
struct Head {
    // first texel of qkv; the next one is {{ ROWS }} further
    source: u32,
    // first element of the table
    turns: u32,
    // first texel of the weight
    weight: u32,
    // what normed elements are multiplied by
    inverse: f32,
{% if EACH_HEAD %}
    // what is taken off them first
    mean: f32,
{% endif %}
{% if PANELS %}
    // first texel of the output, and from one to the next
    to: u32,
    step: u32,
{% else %}
    // 0 for Q, 1 for K, 2 for V
    part: u32,
    to: u32,
{% endif %}
}

{% set VALUE = "(value - head.mean)" if EACH_HEAD else "value" %}
fn texel_of(head: Head, texel: u32) -> vec4f {
    let value = textureLoad(qkv, at(head.source + texel * {{ ROWS }}u));
{% if NORMED %}
{% if PANELS %}
    return textureLoad(weight, at(head.weight + texel)) * ({{ VALUE }} * head.inverse);
{% else %}
    let query = textureLoad(query_weight, at(head.weight + texel));
    let key = textureLoad(key_weight, at(head.weight + texel));
    return select(key, query, head.part == 0u) * ({{ VALUE }} * head.inverse);
{% endif %}
{% else %}
    return value;
{% endif %}
}

fn put(head: Head, texel: u32, value: vec4f) {
{% if PANELS %}
    textureStore(output, at(head.to + texel * head.step), value);
{% else %}
    if head.part == 0u {
        q[head.to + texel] = value;
    } else if head.part == 1u {
        k[head.to + texel] = value;
    } else {
        v[head.to + texel] = value;
    }
{% endif %}
}

{% if NORMED %}
{% if EACH_HEAD %}
fn mean_of(source: u32, span: u32) -> f32 {
    var totals = vec4f(0.0);
    for (var i = 0u; i < span / 4u; i++) {
        totals += textureLoad(qkv, at(source + i * {{ ROWS }}u));
    }
    return ((totals.x + totals.y) + (totals.z + totals.w)) / f32(span);
}

{% endif %}
// What the elements of a span are multiplied by.
fn inverse_of(source: u32, span: u32, {% if EACH_HEAD %}mean: f32, {% endif %}epsilon: f32) -> f32 {
    var squares = vec4f(0.0);
    for (var i = 0u; i < span / 4u; i++) {
        let value = textureLoad(qkv, at(source + i * {{ ROWS }}u)){{ " - mean" if EACH_HEAD }};
        squares += value * value;
    }
    return 1.0 / sqrt(((squares.x + squares.y) + (squares.z + squares.w)) / f32(span) + epsilon);
}
{% endif %}

// Normed and turned.
fn put_all(head: Head) {
{% if HALF and ALIGNED %}
    for (var i = 0u; i < {{ HALF // 4 }}u; i++) {
        let first = textureLoad(table, at(head.turns / 2u + 2u * i));
        let second = textureLoad(table, at(head.turns / 2u + 2u * i + 1u));
        let cosines = vec4f(first.xz, second.xz);
        let sines = vec4f(first.yw, second.yw);
        let x1 = texel_of(head, i);
        let x2 = texel_of(head, i + {{ HALF // 4 }}u);
        put(head, i, x1 * cosines - x2 * sines);
        put(head, i + {{ HALF // 4 }}u, x2 * cosines + x1 * sines);
    }
    for (var i = {{ HALF // 2 }}u; i < {{ HEAD_TEXELS }}u; i++) {
        put(head, i, texel_of(head, i));
    }
{% elif HALF %}
    for (var i = 0u; i < {{ HEAD_TEXELS }}u; i++) {
        var value = texel_of(head, i);
        let x = value;
{% for e in range(4) %}
        {
            let d = 4u * i + {{ e }}u;
            let turns = textureLoad(table, at((head.turns + d % HALF) / 2u));
            let turn = select(turns.xy, turns.zw, (head.turns + d % HALF) % 2u == 1u);
            if d < HALF {
                value[{{ e }}] = x[{{ e }}] * turn.x - texel_of(head, (d + HALF) / 4u)[(d + HALF) % 4u] * turn.y;
            } else if d < 2u * HALF {
                value[{{ e }}] = x[{{ e }}] * turn.x + texel_of(head, (d - HALF) / 4u)[(d - HALF) % 4u] * turn.y;
            }
        }
{% endfor %}
        put(head, i, value);
    }
{% else %}
    for (var i = 0u; i < {{ HEAD_TEXELS }}u; i++) {
        put(head, i, texel_of(head, i));
    }
{% endif %}
}

{% if PANELS %}
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= params.blocks * params.group {
        return;
    }
    let block = (id.z * params.heads + id.y) * params.blocks + id.x / params.group;
    let to = block * {{ HEAD_TEXELS }}u * params.group + id.x % params.group;
    if id.x >= params.window {
        for (var i = 0u; i < {{ HEAD_TEXELS }}u; i++) {
            textureStore(output, at(to + i * params.group), vec4f(0.0));
        }
        return;
    }
    let row = id.z * params.window + id.x;
    let source = in_block(row, params.first_column / 4u + id.y * {{ HEAD_TEXELS }}u, params.stride / 4u);
{% if NORMED %}
    let span = in_block(row, (params.first_column + id.y * params.span_step) / 4u, params.stride / 4u);
{% if EACH_HEAD %}
    let mean = mean_of(span, params.span);
    let inverse = inverse_of(span, params.span, mean, params.epsilon);
    put_all(Head(source, {{ "row" if EACH_ROW else "id.x" }} * HALF, id.y * {{ HEAD_TEXELS }}u, inverse, mean, to, params.group));
{% else %}
    let inverse = inverse_of(span, params.span, params.epsilon);
    let weight = id.y * ({{ HEAD_DIM }}u - params.span_step) / 4u;
    put_all(Head(source, {{ "row" if EACH_ROW else "id.x" }} * HALF, weight, inverse, to, params.group));
{% endif %}
{% else %}
    put_all(Head(source, {{ "row" if EACH_ROW else "id.x" }} * HALF, 0u, 1.0, to, params.group));
{% endif %}
}
{% else %}
@compute @workgroup_size({{ LANES }})
fn main(@builtin(global_invocation_id) id: vec3u) {
    let row = id.x;
    if row >= params.rows {
        return;
    }
    let number = params.first_head + id.y;
    let keys = params.heads;
    let values = params.heads + params.kv_heads;
    let source = in_block(row, number * {{ HEAD_TEXELS }}u, params.stride / 4u);
    var head = Head(source, row % params.window * HALF, 0u, 1.0, {% if EACH_HEAD %}0.0, {% endif %}2u, 0u);
    if number >= values {
        head.to = ((params.past + row) * params.kv_heads + number - values) * {{ HEAD_TEXELS }}u;
        for (var i = 0u; i < {{ HEAD_TEXELS }}u; i++) {
            v[head.to + i] = textureLoad(qkv, at(source + i * {{ ROWS }}u));
        }
        return;
    }
    var index = number;
    if number >= keys {
        index -= keys;
        head.part = 1u;
        head.to = ((params.past + row) * params.kv_heads + index) * {{ HEAD_TEXELS }}u;
    } else {
        head.part = 0u;
        head.to = (row * params.heads + index) * {{ HEAD_TEXELS }}u;
    }
{% if NORMED %}
    let first = number * {{ HEAD_DIM }}u - index * ({{ HEAD_DIM }}u - params.span_step);
    let is_key = head.part == 1u;
    let span = select(params.query_span, params.key_span, is_key);
    let epsilon = select(params.query_epsilon, params.key_epsilon, is_key);
{% if EACH_HEAD %}
    head.mean = mean_of(in_block(row, first / 4u, params.stride / 4u), span);
    head.inverse = inverse_of(in_block(row, first / 4u, params.stride / 4u), span, head.mean, epsilon);
    head.weight = index * {{ HEAD_TEXELS }}u;
{% else %}
    head.inverse = inverse_of(in_block(row, first / 4u, params.stride / 4u), span, epsilon);
    head.weight = index * ({{ HEAD_DIM }}u - params.span_step) / 4u;
{% endif %}
{% endif %}
    put_all(head);
}
{% endif %}
