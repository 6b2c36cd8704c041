// Elements of a {{ WEIGHT }} block: of four words, those whose lowest bit is at `shifts`, times or with their blocks' scales.
{% if WEIGHT == "q8_0" %}
// A scale is d as f32.
fn unpack(words: vec4u, shifts: vec4u, scales: vec4u) -> vec4f {
    return bitcast<vec4f>(scales) * vec4f(bitcast<vec4i>(words << (vec4u(24u) - shifts)) >> vec4u(24u));
}
{% elif WEIGHT == "q4_0" %}
// A scale is d as f32.
fn unpack(words: vec4u, shifts: vec4u, scales: vec4u) -> vec4f {
    return bitcast<vec4f>(scales) * (vec4f((words >> shifts) & vec4u(15u)) - 8.0);
}
{% else %}
// A scale is d and m as f16.
fn unpack(words: vec4u, shifts: vec4u, scales: vec4u) -> vec4f {
    let first = unpack2x16float(scales.x);
    let second = unpack2x16float(scales.y);
    let third = unpack2x16float(scales.z);
    let fourth = unpack2x16float(scales.w);
    let d = vec4f(first.x, second.x, third.x, fourth.x);
    let m = vec4f(first.y, second.y, third.y, fourth.y);
    return d * vec4f((words >> shifts) & vec4u(15u)) + m;
}
{% endif %}
