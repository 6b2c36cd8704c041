// The function of activation.wgsl and activation_panel.wgsl.
{% set T = "vec4f" if PANEL else "f32" %}
fn activated(x: {{ T }}) -> {{ T }} {
{% if FUNCTION == "silu" %}
    // Beyond -88 exp overflows f32, where WGSL promises nothing; silu is 0 to f32 precision there.
    return x / (1.0 + exp(min(-x, {{ T }}(87.0))));
{% else %}
    // Beyond 12 tanh is 1 to f32 precision, and much further x^3 overflows; beyond 15 some drivers' tanh does.
    let near = clamp(x, {{ T }}(-12.0), {{ T }}(12.0));
    let inner = {{ ROOT }} * (near + 0.044715 * near * near * near);
    return 0.5 * x * (1.0 + tanh(clamp(inner, {{ T }}(-15.0), {{ T }}(15.0))));
{% endif %}
}
