// What the 64 invocations of a workgroup hold, put together: a part of norm.wgsl, heads.wgsl and log_sum_exp.wgsl.
{% if SUBGROUPS %}
// Subgroup by subgroup, then over the subgroups in their order.
{% else %}
// A fixed tree.
{% endif %}
struct Lane {
    @builtin(local_invocation_index) index: u32,
{% if SUBGROUPS %}
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) in_subgroup: u32,
{% endif %}
}

var<workgroup> partial: array<f32, 64>;
{% for name, operation, subgroup in [("add", "partial[a] + partial[b]", "subgroupAdd"), ("max", "max(partial[a], partial[b])", "subgroupMax")] %}

fn reduce_{{ name }}(value: f32, lane: Lane) -> f32 {
{% if SUBGROUPS %}
    let whole = {{ subgroup }}(value);
    if lane.in_subgroup == 0u {
        partial[lane.subgroup] = whole;
    }
    workgroupBarrier();
    if lane.index == 0u {
        for (var i = 1u; i < lane.subgroups; i++) {
            partial[0] = {{ operation | replace("partial[a]", "partial[0]") | replace("partial[b]", "partial[i]") }};
        }
    }
    workgroupBarrier();
{% else %}
    partial[lane.index] = value;
    workgroupBarrier();
{% for half in [32, 16, 8, 4, 2, 1] %}
    if lane.index < {{ half }}u {
        partial[lane.index] = {{ operation | replace("[a]", "[lane.index]") | replace("[b]", "[lane.index + " ~ half ~ "u]") }};
    }
    workgroupBarrier();
{% endfor %}
{% endif %}
    let result = partial[0];
    // Before the next reduction writes there.
    workgroupBarrier();
    return result;
}
{% endfor %}
