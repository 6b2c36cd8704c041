// Copies the heads of a fused projection into a texture that attention_panel.wgsl reads: 4 neighbouring elements of a
// head a texel; rows and elements that do not exist are zeros.
//   qkv:    [rows, stride]; the heads start at first_column; a batch of windows of `window` rows
//   output: texel t = (((window_index * heads + head) * blocks + block) * {{ HEAD_TEXELS }} + d4) * group + r
//           holds row block * group + r of its window; group is {{ LANES }} for Q and 1 for K and V
// One invocation a texel; grid = texels of a head of a window x heads x windows.
struct Params {
    window: u32,
    stride: u32,
    first_column: u32,
    heads: u32,
    head_dim: u32,
    group: u32,
    // blocks of `group` rows in a window
    blocks: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> qkv: array<f32>;
@group(0) @binding(2) var output: texture_storage_2d<rgba32float, write>;

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
        let base = (id.z * params.window + row) * params.stride + params.first_column + id.y * params.head_dim + d;
{% for i in range(4) %}
        if d + {{ i }}u < params.head_dim {
            texel[{{ i }}] = qkv[base + {{ i }}u];
        }
{% endfor %}
    }
    let t = (id.z * params.heads + id.y) * texels + id.x;
    textureStore(output, vec2u(t % {{ TEXTURE_WIDTH }}u, t / {{ TEXTURE_WIDTH }}u), texel);
}
