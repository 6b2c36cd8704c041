// For GPUs: negative log-likelihood of each target by an online log-sum-exp over chunks of the vocabulary.
//   logits:  [rows, stride], the chunk's logits, which are scaled{% if SOFT_CAP %} and capped{% endif %} here; column i is token first_token + i
//   targets: [rows] token ids
//   running: [rows] of (maximum, sum of exp(logit - maximum), logit of the target, unused), carried from chunk to chunk
//   nll:     [rows], written at the last chunk: maximum + log(sum) - target logit, in nats
// One workgroup a row, put together in a fixed order (reduce.wgsl), so a row's result does not depend on its neighbours.
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
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> targets: array<u32>;
@group(0) @binding(3) var<storage, read_write> running: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> nll: array<f32>;

// Lower than any logit; WGSL may assume that there are no infinities.
const LOWEST = -3.0e38;

// A logit as the model means it.
fn meant(logit: f32) -> f32 {
{% if SOFT_CAP %}
    // Far beyond 15 some drivers' tanh overflows.
    return params.cap * tanh(clamp(logit * params.scale / params.cap, f32(-15.0), f32(15.0)));
{% else %}
    return logit * params.scale;
{% endif %}
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, lane: Lane) {
    let row = group.y * groups.x + group.x;
    if row >= params.rows {
        return;
    }
    let base = row * params.stride;
    var largest = LOWEST;
    for (var column = lane.index; column < params.columns; column += 64u) {
        largest = max(largest, meant(logits[base + column]));
    }
    largest = reduce_max(largest, lane);
    var sum = 0.0;
    for (var column = lane.index; column < params.columns; column += 64u) {
        sum += exp(meant(logits[base + column]) - largest);
    }
    sum = reduce_add(sum, lane);
    if lane.index > 0u {
        return;
    }
    var state = vec4f(largest, sum, 0.0, 0.0);
    if params.is_first == 0u {
        let before = running[row];
        let top = max(before.x, largest);
        state = vec4f(top, before.y * exp(before.x - top) + sum * exp(largest - top), before.z, 0.0);
    }
    let target_column = targets[row] - params.first_token;
    if target_column < params.columns {
        state.z = meant(logits[base + target_column]);
    }
    running[row] = state;
    if params.is_last == 1u {
        nll[row] = state.x + log(state.y) - state.z;
    }
}
