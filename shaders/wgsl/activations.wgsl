// The function of activation.wgsl and activation_panel.wgsl.
{% set T = "vec4f" if PANEL else "f32" %}
fn activated(x: {{ T }}) -> {{ T }} {
{% if FUNCTION == "silu" %}
    // Beyond -88 exp overflows f32, where WGSL promises nothing; silu is 0 to f32 precision there.
    return x / (1.0 + exp(min(-x, {{ T }}(87.0))));
{% elif FUNCTION == "relu" %}
    return max(x, {{ T }}(0.0));
{% elif FUNCTION == "relu_squared" %}
    let positive = max(x, {{ T }}(0.0));
    return positive * positive;
{% elif FUNCTION == "gelu" %}
    // Formula 7.1.26 of Abramowitz and Stegun (1964) for erf. Beyond 9 what is left of its tail is nothing to any x, and z^2
    // overflows later.
    let z = min(abs(x) * 0.70710677, {{ T }}(9.0));
    let t = 1.0 / (1.0 + {{ ERF[0] }} * z);
    let sum = t * ({{ ERF[1] }} + t * ({{ ERF[2] }} + t * ({{ ERF[3] }} + t * ({{ ERF[4] }} + t * {{ ERF[5] }}))));
    let tail = sum * exp(-z * z);
    // 1 + erf of a negative number is that tail, without cancelling.
    return 0.5 * x * select(tail, 2.0 - tail, x >= {{ T }}(0.0));
{% else %}
    // Beyond 12 tanh is 1 to f32 precision, and much further x^3 overflows; beyond 15 some drivers' tanh does.
    let near = clamp(x, {{ T }}(-12.0), {{ T }}(12.0));
    let inner = {{ ROOT }} * (near + 0.044715 * near * near * near);
    return 0.5 * x * (1.0 + tanh(clamp(inner, {{ T }}(-15.0), {{ T }}(15.0))));
{% endif %}
}
