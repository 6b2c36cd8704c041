// How `table` and `qkv` are read, with either family of kernels: a part of attention_cached.wgsl, cache_append.wgsl and
// attention_pack.wgsl.
{% if PANEL %}
fn turn(i: u32) -> vec2f {
    let turns = textureLoad(table, at(i / 2u));
    return select(turns.xy, turns.zw, i % 2u == 1u);
}

// The four neighbouring elements that hold a column.
fn four_projected(row: u32, column: u32) -> vec4f {
    return textureLoad(qkv, at(in_block(row, column / 4u, params.stride / 4u)));
}

fn projected(row: u32, column: u32) -> f32 {
    return four_projected(row, column)[column % 4u];
}
{% else %}
fn turn(i: u32) -> vec2f {
    return table[i];
}

fn projected(row: u32, column: u32) -> f32 {
    return qkv[row * params.stride + column];
}
{% endif %}
