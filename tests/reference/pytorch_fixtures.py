"""Writes checkpoints as torch.save does: pytorch_model.bin, whole and in shards.

    python tests/reference/pytorch_fixtures.py

core/src/weights/testdata/pytorch_model.bin          tensors of several types and layouts
core/src/weights/testdata/pytorch_model.safetensors  the same as safetensors writes them
core/src/model/testdata/pytorch                      the weights of tests/fixtures/window-2048, whole and in two shards
"""

import json
import pathlib

import torch
from safetensors.torch import load_file, save_file

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
WEIGHTS = ROOT / "core/src/weights/testdata"
MODEL = ROOT / "core/src/model/testdata/pytorch"


def tensors():
    torch.manual_seed(5065)
    matrix = torch.randn(6, 5)
    return {
        "matrix": matrix,
        "tied": matrix,
        "rows": matrix[2:4],
        "one column": torch.randn(3, 1).t().contiguous().t(),
        "bf16": torch.nn.Parameter(torch.randn(2, 3).to(torch.bfloat16)),
        "f16": torch.randn(7).half(),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "position_ids": torch.arange(300),
    }


def write_tensors():
    state = torch.nn.ParameterDict().state_dict() | tensors()
    torch.save(state, WEIGHTS / "pytorch_model.bin")
    save_file({name: value.detach().clone().contiguous() for name, value in state.items()}, WEIGHTS / "pytorch_model.safetensors")


def write_model():
    MODEL.mkdir(parents=True, exist_ok=True)
    state = load_file(ROOT / "tests/fixtures/window-2048/model.safetensors")
    torch.save(state, MODEL / "pytorch_model.bin")
    names = sorted(state)
    weight_map = {}
    for number, part in enumerate([names[: len(names) // 2], names[len(names) // 2 :]], 1):
        file = f"pytorch_model-{number:05}-of-00002.bin"
        torch.save({name: state[name] for name in part}, MODEL / file)
        weight_map |= dict.fromkeys(part, file)
    size = sum(value.nbytes for value in state.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (MODEL / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2) + "\n")


if __name__ == "__main__":
    write_tensors()
    write_model()
