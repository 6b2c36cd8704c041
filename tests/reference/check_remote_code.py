"""Checks core/src/export/remote_code without the exporter: makes exported folders from fixtures and runs check_export.py.

    python tests/reference/check_remote_code.py

For when transformers is upgraded or the module is changed; what the exporter writes is checked by check_export.py itself.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file

import model_io

HERE = pathlib.Path(__file__).resolve().parent
FIXTURES = HERE.parent / "fixtures"
MODULE = HERE.parent.parent / "core/src/export/remote_code/modeling_blockpruner.py"
FAMILIES = {"llama": "Llama", "qwen2": "Qwen2"}

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


def tensors_of(folder):
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def prefixes(kind, layer):
    parts = ("self_attn", "input_layernorm") if kind == "mha" else ("mlp", "post_attention_layernorm")
    return tuple(f"model.layers.{layer}.{part}." for part in parts)


def write(folder, config, tensors):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def export_zeroed(source, removed, folder):
    tensors = tensors_of(source)
    for kind, layer in removed:
        last = "self_attn.o_proj" if kind == "mha" else "mlp.down_proj"
        for name in (f"model.layers.{layer}.{last}.weight", f"model.layers.{layer}.{last}.bias"):
            if name in tensors:
                tensors[name] = torch.zeros_like(tensors[name])
    write(folder, json.loads((source / "config.json").read_text()), tensors)


def export_removed(source, removed, folder):
    config = json.loads((source / "config.json").read_text())
    family = config["model_type"]
    config["model_type"] = f"blockpruner_{family}"
    config["architectures"] = [f"BlockPruner{FAMILIES[family]}ForCausalLM"]
    config["auto_map"] = {
        "AutoConfig": f"modeling_blockpruner.BlockPruner{FAMILIES[family]}Config",
        "AutoModelForCausalLM": f"modeling_blockpruner.BlockPruner{FAMILIES[family]}ForCausalLM",
    }
    config["drop_attn_list"] = sorted(layer for kind, layer in removed if kind == "mha")
    config["drop_mlp_list"] = sorted(layer for kind, layer in removed if kind == "mlp")
    names = {"mha": "attention", "mlp": "mlp"}
    layers = sorted({layer for _, layer in removed})
    config["per_layer_config"] = {
        str(layer): {"skip": [names[kind] for kind in names if (kind, layer) in removed]} for layer in layers
    }
    gone = tuple(prefix for block in removed for prefix in prefixes(*block))
    tensors = {name: tensor for name, tensor in tensors_of(source).items() if not name.startswith(gone)}
    write(folder, config, tensors)
    shutil.copy(MODULE, folder / MODULE.name)


def main():
    failed = []
    for fixture, without in CASES:
        source = FIXTURES / fixture
        removed = model_io.parse_blocks(without)
        with tempfile.TemporaryDirectory() as temporary:
            zeroed, pruned = pathlib.Path(temporary) / "zeroed", pathlib.Path(temporary) / "pruned"
            export_zeroed(source, removed, zeroed)
            export_removed(source, removed, pruned)
            command = [sys.executable, HERE / "check_export.py", source, zeroed, pruned]
            command += ["--ids", source / "reference.json", "--without", without]
            if subprocess.run(command, check=False).returncode != 0:
                failed.append(f"{fixture} without [{without}]")
    if failed:
        raise SystemExit("failed: " + "; ".join(failed))


if __name__ == "__main__":
    main()
