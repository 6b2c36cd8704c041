// What a query makes of its keys: a part of every attention shader.
{% if SLOPES %}

// The slope of a query head.
fn slope_of(head: u32) -> f32 {
    var slopes = array<f32, {{ SLOPES | length }}>({{ SLOPES | join(", ") }});
    return slopes[head];
}

// What a key's position adds to its score.
fn biased(score: f32, slope: f32, key: u32) -> f32 {
    return score + {% if ROUNDED %}params.scale * bf16(slope * bf16(f32(key))){% else %}slope * f32(key){% endif %};
}
{% if ROUNDED %}

// The nearest number that bf16 has, the even one of two that are as near.
fn bf16(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    return bitcast<f32>((bits + 0x7fffu + ((bits >> 16u) & 1u)) & 0xffff0000u);
}
{% endif %}
{% endif %}

// Causal{% if SLIDING %}, and no further back than the window that slides with the query{% endif %}.
{% if SLIDING %}
// Both sides are computed: a branch for each key is more than some software drivers compile in a reasonable time.
{% endif %}
fn sees(query: u32, key: u32) -> bool {
    return {% if SLIDING %}(key <= query) & (query - key < params.sliding_window){% else %}key <= query{% endif %};
}
{% if SOFT_CAP %}

fn capped(score: f32) -> f32 {
    // Far beyond 15 some drivers' tanh overflows.
    return params.cap * tanh(clamp(score / params.cap, -15.0, 15.0));
}
{% endif %}
