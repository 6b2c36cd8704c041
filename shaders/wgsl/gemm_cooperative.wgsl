// Matrix product by cooperative matrices, for GPUs that have them: c[first_row + m, column_offset + n] = sum over k of
// a[m, k] * w[n, k], plus bias[n]; if `add` is 1, what stood there plus `scale` times that. Operands: see gemm_operands.wgsl.
// One workgroup computes a tile of {{ ROWS }} rows and {{ COLUMNS }} columns, a subgroup a part of {{ PART_ROWS }} x {{ PART_COLUMNS }} of it by {{ SIZE }} x {{ SIZE }} matrices.
// {{ STEP }} k at a time are staged in workgroup memory, k innermost, while the next ones are on their way.
{% if SPLIT %}
// A is the sum of two f16 matrices, so that a product has about 22 bits. The matrix units of some GPUs cut off what they sum
// up instead of rounding it, so that only one step's products are left to them.
{% endif %}
{% if TURNS %}
// Workgroups of fewer than {{ PARTS }} subgroups take several turns; in those of more the others repeat a part, and nobody looks at
// it: matrices are for uniform control flow.
{% endif %}
// Grid = tiles of rows x tiles of columns.
{% if SPLIT %}
enable f16;
{% endif %}
enable wgpu_cooperative_matrix;

