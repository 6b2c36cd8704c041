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
{% if CONTINUATIONS %}

// The position in its text of a row that a query sees, by the query's place: the first row of its continuation and the rows
// of the context, or 0 and 0 within the context.
fn position_of(row: u32, place: vec2u) -> u32 {
    return select(row, row - place.x + place.y, row >= place.x);
}
{% endif %}

// Causal{% if CONTINUATIONS %}, without other continuations{% endif %}{% if SLIDING %}, and no further back than the window that slides with the query{% endif %}.
{% if SLIDING or CONTINUATIONS %}
// Both sides are computed: a branch for each key is more than some software drivers compile in a reasonable time.
{% endif %}
{% if CONTINUATIONS %}
fn sees(query: u32, key: u32, place: vec2u) -> bool {
    return (key <= query) & ((key < place.y) | (key >= place.x)){% if SLIDING %} & (position_of(query, place) - position_of(key, place) < params.sliding_window){% endif %};
}
{% else %}
fn sees(query: u32, key: u32) -> bool {
    return {% if SLIDING %}(key <= query) & (query - key < params.sliding_window){% else %}key <= query{% endif %};
}
{% endif %}
{% if SOFT_CAP %}

fn capped(score: f32) -> f32 {
    // Far beyond 15 some drivers' tanh overflows.
    return params.cap * tanh(clamp(score / params.cap, -15.0, 15.0));
}
{% endif %}
