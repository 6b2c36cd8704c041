// Matrix product by cooperative matrices, for GPUs that have them: c[first_row + m, column_offset + n] = sum over k of
// a[m, k] * w[n, k], plus bias[n]; if `add` is 1, what stood there plus `scale` times that. Operands: see gemm_stage.wgsl.
// One workgroup computes a {{ TILE }} x {{ TILE }} tile, a subgroup a {{ PART }} x {{ PART }} part of it by {{ SIZE }} x {{ SIZE }} matrices, summed up in f32.
// Workgroups of fewer than {{ PARTS }} subgroups take several turns; in those of more the others repeat a part, and nobody looks at
// it: matrices are for uniform control flow.
{% if SPLIT %}
// An operand is the sum of two f16 matrices, so that a product has about 22 bits: that of the second ones is left out.
{% endif %}
// Grid = tiles of rows x tiles of columns.
{% if SPLIT %}
enable f16;
{% endif %}
enable wgpu_cooperative_matrix;

// What the subgroups have computed, on its way to c: a matrix for each part, and a place for what nobody looks at.
var<workgroup> results: array<f32, {{ (PARTS + 1) * SIZE * SIZE }}>;
var<workgroup> working: u32;

@compute @workgroup_size({{ INVOCATIONS }})
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) num_subgroups: u32,
) {
    let row0 = group.x * {{ TILE }}u;
    let column0 = (params.first_block + group.y) * {{ TILE }}u;
    if index == 0u {
        working = min(num_subgroups, {{ PARTS }}u);
    }
    let turn = workgroupUniformLoad(&working);
    for (var first = 0u; first < {{ PARTS }}u; first += turn) {
        let part = (first + subgroup) % {{ PARTS }}u;
        let result = select({{ PARTS }}u, subgroup, subgroup < turn) * {{ SIZE * SIZE }}u;
        let from_row = part / {{ TILE // PART }}u * {{ PART }}u;
        let from_column = part % {{ TILE // PART }}u * {{ PART }}u;
{% for i in range(PART // SIZE) %}
{% for j in range(PART // SIZE) %}
        var c{{ i }}_{{ j }} = {{ MATRIX }}<f32, C>();
{% if SPLIT %}
        var rest{{ i }}_{{ j }} = {{ MATRIX }}<f32, C>();
{% endif %}
{% endfor %}
{% endfor %}
        for (var k0 = 0u; k0 < params.inner; k0 += {{ STEP }}u) {
            stage(row0, column0, k0, index);
            workgroupBarrier();
{% for k in range(0, STEP, SIZE) %}
            {
{% for i in range(PART // SIZE) %}
                // k is outermost in both tiles: A's columns lie together, and W's rows.
                let a{{ i }} = coopLoad<{{ MATRIX }}<{{ ELEMENT }}, A>>(&tile_a[{{ k * TILE + i * SIZE }}u + from_row], {{ TILE }}u);
{% if SPLIT %}
                let rest_a{{ i }} = coopLoad<{{ MATRIX }}<{{ ELEMENT }}, A>>(&rest_a[{{ k * TILE + i * SIZE }}u + from_row], {{ TILE }}u);
{% endif %}
{% endfor %}
{% for j in range(PART // SIZE) %}
                {
                    let w = coopLoadT<{{ MATRIX }}<{{ ELEMENT }}, B>>(&tile_w[{{ k * TILE + j * SIZE }}u + from_column], {{ TILE }}u);
{% if REST_W %}
                    let rest_w = coopLoadT<{{ MATRIX }}<{{ ELEMENT }}, B>>(&rest_w[{{ k * TILE + j * SIZE }}u + from_column], {{ TILE }}u);
{% endif %}
{% for i in range(PART // SIZE) %}
                    c{{ i }}_{{ j }} = coopMultiplyAdd(a{{ i }}, w, c{{ i }}_{{ j }});
{% if SPLIT %}
                    rest{{ i }}_{{ j }} = coopMultiplyAdd(rest_a{{ i }}, w, rest{{ i }}_{{ j }});
{% endif %}
{% if REST_W %}
                    rest{{ i }}_{{ j }} = coopMultiplyAdd(a{{ i }}, rest_w, rest{{ i }}_{{ j }});
{% endif %}
{% endfor %}
                }
{% endfor %}
            }
{% endfor %}
            workgroupBarrier();
        }
{% for i in range(PART // SIZE) %}
{% for j in range(PART // SIZE) %}
{% if SPLIT %}
        coopStoreT((c{{ i }}_{{ j }} + rest{{ i }}_{{ j }} * {{ 1.0 / REST_SCALE }}) * {{ A_SCALE }}, &results[result], {{ SIZE }}u);
{% else %}
        coopStoreT(c{{ i }}_{{ j }}, &results[result], {{ SIZE }}u);
{% endif %}
        workgroupBarrier();
        write(row0 + {{ i * SIZE }}u, column0 + {{ j * SIZE }}u, first, min(turn, {{ PARTS }}u - first), index);
        workgroupBarrier();
{% endfor %}
{% endfor %}
    }
}

// Takes the results of `count` parts, beginning with the part `first`, to c; a matrix of each, at `row` and `column` of it.
fn write(row: u32, column: u32, first: u32, count: u32, index: u32) {
    for (var e = index; e < count * {{ SIZE * SIZE }}u; e += {{ INVOCATIONS }}u) {
        let part = first + e / {{ SIZE * SIZE }}u;
        let m = row + part / {{ TILE // PART }}u * {{ PART }}u + e % {{ SIZE * SIZE }}u / {{ SIZE }}u;
        let n = column + part % {{ TILE // PART }}u * {{ PART }}u + e % {{ SIZE }}u;
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
