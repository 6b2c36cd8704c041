// How `table` and `qkv` are read, with either family of kernels: a part of attention_cached.wgsl and cache_append.wgsl.
{% if PANEL %}
fn at(t: u32) -> vec2u {
    return vec2u(t % {{ TEXTURE_WIDTH }}u, t / {{ TEXTURE_WIDTH }}u);
}

fn turn(i: u32) -> vec2f {
    let turns = textureLoad(table, at(i / 2u));
    return select(turns.xy, turns.zw, i % 2u == 1u);
}

fn projected(row: u32, column: u32) -> f32 {
    let block = row / {{ ROWS }}u * (params.stride / 4u);
    return textureLoad(qkv, at((block + column / 4u) * {{ ROWS }}u + row % {{ ROWS }}u))[column % 4u];
}
{% else %}
fn turn(i: u32) -> vec2f {
    return table[i];
}

fn projected(row: u32, column: u32) -> f32 {
    return qkv[row * params.stride + column];
}
{% endif %}
