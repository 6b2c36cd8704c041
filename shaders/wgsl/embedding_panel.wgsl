// Embedding lookup from a table packed in the panel layout of gemm_panel.wgsl.
//   table:  panels of {{ 4 * LANES }} rows, rows first_row .. first_row + count of the whole
//   output: [rows, columns]; a row that is not in this part of the table is left alone
{% if EACH_ROW %}
//   tokens: [rows] positions, from `first_position` on, which are rows of the table and are added to the output
{% elif POSITIONS %}
// The table's rows are positions, from `first_position` on in every window, and are added to the output.
{% else %}
//   tokens: [rows] token ids, which are rows of the table; these, multiplied by `scale`, become the output
{% endif %}
// One invocation a texel ({{ TEXEL_K }} elements of the row); grid = texels of a row x rows.
struct Params {
    rows: u32,
    columns: u32,
    // elements from one row of the output to the next
    stride: u32,
    // texels in one row of the table
    row_texels: u32,
    first_row: u32,
    count: u32,
    scale: f32,
    // rows of a window
    window: u32,
    first_position: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var table: texture_storage_2d<{{ TEXEL_FORMAT }}, read>;
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
    let column = id.x * {{ TEXEL_K }}u;
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
    let block = index / {{ 4 * LANES }}u;
    let lane = (index % {{ 4 * LANES }}u) / 4u;
    let base = row * params.stride + column;
{% if QUANTISED %}
    // A block is its scales, then its texels; rows are whole blocks.
    let ts = (block * params.row_texels + id.x / {{ BLOCK_WORDS - 1 }}u * {{ BLOCK_WORDS }}u) * {{ LANES }}u + lane;
    let scale = vec4u(textureLoad(table, at(ts))[index % 4u]);
    let word = vec4u(textureLoad(table, at(ts + (1u + id.x % {{ BLOCK_WORDS - 1 }}u) * {{ LANES }}u))[index % 4u]);
{% for four in range(TEXEL_K // 4) %}
    {
        let values = unpack(word, {{ 16 * four }}u + vec4u(0u, 1u, 2u, 3u) * {{ 32 // TEXEL_K }}u, scale);
{% for i in range(4) %}
        put(base + {{ 4 * four + i }}u, values[{{ i }}]);
{% endfor %}
    }
{% endfor %}
{% else %}
    let texel = textureLoad(table, at(((block * params.row_texels + id.x) * 4u + index % 4u) * {{ LANES }}u + lane));
{% for k in range(TEXEL_K) %}
    if column + {{ k }}u < params.columns {
{% if WEIGHT == "f32" %}
        put(base + {{ k }}u, texel[{{ k }}]);
{% elif WEIGHT == "bf16" %}
        put(base + {{ k }}u, bitcast<f32>({% if k % 2 == 0 %}texel[{{ k // 2 }}] << 16u{% else %}texel[{{ k // 2 }}] & 0xffff0000u{% endif %}));
{% else %}
        put(base + {{ k }}u, unpack2x16float(texel[{{ k // 2 }}])[{{ k % 2 }}]);
{% endif %}
    }
{% endfor %}
{% endif %}
}
