// Matrix product for GPUs: c[first_row + m, column_offset + n] = sum over k of a[m, k] * w[n, k], plus bias[n]; if `add` is 1,
// what stood there plus `scale` times that. Operands: see gemm_stage.wgsl.
// One workgroup computes a {{ TILE }} x {{ TILE }} tile: {{ THREADS }} x {{ THREADS }} invocations of {{ PER_THREAD }} x {{ PER_THREAD }} results, {{ STEP }} k at a time staged in workgroup memory.
// Grid = tiles of rows x tiles of columns.
@compute @workgroup_size({{ THREADS }}, {{ THREADS }})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u, @builtin(local_invocation_index) index: u32) {
    let row0 = group.x * {{ TILE }}u;
    let column0 = (params.first_block + group.y) * {{ TILE }}u;
{% for i in range(PER_THREAD) %}
    var c{{ i }} = vec4f(0.0);
{% endfor %}
    for (var k0 = 0u; k0 < params.inner; k0 += {{ STEP }}u) {
        stage(row0, column0, k0, index);
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
                    value = c[to] + params.scale * value;
                }
                c[to] = value;
            }
{% endfor %}
        }
    }
{% endfor %}
}