{% if SPLIT %}
// A number is the sum of two f16: its first 11 bits, and 11 bits of what is left, {{ REST_SCALE }} times larger so that it stays clear of
// the smallest f16. A is made smaller first, so that values up to {{ 65504 * A_SCALE }} fit; W's largest value is brought near to f16's
// by a power of two, so that what is left of the others needs no more.
var<workgroup> tile_a: array<vec4<f16>, {{ ROWS * PITCH // 4 }}>;
var<workgroup> rest_a: array<vec4<f16>, {{ ROWS * PITCH // 4 }}>;
var<workgroup> tile_w: array<vec4<f16>, {{ COLUMNS * PITCH // 4 }}>;
{% if REST_W %}
var<workgroup> rest_w: array<vec4<f16>, {{ COLUMNS * PITCH // 4 }}>;
{% endif %}

// The first 11 bits, nothing of what is too small for a normal f16. By bits, because compilers may take f32(f16(value))
// for value.
fn first_bits(value: vec4f) -> vec4f {
    return select(bitcast<vec4f>(bitcast<vec4u>(value) & vec4u(0xffffe000u)), vec4f(0.0), abs(value) < vec4f(6.103515625e-5));
}

fn put_a(at: u32, value: vec4f) {
    let scaled = value * {{ 1.0 / A_SCALE }};
    let first = first_bits(scaled);
    tile_a[at] = vec4<f16>(first);
    rest_a[at] = vec4<f16>((scaled - first) * {{ REST_SCALE }});
}

fn put_w(at: u32, value: vec4f) {
    let scaled = value * params.w_scale;
{% if REST_W %}
    let first = first_bits(scaled);
    tile_w[at] = vec4<f16>(first);
    rest_w[at] = vec4<f16>(scaled - first);
{% else %}
    tile_w[at] = vec4<f16>(scaled);
{% endif %}
}
{% else %}
var<workgroup> tile_a: array<f32, {{ ROWS * PITCH }}>;
var<workgroup> tile_w: array<f32, {{ COLUMNS * PITCH }}>;

fn put_a(at: u32, value: vec4f) {
{% for i in range(4) %}
    tile_a[4u * at + {{ i }}u] = value[{{ i }}];
{% endfor %}
}

fn put_w(at: u32, value: vec4f) {
{% for i in range(4) %}
    tile_w[4u * at + {{ i }}u] = value[{{ i }}];
{% endfor %}
}
{% endif %}

// What does not go straight to c, on its way there: a matrix for each part, and a place for what nobody looks at.
var<workgroup> results: array<f32, {{ (PARTS + 1) * SIZE * SIZE }}>;
{% if TURNS %}
var<workgroup> working: u32;
{% endif %}
{% set LOADS_A = ROWS * STEP // (4 * INVOCATIONS) %}
{% set LOADS_W = COLUMNS * STEP // (8 * INVOCATIONS) %}

@compute @workgroup_size({{ INVOCATIONS }})
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_id) subgroup: u32,
{% if TURNS %}
    @builtin(num_subgroups) num_subgroups: u32,
{% endif %}
) {
    let row0 = group.x * {{ ROWS }}u;
    let column0 = (params.first_block + group.y) * {{ COLUMNS }}u;
    // What this invocation stages: elements of a row of A, and of one of W.
    let row = index / {{ STEP // 4 }}u;
    let a_k = index % {{ STEP // 4 }}u * 4u;
    let column = index / {{ STEP // 8 }}u;
    let w_k = index % {{ STEP // 8 }}u * 8u;
    let to_a = (row * {{ PITCH }}u + a_k) / 4u;
    let to_w = (column * {{ PITCH }}u + w_k) / 4u;
{% for p in range(LOADS_A) %}
    var next_a{{ p }} = load_a(row0 + row + {{ p * INVOCATIONS * 4 // STEP }}u, a_k);
{% endfor %}
{% for p in range(LOADS_W) %}
    var next_w{{ p }} = load_w(column0 + column + {{ p * INVOCATIONS * 8 // STEP }}u, w_k);
{% endfor %}
    let zero = {{ MATRIX }}<f32, C>();
{% for i in range(PART_ROWS // SIZE) %}
{% for j in range(PART_COLUMNS // SIZE) %}
    var sum{{ i }}_{{ j }} = {{ MATRIX }}<f32, C>();
{% endfor %}
{% endfor %}
    // Both sides are computed: naga does not see that a branch would be uniform.
    let whole = (row0 + {{ ROWS }}u <= params.rows) & (column0 + {{ COLUMNS }}u <= params.columns) & (params.has_bias == 0u);
{% if TURNS %}
    if index == 0u {
        working = num_subgroups;
    }
    let there = workgroupUniformLoad(&working);
    let turn = min(there, {{ PARTS }}u);
    let straight = whole & (there <= {{ PARTS }}u);
    let result = select({{ PARTS }}u, subgroup, subgroup < turn) * {{ SIZE * SIZE }}u;
    for (var first = 0u; first < {{ PARTS }}u; first += turn) {
    let part = (first + subgroup) % {{ PARTS }}u;
    if first > 0u {
{% for i in range(PART_ROWS // SIZE) %}
{% for j in range(PART_COLUMNS // SIZE) %}
        sum{{ i }}_{{ j }} = zero;
{% endfor %}
{% endfor %}
    }
{% else %}
    let turn = {{ PARTS }}u;
    let first = 0u;
    let part = subgroup;
    let straight = whole;
    let result = subgroup * {{ SIZE * SIZE }}u;
{% endif %}
    let from_row = part % {{ ROWS // PART_ROWS }}u * {{ PART_ROWS }}u;
    let from_column = part / {{ ROWS // PART_ROWS }}u * {{ PART_COLUMNS }}u;
    for (var k0 = 0u; k0 < params.inner; k0 += {{ STEP }}u) {
{% for p in range(LOADS_A) %}
        put_a(to_a + {{ p * INVOCATIONS * 4 // STEP * PITCH // 4 }}u, next_a{{ p }});
{% endfor %}
{% for p in range(LOADS_W) %}
        {
            let values = unpacked(next_w{{ p }});
            put_w(to_w + {{ p * INVOCATIONS * 8 // STEP * PITCH // 4 }}u, values[0]);
            put_w(to_w + {{ p * INVOCATIONS * 8 // STEP * PITCH // 4 + 1 }}u, values[1]);
        }
{% endfor %}
        workgroupBarrier();
        // Where there are several turns, the next one begins anew.
        let next = {% if TURNS %}select(k0 + {{ STEP }}u, 0u, k0 + {{ STEP }}u >= params.inner){% else %}k0 + {{ STEP }}u{% endif %};
{% for p in range(LOADS_A) %}
        next_a{{ p }} = load_a(row0 + row + {{ p * INVOCATIONS * 4 // STEP }}u, next + a_k);
{% endfor %}
{% for p in range(LOADS_W) %}
        next_w{{ p }} = load_w(column0 + column + {{ p * INVOCATIONS * 8 // STEP }}u, next + w_k);
{% endfor %}
{% for i in range(PART_ROWS // SIZE) %}
{% for k in range(STEP // SIZE) %}
{% set at = i * SIZE * PITCH + k * SIZE %}
        let a{{ i }}_{{ k }} = coopLoadT<{{ MATRIX }}<{{ ELEMENT }}, A>>(&tile_a[(from_row * {{ PITCH }}u + {{ at }}u) / {{ UNIT }}u], {{ PITCH // UNIT }}u);
{% if SPLIT %}
        let rest_a{{ i }}_{{ k }} = coopLoadT<{{ MATRIX }}<{{ ELEMENT }}, A>>(&rest_a[(from_row * {{ PITCH }}u + {{ at }}u) / {{ UNIT }}u], {{ PITCH // UNIT }}u);
{% endif %}
{% endfor %}
{% endfor %}
{% for j in range(PART_COLUMNS // SIZE) %}
        {
{% for k in range(STEP // SIZE) %}
{% set at = j * SIZE * PITCH + k * SIZE %}
            let w{{ k }} = coopLoad<{{ MATRIX }}<{{ ELEMENT }}, B>>(&tile_w[(from_column * {{ PITCH }}u + {{ at }}u) / {{ UNIT }}u], {{ PITCH // UNIT }}u);
{% if SPLIT %}
            let less_w{{ k }} = w{{ k }} * f16({{ 1.0 / REST_SCALE }});
{% endif %}
{% if REST_W %}
            let rest_w{{ k }} = coopLoad<{{ MATRIX }}<{{ ELEMENT }}, B>>(&rest_w[(from_column * {{ PITCH }}u + {{ at }}u) / {{ UNIT }}u], {{ PITCH // UNIT }}u);
{% endif %}
{% endfor %}
{% for i in range(PART_ROWS // SIZE) %}
{% if SPLIT %}
            var step{{ i }} = zero;
{% for k in range(STEP // SIZE) %}
{% if REST_W %}
            step{{ i }} = coopMultiplyAdd(a{{ i }}_{{ k }}, rest_w{{ k }}, step{{ i }});
{% endif %}
            step{{ i }} = coopMultiplyAdd(rest_a{{ i }}_{{ k }}, less_w{{ k }}, step{{ i }});
            step{{ i }} = coopMultiplyAdd(a{{ i }}_{{ k }}, w{{ k }}, step{{ i }});
{% endfor %}
            sum{{ i }}_{{ j }} = sum{{ i }}_{{ j }} + step{{ i }};
{% else %}
{% for k in range(STEP // SIZE) %}
            sum{{ i }}_{{ j }} = coopMultiplyAdd(a{{ i }}_{{ k }}, w{{ k }}, sum{{ i }}_{{ j }});
{% endfor %}
{% endif %}
{% endfor %}
        }
{% endfor %}
        workgroupBarrier();
    }
    let stride = params.stride;
    let scale = params.scale;
{% if SPLIT %}
    let enlarge = {{ A_SCALE }} / params.w_scale;
{% endif %}
{% for i in range(PART_ROWS // SIZE) %}
{% for j in range(PART_COLUMNS // SIZE) %}
    {
        let value = sum{{ i }}_{{ j }}{% if SPLIT %} * enlarge{% endif %};
        if straight {
            let to = (params.first_row + row0 + from_row + {{ i * SIZE }}u) * stride
                + params.column_offset + column0 + from_column + {{ j * SIZE }}u;
            if params.add == 1u {
                let before = coopLoadT<{{ MATRIX }}<f32, C>>(&c[to], stride);
                let after = before + value * scale;
                coopStoreT(after, &c[to], stride);
            } else {
                coopStoreT(value, &c[to], stride);
            }
        } else {
            coopStoreT(value, &results[result], {{ SIZE }}u);
            workgroupBarrier();
            write(row0 + {{ i * SIZE }}u, column0 + {{ j * SIZE }}u, first, min(turn, {{ PARTS }}u - first), index);
            workgroupBarrier();
        }
    }
{% endfor %}
{% endfor %}
{% if TURNS %}
    }
{% endif %}
}

// Takes the results of `count` parts, beginning with the part `first`, to c; a matrix of each, at `row` and `column` of it.
fn write(row: u32, column: u32, first: u32, count: u32, index: u32) {
    for (var e = index; e < count * {{ SIZE * SIZE }}u; e += {{ INVOCATIONS }}u) {
        let part = first + e / {{ SIZE * SIZE }}u;
        let m = row + part % {{ ROWS // PART_ROWS }}u * {{ PART_ROWS }}u + e % {{ SIZE * SIZE }}u / {{ SIZE }}u;
        let n = column + part / {{ ROWS // PART_ROWS }}u * {{ PART_COLUMNS }}u + e % {{ SIZE }}u;
        if m < params.rows && n < params.columns {
            let to = (params.first_row + m) * params.stride + params.column_offset + n;
            var value = results[e];
            if params.has_bias == 1u {
                value += bias[params.column_offset + n];
            }
            if params.add == 1u {
                value = c[to] + params.scale * value;
            }
            c[to] = value;
        }
    }
}
