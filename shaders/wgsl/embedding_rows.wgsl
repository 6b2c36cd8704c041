// Embedding lookup from a row-major table.
//   table:  [count, columns_padded] packed as {{ WEIGHT }}, rows first_row .. first_row + count of the whole
//   output: [rows, columns]; a row that is not in this part of the table is left alone
{% if EACH_ROW %}
//   tokens: [rows] positions, from `first_position` on, which are rows of the table and are added to the output
{% elif POSITIONS %}
// The table's rows are positions, from `first_position` on in every window, and are added to the output.
{% else %}
//   tokens: [rows] token ids, which are rows of the table; these, multiplied by `scale`, become the output
{% endif %}
{% if QUANTISED %}
// One invocation a word ({{ TEXEL_K }} elements); a block is its scale, then its words; grid = words of a row x rows.
{% else %}
// One invocation a pair of neighbouring elements; grid = pairs of a row x rows.
{% endif %}
struct Params {
    rows: u32,
    columns: u32,
    // elements from one row of the output to the next
    stride: u32,
    // u32 words in one row of the table
    row_words: u32,
    first_row: u32,
    count: u32,
    scale: f32,
    // rows of a window
    window: u32,
    first_position: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> table: array<u32>;
@group(0) @binding(2) var<storage, read_write> output: array<f32>;
{% if EACH_ROW or not POSITIONS %}
@group(0) @binding(3) var<storage, read> tokens: array<u32>;
{% endif %}

fn put(at: u32, value: f32) {
    output[at] = {{ "output[at] + " if POSITIONS else "" }}value * params.scale;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let row = id.y;
    let column = id.x * {{ TEXEL_K if QUANTISED else 2 }}u;
    if row >= params.rows || column >= params.columns {
        return;
    }
    // What lies before first_row wraps to large numbers and fails the test, too.
{% if EACH_ROW %}
    let index = params.first_position + tokens[row] - params.first_row;
{% elif POSITIONS %}
    let index = params.first_position + row % params.window - params.first_row;
{% else %}
    let index = tokens[row] - params.first_row;
{% endif %}
    if index >= params.count {
        return;
    }
    let base = index * params.row_words;
{% if QUANTISED %}
    let block = base + id.x / {{ BLOCK_WORDS - 1 }}u * {{ BLOCK_WORDS }}u;
    let scale = vec4u(table[block]);
    let word = vec4u(table[block + 1u + id.x % {{ BLOCK_WORDS - 1 }}u]);
    // Rows are whole blocks.
{% for four in range(TEXEL_K // 4) %}
    {
        let values = unpack(word, {{ 16 * four }}u + vec4u(0u, 1u, 2u, 3u) * {{ 32 // TEXEL_K }}u, scale);
{% for i in range(4) %}
        put(row * params.stride + column + {{ 4 * four + i }}u, values[{{ i }}]);
{% endfor %}
    }
{% endfor %}
{% else %}
{% if WEIGHT == "f32" %}
    let pair = vec2f(bitcast<f32>(table[base + column]), bitcast<f32>(table[base + column + 1u]));
{% elif WEIGHT == "bf16" %}
    let word = table[base + id.x];
    let pair = vec2f(bitcast<f32>(word << 16u), bitcast<f32>(word & 0xffff0000u));
{% else %}
    let pair = unpack2x16float(table[base + id.x]);
{% endif %}
    put(row * params.stride + column, pair.x);
    if column + 1u < params.columns {
        put(row * params.stride + column + 1u, pair.y);
    }
{% endif %}
}
