// For CPU-type adapters: negative log-likelihood of each target, as log_sum_exp.wgsl.
//   logits: [rows, stride], as gemm_panel.wgsl writes it; what stands past `columns` is ignored
// One lane a row, so that nothing is shared between lanes.
struct Params {
    rows: u32,
    columns: u32,
    stride: u32,
    first_token: u32,
    // 1 for the first and the last chunk
    is_first: u32,
    is_last: u32,
    // what logits are multiplied by
    scale: f32,
    // what they then come near to at most, in the variant that caps
    cap: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var logits: texture_storage_2d<rgba32float, read>;
@group(0) @binding(2) var<storage, read> targets: array<u32>;
@group(0) @binding(3) var<storage, read_write> running: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> nll: array<f32>;

// Lower than any logit; WGSL may assume that there are no infinities.
const LOWEST = -3.0e38;

// A logit as the model means it.
fn meant(logit: vec4f) -> vec4f {
{% if SOFT_CAP %}
    // Far beyond 15 some drivers' tanh overflows.
    return params.cap * tanh(clamp(logit * params.scale / params.cap, vec4f(-15.0), vec4f(15.0)));
{% else %}
    return logit * params.scale;
{% endif %}
}

fn there(i: u32) -> vec4<bool> {
    return vec4u(4u * i, 4u * i + 1u, 4u * i + 2u, 4u * i + 3u) < vec4u(params.columns);
}

@compute @workgroup_size({{ LANES }})
fn main(@builtin(global_invocation_id) id: vec3u) {
    let stride4 = params.stride / 4u;
    let row = id.x;
    if row >= params.rows {
        return;
    }
    let base = in_block(row, 0u, stride4);
    var maxima = vec4f(LOWEST);
    for (var i = 0u; i < stride4; i++) {
        maxima = max(maxima, select(vec4f(LOWEST), meant(textureLoad(logits, at(base + i * {{ ROWS }}u))), there(i)));
    }
    let largest = max(max(maxima.x, maxima.y), max(maxima.z, maxima.w));
    var sums = vec4f(0.0);
    for (var i = 0u; i < stride4; i++) {
        sums += select(vec4f(0.0), exp(meant(textureLoad(logits, at(base + i * {{ ROWS }}u))) - largest), there(i));
    }
    let sum = (sums.x + sums.y) + (sums.z + sums.w);
    var state = vec4f(largest, sum, 0.0, 0.0);
    if params.is_first == 0u {
        let before = running[row];
        let top = max(before.x, largest);
        state = vec4f(top, before.y * exp(before.x - top) + sum * exp(largest - top), before.z, 0.0);
    }
    let target_column = targets[row] - params.first_token;
    if target_column < params.columns {
        state.z = meant(textureLoad(logits, at(base + target_column / 4u * {{ ROWS }}u)))[target_column % 4u];
    }
    running[row] = state;
    if params.is_last == 1u {
        nll[row] = state.x + log(state.y) - state.z;
    }
}
