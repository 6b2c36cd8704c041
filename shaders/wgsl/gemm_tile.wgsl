// Matrix product for GPUs: c[first_row + m, column_offset + n] = sum over k of a[m, k] * w[n, k], plus bias[n], plus what
// stood there if `add` is 1.
//   a: [rows, a_stride]
{% if QUANTISED %}
//   w: [columns, inner / 32] {{ WEIGHT }} blocks of {{ BLOCK_WORDS }} u32 words: the scale, then {{ TEXEL_K }} neighbouring k a word
{% else %}
//   w: [columns, row_words] u32 words of {{ WEIGHT }}, rows padded with zeros
{% endif %}
//   c: [.., stride]
// One workgroup computes a {{ TILE }} x {{ TILE }} tile: {{ THREADS }} x {{ THREADS }} invocations of {{ PER_THREAD }} x {{ PER_THREAD }} results, {{ STEP }} k at a time staged in workgroup memory.
// Grid = tiles of rows x tiles of columns.
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
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<u32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> c: array<f32>;

// Both tiles are stored with k outermost, so that neighbouring invocations read neighbouring words.
var<workgroup> tile_a: array<f32, {{ TILE * STEP }}>;
var<workgroup> tile_w: array<f32, {{ TILE * STEP }}>;

@compute @workgroup_size({{ THREADS }}, {{ THREADS }})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u, @builtin(local_invocation_index) index: u32) {
    let row0 = group.x * {{ TILE }}u;
    let column0 = (params.first_block + group.y) * {{ TILE }}u;
{% for i in range(PER_THREAD) %}
    var c{{ i }} = vec4f(0.0);
{% endfor %}
    for (var k0 = 0u; k0 < params.inner; k0 += {{ STEP }}u) {
{% for part in range(TILE * STEP // (THREADS * THREADS)) %}
        {
            let element = index + {{ part * THREADS * THREADS }}u;
            let k = element % {{ STEP }}u;
            let row = element / {{ STEP }}u;
            var value = 0.0;
            if row0 + row < params.rows && k0 + k < params.inner {
                value = a[(row0 + row) * params.a_stride + k0 + k];
            }
            tile_a[k * {{ TILE }}u + row] = value;
        }
{% endfor %}
{% if QUANTISED %}
{% for part in range(TILE * STEP // (THREADS * THREADS * TEXEL_K)) %}
        {
            let element = index + {{ part * THREADS * THREADS }}u;
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
                tile_w[(part * {{ TEXEL_K }}u + {{ 4 * four + i }}u) * {{ TILE }}u + row] = values[{{ i }}];
{% endfor %}
            }
{% endfor %}
        }
{% endfor %}
{% elif WEIGHT == "f32" %}
{% for part in range(TILE * STEP // (THREADS * THREADS)) %}
        {
            let element = index + {{ part * THREADS * THREADS }}u;
            let k = element % {{ STEP }}u;
            let row = element / {{ STEP }}u;
            var value = 0.0;
            if column0 + row < params.columns && k0 + k < params.inner {
                value = bitcast<f32>(w[(column0 + row) * params.row_words + k0 + k]);
            }
            tile_w[k * {{ TILE }}u + row] = value;
        }
{% endfor %}
{% else %}
{% for part in range(TILE * STEP // (THREADS * THREADS * 2)) %}
        {
            let element = index + {{ part * THREADS * THREADS }}u;
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
            tile_w[pair * {{ 2 * TILE }}u + row] = values.x;
            tile_w[pair * {{ 2 * TILE }}u + {{ TILE }}u + row] = values.y;
        }
{% endfor %}
{% endif %}
        workgroupBarrier();
        for (var k = 0u; k < {{ STEP }}u; k++) {
            let from_a = k * {{ TILE }}u + local.y * {{ PER_THREAD }}u;
            let from_w = k * {{ TILE }}u + local.x;
            let wv = vec4f(tile_w[from_w], tile_w[from_w + {{ THREADS }}u], tile_w[from_w + {{ 2 * THREADS }}u], tile_w[from_w + {{ 3 * THREADS }}u]);
{% for i in range(PER_THREAD) %}
            c{{ i }} += tile_a[from_a + {{ i }}u] * wv;
{% endfor %}
        }
        workgroupBarrier();
    }
{% for j in range(4) %}
    {
        let column = column0 + local.x + {{ j * THREADS }}u;
        if column < params.columns {
            var b = 0.0;
            if params.has_bias == 1u {
                b = bias[params.column_offset + column];
            }
            let row = row0 + local.y * {{ PER_THREAD }}u;
            let base = (params.first_row + row) * params.stride + params.column_offset + column;
{% for i in range(PER_THREAD) %}
            if row + {{ i }}u < params.rows {
                let to = base + {{ i }}u * params.stride;
                var value = c{{ i }}[{{ j }}] + b;
                if params.add == 1u {
                    value += c[to];
                }
                c[to] = value;
            }
{% endfor %}
        }
    }
{% endfor %}
}
