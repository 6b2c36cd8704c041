// Copies the heads of a fused projection into a texture that attention_panel.wgsl reads: 4 neighbouring elements of a
// head a texel; rows that do not exist are zeros. Q and K are turned on the way, as rotary.wgsl does.
//   table:  [window, head_dim / 2] of (cos, sin), the scaling of attention included; two a texel
//   qkv:    [rows, stride], as gemm_panel.wgsl writes it; the heads start at first_column; a batch of windows of `window` rows
//   output: texel t = (((window_index * heads + head) * blocks + block) * {{ HEAD_TEXELS }} + d4) * group + r
//           holds row block * group + r of its window
// One invocation a texel; grid = texels of a head of a window x heads x windows.
struct Params {
    window: u32,
    stride: u32,
    first_column: u32,
    heads: u32,
    // rows that lie side by side in the texture
    group: u32,
    // blocks of `group` rows in a window
    blocks: u32,
    // 1 for Q and K
    rotate: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var table: texture_storage_2d<rgba32float, read>;
@group(0) @binding(2) var qkv: texture_storage_2d<rgba32float, read>;
@group(0) @binding(3) var output: texture_storage_2d<rgba32float, write>;

const HALF = {{ HEAD_DIM // 2 }}u;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let texels = params.blocks * {{ HEAD_TEXELS }}u * params.group;
    if id.x >= texels {
        return;
    }
    let r = id.x % params.group;
    let d = (id.x / params.group) % {{ HEAD_TEXELS }}u * 4u;
    let row = id.x / (params.group * {{ HEAD_TEXELS }}u) * params.group + r;
    var texel = vec4f(0.0);
    if row < params.window {
        let from_row = id.z * params.window + row;
        let base = params.first_column + id.y * {{ HEAD_DIM }}u;
        texel = four_projected(from_row, base + d);
        if params.rotate == 1u {
{% if ALIGNED %}
            let i = row * HALF + d % HALF;
            let first = textureLoad(table, at(i / 2u));
            let second = textureLoad(table, at(i / 2u + 1u));
            let cosines = vec4f(first.xz, second.xz);
            let sines = vec4f(first.yw, second.yw);
            if d < HALF {
                texel = texel * cosines - four_projected(from_row, base + d + HALF) * sines;
            } else {
                texel = texel * cosines + four_projected(from_row, base + d - HALF) * sines;
            }
{% else %}
            for (var e = 0u; e < 4u; e++) {
                let by = turn(row * HALF + (d + e) % HALF);
                if d + e < HALF {
                    texel[e] = texel[e] * by.x - projected(from_row, base + d + e + HALF) * by.y;
                } else {
                    texel[e] = texel[e] * by.x + projected(from_row, base + d + e - HALF) * by.y;
                }
            }
{% endif %}
        }
    }
    let t = (id.z * params.heads + id.y) * texels + id.x;
    textureStore(output, at(t), texel);
}
