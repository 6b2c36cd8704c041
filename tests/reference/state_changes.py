"""What blocks make of the hidden states by Hugging Face transformers, for tests/tests/strategies.rs: `changes.json` in two fixtures.

    python tests/reference/state_changes.py

For every block, layer and pair of neighbours, over all tokens of all windows of reference.json, with the states x in front of it and
y behind it:

    cosine_distance     mean of 1 - x . y / (|x| |y|)       Block Influence (Men et al., 2024); LLM-Drop (He et al., 2024)
    relative_magnitude  mean of |y - x| / |y|               Samragh et al., 2023

The states between layers are `output_hidden_states`, but for the last, which transformers norms; what attention and feed-forward
add comes from forward hooks. Where branches are parallel, both are added to the same x. The forward pass is f32, the rest f64.
"""

import json
import pathlib

import torch

import model_io

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "fixtures"
# One whose blocks follow one another, one whose are parallel.
NAMES = ("llama-f32", "phi")


def measured(before, after):
    norm = torch.linalg.vector_norm
    cosine = (before * after).sum(-1) / (norm(before, dim=-1) * norm(after, dim=-1))
    return {
        "cosine_distance": float((1 - cosine).mean()),
        "relative_magnitude": float((norm(after - before, dim=-1) / norm(after, dim=-1)).mean()),
    }


def added(model, windows):
    """What attention and feed-forward of each layer add, and `output_hidden_states`."""
    names, outputs = model_io.names_of(model.config.model_type), {}
    hooks = []
    for number, layer in enumerate(model_io.layers_of(model)):
        for kind in (model_io.ATTENTION, model_io.FEED_FORWARD):

            def keep(_module, _inputs, output, key=(kind, number)):
                outputs[key] = (output[0] if isinstance(output, tuple) else output).double()

            hooks.append(layer.get_submodule(names.parts(kind)[-1]).register_forward_hook(keep))
    states = model(input_ids=windows, use_cache=False, output_hidden_states=True).hidden_states
    for hook in hooks:
        hook.remove()
    return outputs, [state.double() for state in states]


def make(name):
    folder = FIXTURES / name
    reference = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    model = model_io.load_model(folder)
    windows = torch.tensor(reference["ids"]).reshape(reference["windows"], reference["window"])
    outputs, states = added(model, windows)
    layers = len(model_io.layers_of(model))
    parallel = bool(model_io.norms_of(model_io.config_of(folder))[2])
    changes, neighbour = {}, None
    for number in range(layers):
        x = states[number]
        attention, feed_forward = outputs[model_io.ATTENTION, number], outputs[model_io.FEED_FORWARD, number]
        middle, end = x + attention, x + attention + feed_forward
        if number + 1 < layers:
            assert torch.allclose(end, states[number + 1], rtol=1e-4, atol=1e-4), f"{name}: layer {number}"
        changes[f"mha:{number}"] = measured(x, middle)
        changes[f"mlp:{number}"] = measured(x, x + feed_forward) if parallel else measured(middle, end)
        changes[f"mha:{number},mlp:{number}"] = measured(x, end)
        if neighbour is not None and not parallel:
            changes[f"mha:{number},mlp:{number - 1}"] = measured(neighbour, middle)
        neighbour = middle
    lines = ",\n".join(f"  {json.dumps(unit)}: {json.dumps(values)}" for unit, values in changes.items())
    (folder / "changes.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    print(name, len(changes), flush=True)


if __name__ == "__main__":
    model_io.quiet_and_deterministic()
    for fixture in NAMES:
        make(fixture)
