// Matrix product for GPUs: c[first_row + m, column_offset + n] = sum over k of a[m, k] * w[n, k], plus bias[n]; if `add` is 1,
// what stood there plus `scale` times that. Operands: see gemm_operands.wgsl.
// One workgroup computes a {{ TILE }} x {{ TILE }} tile: {{ ACROSS }} x {{ DOWN }} invocations of 4 rows and 8 columns each, {{ STEP }} k at a time staged in workgroup memory.
// Grid = tiles of rows x tiles of columns.

// Both tiles with k outermost, so that what an invocation multiplies lies together.
var<workgroup> tile_a: array<vec4f, {{ STEP * PITCH }}>;
var<workgroup> tile_w: array<vec4f, {{ STEP * PITCH }}>;

@compute @workgroup_size({{ ACROSS }}, {{ DOWN }})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u, @builtin(local_invocation_index) index: u32) {
    let row0 = group.x * {{ TILE }}u;
    let column0 = (params.first_block + group.y) * {{ TILE }}u;
{% for i in range(4) %}
    var low{{ i }} = vec4f(0.0);
    var high{{ i }} = vec4f(0.0);
{% endfor %}
    for (var k0 = 0u; k0 < params.inner; k0 += {{ STEP }}u) {
        for (var e = index; e < {{ TILE * STEP // 4 }}u; e += {{ ACROSS * DOWN }}u) {
            let row = e / {{ STEP // 4 }}u;
            let k = e % {{ STEP // 4 }}u * 4u;
            let value = load_a(row0 + row, k0 + k);
{% for i in range(4) %}
            tile_a[(k + {{ i }}u) * {{ PITCH }}u + row / 4u][row % 4u] = value[{{ i }}];
{% endfor %}
        }
        for (var e = index; e < {{ TILE * STEP // 8 }}u; e += {{ ACROSS * DOWN }}u) {
            let column = e / {{ STEP // 8 }}u;
            let k = e % {{ STEP // 8 }}u * 8u;
            let values = unpacked(load_w(column0 + column, k0 + k));
{% for i in range(8) %}
            tile_w[(k + {{ i }}u) * {{ PITCH }}u + column / 4u][column % 4u] = values[{{ i // 4 }}][{{ i % 4 }}];
{% endfor %}
        }
        workgroupBarrier();
        for (var k = 0u; k < {{ STEP }}u; k++) {
            let rows = tile_a[k * {{ PITCH }}u + local.y];
            let low = tile_w[k * {{ PITCH }}u + local.x];
            let high = tile_w[k * {{ PITCH }}u + local.x + {{ ACROSS }}u];
{% for i in range(4) %}
            low{{ i }} += rows[{{ i }}] * low;
            high{{ i }} += rows[{{ i }}] * high;
{% endfor %}
        }
        workgroupBarrier();
    }
{% for i in range(4) %}
    write(row0 + local.y * 4u + {{ i }}u, column0 + local.x * 4u, low{{ i }});
    write(row0 + local.y * 4u + {{ i }}u, column0 + (local.x + {{ ACROSS }}u) * 4u, high{{ i }});
{% endfor %}
}

// Takes 4 neighbouring results to c.
fn write(row: u32, column: u32, values: vec4f) {
    if row >= params.rows {
        return;
    }
    let to = (params.first_row + row) * params.stride + params.column_offset + column;
{% for j in range(4) %}
    if column + {{ j }}u < params.columns {
        var value = values[{{ j }}];
        if params.has_bias == 1u {
            value += bias[params.column_offset + column + {{ j }}u];
        }
        if params.add == 1u {
            value = c[to + {{ j }}u] + params.scale * value;
        }
        c[to + {{ j }}u] = value;
    }
{% endfor %}
}
