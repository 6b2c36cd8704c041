"""Checks core/src/export/remote_code without the exporter: makes exported folders from fixtures and does what check_export.py does.

    python tests/reference/check_remote_code.py [NAME ...]     all cases, or those of the named fixtures

The module is a template: what stands between two @ is replaced for the one family that a model is of. For when transformers is upgraded or the module is changed; what the exporter writes is checked by check_export.py itself.
"""

import json
import pathlib
import shutil
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file

import check_export
import family_fixtures
import model_io

HERE = pathlib.Path(__file__).resolve().parent
FIXTURES = HERE.parent / "fixtures"
MODULE = HERE.parent.parent / "core/src/export/remote_code/modeling_blockpruner.py"

# Among them: one block, the first attention, a layer without both, no attention at all, biases, dynamic RoPE, nothing.
CASES = [
    ("llama-f32", "mha:1,mlp:2"),
    ("llama-f32", "mha:0,mlp:0"),
    ("llama-bf16-tied", "mha:0,mha:1"),
    ("llama-bf16-tied", "mha:0,mha:1,mha:2,mlp:0,mlp:1,mlp:2"),
    ("llama-biases", "mha:0,mlp:1"),
    ("llama-biases", "mlp:0,mha:2"),
    ("qwen2-bf16", "mha:0,mlp:0,mlp:2"),
    ("qwen2-f32", "mha:1"),
    ("rope-longrope", "mha:0,mlp:1"),
    ("rope-dynamic", ""),
]


def cases_of_families():
    """One attention, the first, a feed-forward, a layer without both, all attentions: in every family."""
    for name, spec in family_fixtures.FOLDERS.items():
        layers = spec["config"].get("num_hidden_layers") or spec["config"]["n_layer"]
        every_attention = ",".join(f"mha:{layer}" for layer in range(layers))
        for without in ("mha:1", "mha:0", "mlp:1", "mha:0,mlp:0", "mha:1,mlp:1", every_attention):
            yield name, without
        if layers > 2:  # the first layer of the other type, or none of it
            yield name, f"mha:{layers - 1},mha:0"
            yield name, f"mha:{layers - 1},mlp:0"


def tensors_of(folder):
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def rendered(plain):
    """The module for one family, and the names of its two classes."""
    family = plain["model_type"]
    config = type(transformers.AutoConfig.for_model(family))
    model = transformers.AutoModelForCausalLM._model_mapping[config]
    names, (attention, feed_forward, shared) = model_io.names_of(family), model_io.norms_of(plain)
    values = {
        "FAMILY": family,
        "CONFIGURATION": config.__module__,
        "CONFIG_CLASS": config.__name__,
        "MODELING": model.__module__,
        "MODEL_CLASS": model.__name__,
        "LAYERS": names.layers,
        "SHARED_NORMS": json.dumps(shared),
        "ATTENTION": names.attention,
        "ATTENTION_NORMS": json.dumps(attention),
        "FEED_FORWARD": json.dumps(names.feed_forward),
        "FEED_FORWARD_NORMS": json.dumps(feed_forward),
    }
    text = MODULE.read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text, f"BlockPruner{config.__name__}", f"BlockPruner{model.__name__}"


def write(folder, source, config, tensors):
    folder.mkdir()
    shutil.copy(source / "tokenizer.json", folder)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def export_zeroed(source, removed, folder):
    tensors, config = tensors_of(source), json.loads((source / "config.json").read_text())
    names = model_io.names_of(config["model_type"])
    for kind, layer in removed:
        for suffix in ("weight", "bias"):
            name = f"{names.layers}.{layer}.{names.output(kind)}.{suffix}"
            if name in tensors:
                tensors[name] = torch.zeros_like(tensors[name])
    write(folder, source, config, tensors)


def export_removed(source, removed, folder):
    config = json.loads((source / "config.json").read_text())
    family = config["model_type"]
    module, config_class, model_class = rendered(config)
    config["model_type"] = f"blockpruner_{family}"
    config["architectures"] = [model_class]
    config["auto_map"] = {
        "AutoConfig": f"{MODULE.stem}.{config_class}",
        "AutoModelForCausalLM": f"{MODULE.stem}.{model_class}",
    }
    config["drop_attn_list"] = sorted(layer for kind, layer in removed if kind == "mha")
    config["drop_mlp_list"] = sorted(layer for kind, layer in removed if kind == "mlp")
    names = {"mha": "attention", "mlp": "mlp"}
    layers = sorted({layer for _, layer in removed})
    config["per_layer_config"] = {
        str(layer): {"skip": [names[kind] for kind in names if (kind, layer) in removed]} for layer in layers
    }
    gone = model_io.removed_prefixes(config, removed)
    tensors = {name: tensor for name, tensor in tensors_of(source).items() if not name.startswith(gone)}
    write(folder, source, config, tensors)
    (folder / MODULE.name).write_text(module, encoding="utf-8")


def check(fixture, without):
    """Whether what is made of a fixture passes check_export.py."""
    source = FIXTURES / fixture
    removed = model_io.parse_blocks(without)
    with tempfile.TemporaryDirectory() as temporary:
        zeroed, pruned = pathlib.Path(temporary) / "zeroed", pathlib.Path(temporary) / "pruned"
        export_zeroed(source, removed, zeroed)
        export_removed(source, removed, pruned)
        command = [str(source), str(zeroed), str(pruned), "--ids", str(source / "reference.json"), "--without", without]
        try:
            figures = check_export.check(check_export.parse_arguments(command))
        except check_export.Failed as failure:
            print(failure, flush=True)
            return False
    shown = {key: value for key, value in figures.items() if "perplexity" not in key}
    print(fixture, json.dumps(shown), flush=True)
    return True


def main():
    model_io.quiet_and_deterministic()
    names = sys.argv[1:]
    cases = [case for case in [*CASES, *cases_of_families()] if not names or case[0] in names]
    failed = [f"{fixture} without [{without}]" for fixture, without in cases if not check(fixture, without)]
    if failed:
        raise SystemExit("failed: " + "; ".join(failed))


if __name__ == "__main__":
    main()
