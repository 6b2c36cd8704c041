// What a product reads, and where it goes: a part of gemm_tile.wgsl and gemm_cooperative.wgsl.
struct Params {
    rows: u32,
    // columns of this weight shard
    columns: u32,
    inner: u32,
    // vectors in one row of a
    a_vectors: u32,
    // units in one row of w
    row_units: u32,
    stride: u32,
    column_offset: u32,
    // 1 if bias holds values
    has_bias: u32,
    // first tile of columns of this dispatch
    first_block: u32,
    first_row: u32,
    add: u32,
    // what is added is multiplied by this
    scale: f32,
    // what w is multiplied by before it is rounded, where it is
    w_scale: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
// [rows, a_vectors] of 4 neighbouring k
@group(0) @binding(1) var<storage, read> a: array<vec4f>;
{% if QUANTISED %}
// [columns, inner / 32] {{ WEIGHT }} blocks of {{ BLOCK_WORDS }} words: the scale, then {{ TEXEL_K }} neighbouring k a word
@group(0) @binding(2) var<storage, read> w: array<u32>;
{% else %}
// [columns, row_units] of {{ TEXEL_K }} neighbouring k as {{ WEIGHT }}, rows padded to whole vectors
@group(0) @binding(2) var<storage, read> w: array<vec4u>;
{% endif %}
@group(0) @binding(3) var<storage, read> bias: array<f32>;
// [.., stride]
@group(0) @binding(4) var<storage, read_write> c: array<f32>;

// Operands are read without a branch, so that many are on their way at a time: what lies outside is read where something is,
// and comes to nothing, because A is 0 for a k past the end, and nobody looks at rows and columns past it.

// 4 neighbouring k of a row of A.
fn load_a(row: u32, k: u32) -> vec4f {
    let value = a[min(row, params.rows - 1u) * params.a_vectors + min(k / 4u, params.a_vectors - 1u)];
    return select(vec4f(0.0), value, vec4u(k) + vec4u(0u, 1u, 2u, 3u) < vec4u(params.inner));
}

// 8 neighbouring k of a row of W as they are stored, {% if QUANTISED %}words and scale{% elif WEIGHT == "f32" %}in two units{% else %}in one unit{% endif %}.
{% if WEIGHT == "f32" %}
struct Stored {
    low: vec4u,
    high: vec4u,
}

fn load_w(column: u32, k: u32) -> Stored {
    let row = min(column, params.columns - 1u) * params.row_units;
    let last = params.row_units - 1u;
    return Stored(w[row + min(k / 4u, last)], w[row + min(k / 4u + 1u, last)]);
}

fn unpacked(stored: Stored) -> mat2x4f {
    return mat2x4f(bitcast<vec4f>(stored.low), bitcast<vec4f>(stored.high));
}
{% else %}
alias Stored = vec4u;

fn load_w(column: u32, k: u32) -> Stored {
    let row = min(column, params.columns - 1u) * params.row_units;
{% if QUANTISED %}
    // Rows are whole blocks.
    let block = row + min(k, params.inner - 1u) / 32u * {{ BLOCK_WORDS }}u;
    let word = block + 1u + k % 32u / {{ TEXEL_K }}u;
    return vec4u(w[word], {% if TEXEL_K == 4 %}w[word + 1u]{% else %}0u{% endif %}, w[block], 0u);
{% else %}
    return w[row + min(k / 8u, params.row_units - 1u)];
{% endif %}
}

fn unpacked(stored: Stored) -> mat2x4f {
{% if QUANTISED %}
    let scale = vec4u(stored.z);
    let shifts = vec4u(0u, 1u, 2u, 3u) * {{ 32 // TEXEL_K }}u;
{% if TEXEL_K == 4 %}
    return mat2x4f(unpack(vec4u(stored.x), shifts, scale), unpack(vec4u(stored.y), shifts, scale));
{% else %}
    return mat2x4f(unpack(vec4u(stored.x), shifts, scale), unpack(vec4u(stored.x), shifts + vec4u(16u), scale));
{% endif %}
{% elif WEIGHT == "bf16" %}
    let even = bitcast<vec4f>(stored << vec4u(16u));
    let odd = bitcast<vec4f>(stored & vec4u(0xffff0000u));
    return mat2x4f(vec4f(even.x, odd.x, even.y, odd.y), vec4f(even.z, odd.z, even.w, odd.w));
{% else %}
    return mat2x4f(
        vec4f(unpack2x16float(stored.x), unpack2x16float(stored.y)),
        vec4f(unpack2x16float(stored.z), unpack2x16float(stored.w)),
    );
{% endif %}
}
{% endif %}
