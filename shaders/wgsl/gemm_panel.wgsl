// Matrix product for CPU-type adapters: c[m, column_offset + n] = sum over k of a[m, k] * w[n, k], plus bias[n];
// in the variant that adds, residual[m, column_offset + n] plus `scale` times that: software drivers compute what a branch
// could skip.
//   a: blocks of {{ ROWS }} rows; texel (block * inner4 + k4) * {{ ROWS }} + r holds 4 neighbouring k of row block * {{ ROWS }} + r
{% if QUANTISED %}
//   w: {{ WEIGHT }} panels of {{ 4 * LANES }} rows n; texel ((block * (inner / 32) + k / 32) * {{ BLOCK_WORDS }} + unit) * {{ LANES }} + lane holds, of the rows
//      n = block * {{ 4 * LANES }} + 4 * lane + 0 .. 3, the scales of a block in unit 0 and then {{ TEXEL_K }} neighbouring k a unit
{% else %}
//   w: {{ WEIGHT }} panels of {{ 4 * LANES }} rows n; texel ((block * steps + step) * 4 + j) * {{ LANES }} + lane holds {{ TEXEL_K }} neighbouring k of
//      row n = block * {{ 4 * LANES }} + 4 * lane + j
{% endif %}
//   c: as a, with stride / 4 texels a row, so that a workgroup writes neighbouring texels; in the variant that adds
//      [rows, stride], as the residual
//   bias: padded to a multiple of 4
// One workgroup is one vector of {{ LANES }} lanes: {{ ROWS }} rows x {{ 4 * LANES }} columns, the whole of k in one loop, no shared memory.
// Software drivers turn such lanes into SIMD; only loads and stores of storage textures stay whole vectors there, buffers
// are read and written lane by lane.
// Grid = blocks of rows x panels.
struct Params {
    rows: u32,
    // columns of this weight shard
    columns: u32,
    // k in texels of 4, padded to an even number
    inner4: u32,
    stride: u32,
    column_offset: u32,
    // 1 if bias holds values
    has_bias: u32,
    // first panel of this dispatch
    first_block: u32,
    // what is added is multiplied by this
    scale: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var a: texture_storage_2d<rgba32float, read>;
@group(0) @binding(2) var w: texture_storage_2d<{{ TEXEL_FORMAT }}, read>;
@group(0) @binding(3) var<storage, read> bias: array<vec4f>;
@group(0) @binding(4) var c: texture_storage_2d<rgba32float, write>;
{% if RESIDUAL %}
@group(0) @binding(5) var residual: texture_storage_2d<rgba32float, read>;
{% endif %}

@compute @workgroup_size({{ LANES }})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let stride4 = params.stride / 4u;
    let row0 = group.x * {{ ROWS }}u;
    let block = params.first_block + group.y;
    let steps = params.inner4 / 2u;
{% if SUBGROUPS %}
    var ta = group.x * params.inner4 * {{ ROWS }}u + lane;
{% else %}
    var ta = group.x * params.inner4 * {{ ROWS }}u;
{% endif %}
{% if QUANTISED %}
    let panel = block * (params.inner4 / 8u) * {{ BLOCK_WORDS * LANES }}u + lane;
{% else %}
    var tw = block * params.inner4 * {{ LANES * 16 // TEXEL_K }}u + lane;
{% endif %}
{% for r in range(ROWS) %}
    var c{{ r }} = vec4f(0.0);
{% endfor %}
    for (var step = 0u; step < steps; step++) {
{% if QUANTISED %}
        let ts = panel + step / 4u * {{ BLOCK_WORDS * LANES }}u;
        let tw = ts + {{ LANES }}u + step % 4u * {{ 8 // TEXEL_K * LANES }}u;
        let scales = textureLoad(w, at(ts));
{% for part in range(8 // TEXEL_K) %}
        let w{{ part }} = textureLoad(w, at(tw + {{ part * LANES }}u));
{% endfor %}
{% elif TEXEL_K == 8 %}
{% for j in range(4) %}
        let w{{ j }} = textureLoad(w, at(tw + {{ j * LANES }}u));
{% endfor %}
{% endif %}
{% for h in range(2) %}
{% if QUANTISED %}
{% for name in ["x", "y", "z", "v"] %}
        let {{ name }}{{ h }} = unpack(w{{ h * 4 // TEXEL_K }}, vec4u({{ (h * 4 % TEXEL_K + loop.index0) * (32 // TEXEL_K) }}u), scales);
{% endfor %}
{% else %}
{% for j in range(4) %}
{% if WEIGHT == "f32" %}
        let u{{ h }}{{ j }} = textureLoad(w, at(tw + {{ (h * 4 + j) * LANES }}u));
{% elif WEIGHT == "bf16" %}
        let u{{ h }}{{ j }} = vec4f(bitcast<f32>(w{{ j }}[{{ 2 * h }}] << 16u), bitcast<f32>(w{{ j }}[{{ 2 * h }}] & 0xffff0000u), bitcast<f32>(w{{ j }}[{{ 2 * h + 1 }}] << 16u), bitcast<f32>(w{{ j }}[{{ 2 * h + 1 }}] & 0xffff0000u));
{% else %}
        let u{{ h }}{{ j }} = vec4f(unpack2x16float(w{{ j }}[{{ 2 * h }}]), unpack2x16float(w{{ j }}[{{ 2 * h + 1 }}]));
{% endif %}
{% endfor %}
{% for name in ["x", "y", "z", "w"] %}
        let {{ "v" if name == "w" else name }}{{ h }} = vec4f(u{{ h }}0.{{ name }}, u{{ h }}1.{{ name }}, u{{ h }}2.{{ name }}, u{{ h }}3.{{ name }});
{% endfor %}
{% endif %}
{% if SUBGROUPS %}
{% for part in range((ROWS + LANES - 1) // LANES) %}
        let part{{ h }}_{{ part }} = textureLoad(a, at(ta + {{ h * ROWS + part * LANES }}u));
{% endfor %}
{% endif %}
{% endfor %}
{% for r in range(ROWS) %}
{% for h in range(2) %}
{% if SUBGROUPS %}
        let a{{ r }}_{{ h }} = subgroupShuffle(part{{ h }}_{{ r // LANES }}, {{ r % LANES }}u);
{% else %}
        let a{{ r }}_{{ h }} = textureLoad(a, at(ta + {{ h * ROWS + r }}u));
{% endif %}
        c{{ r }} += a{{ r }}_{{ h }}.x * x{{ h }};
        c{{ r }} += a{{ r }}_{{ h }}.y * y{{ h }};
        c{{ r }} += a{{ r }}_{{ h }}.z * z{{ h }};
        c{{ r }} += a{{ r }}_{{ h }}.w * v{{ h }};
{% endfor %}
{% endfor %}
        ta += {{ 2 * ROWS }}u;
{% if not QUANTISED %}
        tw += {{ LANES * 32 // TEXEL_K }}u;
{% endif %}
    }
    let column = (block * {{ LANES }}u + lane) * 4u;
    if column >= params.columns {
        return;
    }
    let column4 = (params.column_offset + column) / 4u;
    var b = vec4f(0.0);
    if params.has_bias == 1u {
        b = bias[column4];
    }
{% if RESIDUAL %}
    let base = row0 * stride4 + column4;
{% else %}
    let base = row0 * stride4 + column4 * {{ ROWS }}u;
{% endif %}
{% for r in range(ROWS) %}
    if row0 + {{ r }}u < params.rows {
        c{{ r }} += b;
{% if RESIDUAL %}
        c{{ r }} = textureLoad(residual, at(base + {{ r }}u * stride4)) + params.scale * c{{ r }};
        textureStore(c, at(base + {{ r }}u * stride4), c{{ r }});
{% else %}
        textureStore(c, at(base + {{ r }}u), c{{ r }});
{% endif %}
    }
{% endfor %}
}
