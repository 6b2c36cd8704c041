// What a query makes of its keys: a part of every attention shader.

// Causal{% if SLIDING %}, and no further back than the window that slides with the query{% endif %}.
fn sees(query: u32, key: u32) -> bool {
    return key <= query{% if SLIDING %} && query - key < params.sliding_window{% endif %};
}
{% if SOFT_CAP %}

fn capped(score: f32) -> f32 {
    // Far beyond 15 some drivers' tanh overflows.
    return params.cap * tanh(clamp(score / params.cap, -15.0, 15.0));
}
{% endif %}
