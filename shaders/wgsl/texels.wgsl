// Where texels lie: a part of every shader that has textures.

// Texel t of a texture.
fn at(t: u32) -> vec2u {
    return vec2u(t % {{ TEXTURE_WIDTH }}u, t / {{ TEXTURE_WIDTH }}u);
}

// A texel of a row, where rows lie in blocks of {{ ROWS }} as gemm_panel.wgsl reads and writes them, `texels` texels a row. The
// next texel of the row is {{ ROWS }} further.
fn in_block(row: u32, texel: u32, texels: u32) -> u32 {
    return (row / {{ ROWS }}u * texels + texel) * {{ ROWS }}u + row % {{ ROWS }}u;
}
