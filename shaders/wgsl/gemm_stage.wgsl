// The operands of a product in workgroup memory, {{ STEP }} k of {{ TILE }} rows and of {{ TILE }} columns at a time: a part of
// gemm_tile.wgsl and gemm_cooperative.wgsl.
//   a: [rows, a_stride]
{% if QUANTISED %}
//   w: [columns, inner / 32] {{ WEIGHT }} blocks of {{ BLOCK_WORDS }} u32 words: the scale, then {{ TEXEL_K }} neighbouring k a word
{% else %}
//   w: [columns, row_words] u32 words of {{ WEIGHT }}, rows padded with zeros
{% endif %}
//   c: [.., stride]
struct Params {
    rows: u32,
    // columns of this weight shard
    columns: u32,
    inner: u32,
    a_stride: u32,
    // u32 words in one row of w
    row_words: u32,
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
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<u32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> c: array<f32>;

// Both tiles are stored with k outermost, so that neighbouring invocations read neighbouring words.
{% if SPLIT %}
// A number is the sum of two f16: its first 11 bits, and 11 bits of what is left, enlarged so that it stays clear of the
// smallest f16. A is made smaller first, so that values up to {{ 65504 * A_SCALE }} fit.
var<workgroup> tile_a: array<f16, {{ TILE * STEP }}>;
var<workgroup> tile_w: array<f16, {{ TILE * STEP }}>;
var<workgroup> rest_a: array<f16, {{ TILE * STEP }}>;
{% if REST_W %}
var<workgroup> rest_w: array<f16, {{ TILE * STEP }}>;
{% endif %}

// The first 11 bits, nothing of what is too small for a normal f16. By bits, because compilers may take f32(f16(value))
// for value.
fn first_bits(value: f32) -> f32 {
    return select(bitcast<f32>(bitcast<u32>(value) & 0xffffe000u), 0.0, abs(value) < 6.103515625e-5);
}

fn put_a(at: u32, value: f32) {
    let scaled = value * {{ 1.0 / A_SCALE }};
    let first = first_bits(scaled);
    tile_a[at] = f16(first);
    rest_a[at] = f16((scaled - first) * {{ REST_SCALE }});
}

fn put_w(at: u32, value: f32) {
{% if REST_W %}
    let first = first_bits(value);
    tile_w[at] = f16(first);
    rest_w[at] = f16((value - first) * {{ REST_SCALE }});
{% else %}
    tile_w[at] = f16(value);
{% endif %}
}
{% else %}
var<workgroup> tile_a: array<f32, {{ TILE * STEP }}>;
var<workgroup> tile_w: array<f32, {{ TILE * STEP }}>;

fn put_a(at: u32, value: f32) {
    tile_a[at] = value;
}

fn put_w(at: u32, value: f32) {
    tile_w[at] = value;
}
{% endif %}

fn stage(row0: u32, column0: u32, k0: u32, index: u32) {
{% for part in range(TILE * STEP // (INVOCATIONS)) %}
    {
        let element = index + {{ part * INVOCATIONS }}u;
        let k = element % {{ STEP }}u;
        let row = element / {{ STEP }}u;
        var value = 0.0;
        if row0 + row < params.rows && k0 + k < params.inner {
            value = a[(row0 + row) * params.a_stride + k0 + k];
        }
        put_a(k * {{ TILE }}u + row, value);
    }
{% endfor %}
{% if QUANTISED %}
{% for part in range(TILE * STEP // (INVOCATIONS * TEXEL_K)) %}
    {
        let element = index + {{ part * INVOCATIONS }}u;
        let part = element % {{ STEP // TEXEL_K }}u;
        let row = element / {{ STEP // TEXEL_K }}u;
        var word = vec4u(0u);
        var scale = vec4u(0u);
        if column0 + row < params.columns {
            let block = (column0 + row) * params.row_words + k0 / 32u * {{ BLOCK_WORDS }}u;
            word = vec4u(w[block + 1u + k0 % 32u / {{ TEXEL_K }}u + part]);
            scale = vec4u(w[block]);
        }
{% for four in range(TEXEL_K // 4) %}
        {
            let values = unpack(word, {{ 16 * four }}u + vec4u(0u, 1u, 2u, 3u) * {{ 32 // TEXEL_K }}u, scale);
{% for i in range(4) %}
            put_w((part * {{ TEXEL_K }}u + {{ 4 * four + i }}u) * {{ TILE }}u + row, values[{{ i }}]);
{% endfor %}
        }
{% endfor %}
    }
{% endfor %}
{% elif WEIGHT == "f32" %}
{% for part in range(TILE * STEP // (INVOCATIONS)) %}
    {
        let element = index + {{ part * INVOCATIONS }}u;
        let k = element % {{ STEP }}u;
        let row = element / {{ STEP }}u;
        var value = 0.0;
        if column0 + row < params.columns && k0 + k < params.inner {
            value = bitcast<f32>(w[(column0 + row) * params.row_words + k0 + k]);
        }
        put_w(k * {{ TILE }}u + row, value);
    }
{% endfor %}
{% else %}
{% for part in range(TILE * STEP // (INVOCATIONS * 2)) %}
    {
        let element = index + {{ part * INVOCATIONS }}u;
        let pair = element % {{ STEP // 2 }}u;
        let row = element / {{ STEP // 2 }}u;
        var word = 0u;
        if column0 + row < params.columns && k0 / 2u + pair < params.row_words {
            word = w[(column0 + row) * params.row_words + k0 / 2u + pair];
        }
{% if WEIGHT == "bf16" %}
        let values = vec2f(bitcast<f32>(word << 16u), bitcast<f32>(word & 0xffff0000u));
{% else %}
        let values = unpack2x16float(word);
{% endif %}
        put_w(pair * {{ 2 * TILE }}u + row, values.x);
        put_w(pair * {{ 2 * TILE }}u + {{ TILE }}u + row, values.y);
    }
{% endfor %}
{% endif %}
}
