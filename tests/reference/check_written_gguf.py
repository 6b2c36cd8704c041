"""Runs GGUF files that blockpruner has written in llama.cpp, and compares perplexities with those of transformers.

    python tests/reference/check_written_gguf.py DIR WRITTEN

DIR holds llama.cpp's libraries, as for llama_cpp_ids.py. WRITTEN holds a folder for each file, called by a fixture, the blocks
that it was written without, and the form that the file should have (`plain`, `deci` or `zeroed`): `gguf-qwen3 mha:0,mlp:1 plain`.
Files should be of F32 weights: others llama.cpp multiplies with rounded activations. What is expected comes from transformers, which
skips the blocks of the fixture.
"""

import json
import pathlib
import sys

import model_io
from check_llama_cpp import COMPARED, CONTEXT, FIXTURES, Model, Runner, tolerance
from gguf_io import metadata


def check_form(path, loaded, whole, removed, form):
    """Whether the file is what its form says: fewer layers, an architecture whose layers may lack blocks, or all layers."""
    architecture = metadata(path)["general.architecture"]
    found = "deci" if architecture == "deci" else "zeroed" if loaded.layers == whole else "plain"
    if found != form or (form == "plain" and loaded.layers != whole - len(removed) // 2):
        raise SystemExit(f"{path}: {form} was expected, but it is {found}, a {architecture} of {loaded.layers} layers")


def check(runner, folder):
    """The perplexity in llama.cpp, the one that is expected, and by how much they may differ."""
    name, blocks, form = folder.name.split(" ")
    removed = model_io.parse_blocks(blocks)
    fixture = FIXTURES / name
    gguf = fixture / "model.gguf"
    model = model_io.load_model(gguf if gguf.exists() else fixture)
    reference = json.loads((fixture / "reference.json").read_text(encoding="utf-8"))
    windows = model_io.cut_windows(reference["ids"], reference["window"], reference["windows"])
    windows = windows[:, : COMPARED.get(name, CONTEXT)]
    [path] = folder.glob("*.gguf")
    with Model(runner, path) as loaded:
        check_form(path, loaded, model.config.num_hidden_layers, removed, form)
        found = loaded.perplexity(windows.tolist())
    return found, model_io.perplexity(model, windows, blocks=removed), tolerance(model.config.to_dict())


def main():
    model_io.quiet_and_deterministic()
    runner = Runner(pathlib.Path(sys.argv[1]))
    failed = []
    for folder in sorted(pathlib.Path(sys.argv[2]).iterdir()):
        try:
            found, expected, allowed = check(runner, folder)
        except SystemExit as error:
            print(f"{folder.name}: {error}", flush=True)
            failed.append(folder.name)
            continue
        off = abs(found / expected - 1)
        print(f"{folder.name:50} {found:12.5f}, expected {expected:12.5f}, off by {off:.1e}", flush=True)
        if not off <= allowed:  # a NaN fails too
            failed.append(folder.name)
    if failed:
        raise SystemExit(f"{', '.join(failed)} differ")


if __name__ == "__main__":
    main()
