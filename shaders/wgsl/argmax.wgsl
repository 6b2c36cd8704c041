// The most likely token over chunks of the vocabulary: the largest logit, on a tie the lowest id.
//   logits: [columns], the chunk's logits of one position; column i is token first_token + i
//   best:   (largest logit, its token id, 1 if a logit was not finite, unused), carried from chunk to chunk
// f32 counts exactly to 2^24, far beyond any vocabulary. One workgroup.
struct Params {
    columns: u32,
    first_token: u32,
    // 1 for the first chunk
    is_first: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
{% if PANEL %}
@group(0) @binding(1) var logits: texture_storage_2d<rgba32float, read>;
{% else %}
@group(0) @binding(1) var<storage, read> logits: array<f32>;
{% endif %}
@group(0) @binding(2) var<storage, read_write> best: array<vec4f>;

// Lower than any logit; WGSL may assume that there are no infinities.
const LOWEST = -3.0e38;

var<workgroup> found: array<vec4f, 64>;

fn better(a: vec4f, b: vec4f) -> vec4f {
    let takes_b = b.x > a.x || (b.x == a.x && b.y < a.y);
    return vec4f(select(a.xy, b.xy, takes_b), max(a.z, b.z), 0.0);
}

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {
    var mine = vec4f(LOWEST, f32(params.first_token + lane), 0.0, 0.0);
    for (var column = lane; column < params.columns; column += 64u) {
{% if PANEL %}
        // The one row is the first of its block, wherever the next block begins.
        let logit = textureLoad(logits, at(in_block(0u, column / 4u, 0u)))[column % 4u];
{% else %}
        let logit = logits[column];
{% endif %}
        // All ones in the exponent: infinite or NaN, which comparisons of floats may be compiled not to see.
        if (bitcast<u32>(logit) & 0x7f800000u) == 0x7f800000u {
            mine.z = 1.0;
        } else {
            mine = better(mine, vec4f(logit, f32(params.first_token + column), 0.0, 0.0));
        }
    }
    found[lane] = mine;
    workgroupBarrier();
{% for half in [32, 16, 8, 4, 2, 1] %}
    if lane < {{ half }}u {
        found[lane] = better(found[lane], found[lane + {{ half }}u]);
    }
    workgroupBarrier();
{% endfor %}
    if lane > 0u {
        return;
    }
    var winner = found[0];
    if params.is_first == 0u {
        winner = better(best[0], winner);
    }
    best[0] = winner;
}
