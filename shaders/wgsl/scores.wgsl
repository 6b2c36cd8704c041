// What a query makes of its keys: a part of every attention shader.

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
