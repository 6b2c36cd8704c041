"""Runs folders that blockpruner has written in MLX (mlx-lm, on the CPU), and compares them with transformers.

    python tests/reference/check_mlx.py make MODELS
    python tests/reference/check_mlx.py check MODELS WRITTEN
    python tests/reference/check_mlx.py real CASES

`make` writes small models of each family that a folder of `export --format deci` can hold, and of sizes that MLX reads.
`check`: WRITTEN holds a folder for each export, called by its model (of MODELS, or a fixture), the blocks that it was written without,
and its format (`deci` or `plain`): `llama-f32 mha:0,mlp:1 deci`. Folders should be of F32. What is expected comes from transformers,
which skips the blocks of the model. A `deci` is also loaded by transformers itself, with the program in the folder.
`real`: CASES is a JSON file as for check_real_gguf.py, with a `folder` in each case. MLX splits the text into tokens by what the
folder says.
"""

import json
import math
import pathlib
import sys

import mlx.core as mx
import numpy
import torch
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load, load_model

import check_export
import family_fixtures
import make_fixtures
import model_io

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "fixtures"
# By how much a perplexity may differ, relatively; and a logit of a text that is fed in two pieces.
TOLERANCE = 1e-5
# The KV cache holds what was computed in another order.
PIECES = 1e-3

SIZES = {"hidden_size": 72, "num_attention_heads": 6, "num_key_value_heads": 2, "num_hidden_layers": 3, "vocab_size": 101}
# A width that readers know, and one that is padded.
KNOWN, ODD = {**SIZES, "intermediate_size": 256}, {**SIZES, "intermediate_size": 100}


def of(config, **changes):
    """A fixture's configuration with other sizes; heads are as wide as the states have room for, as MLX expects."""
    head = {"head_dim": 12} if "head_dim" in config else {}
    return {**config, **head, **changes}


MODELS = {
    "llama-llama3": of(make_fixtures.FOLDERS["rope-llama3"]["config"], **KNOWN),
    "llama-rope-linear": of(make_fixtures.FOLDERS["rope-linear"]["config"], **ODD),
    "llama-every-bias": of(make_fixtures.FOLDERS["llama-biases"]["config"], **KNOWN),
    "llama-tied": of(make_fixtures.FOLDERS["llama-bf16-tied"]["config"], **ODD),
    "qwen2-biases": of(make_fixtures.FOLDERS["qwen2-f32"]["config"], **KNOWN),
    "mistral-whole": of(family_fixtures.MISTRAL, **KNOWN, sliding_window=None),
    "seed-oss-sizes": of(family_fixtures.SEED_OSS, **KNOWN),
    "ernie4-5-sizes": of(family_fixtures.ERNIE4_5, **ODD, use_bias=False),
    "ernie4-5-biases": of(family_fixtures.ERNIE4_5, **KNOWN),
    "phi3-whole": of(family_fixtures.PHI3, **KNOWN, sliding_window=None),
}


def make(folder):
    for name, config in MODELS.items():
        path = folder / name
        path.mkdir(parents=True)
        make_fixtures.write_folder(path, config, seed=1)
        ids = make_fixtures.sample_windows(model_io.load_model(path), 43, 2, seed=1)
        make_fixtures.write_json(path / "reference.json", {"window": 43, "windows": 2, "ids": ids.flatten().tolist()})


def logits(model, windows, cache=None):
    return torch.from_numpy(numpy.array(model(mx.array(windows.numpy()), cache=cache).astype(mx.float32)))


def perplexity(model, windows):
    """As model_io.perplexity has it of transformers."""
    found = logits(model, windows)[:, :-1].double()
    nll = torch.nn.functional.cross_entropy(found.transpose(1, 2), windows[:, 1:], reduction="none")
    return math.exp(model_io.mean_nll(nll))


def check_pieces(model, windows):
    """A text that is fed in two pieces through MLX's KV cache has the logits that it has in one."""
    text = windows[:1]
    middle = text.shape[1] // 2
    cache = make_prompt_cache(model)
    pieces = [logits(model, part, cache) for part in (text[:, :middle], text[:, middle:])]
    difference = float((torch.cat(pieces, dim=1) - logits(model, text)).abs().max())
    if not difference <= PIECES:
        raise check_export.Failed(f"logits of a text fed in two pieces differ by {difference:.2e}")


def check_transformers(folder, removed, windows, expected):
    """A `deci` in transformers: refused without trust, and with it the model, with and without the KV cache."""
    check_export.check_refused(folder)
    model = check_export.load_exported(folder, trust_remote_code=True)
    check_export.check_no_parameters(folder, model, removed)
    found = model_io.perplexity(model, windows)
    check_export.check_perplexity(f"{folder.name} in transformers", found, expected, TOLERANCE)
    cached, plain = (check_export.generated(model, windows, 12, use_cache) for use_cache in (True, False))
    check_export.check_same(folder, "with and without the KV cache", cached, plain)
    # What vLLM and SGLang look for.
    for layer, block in enumerate(model.config.block_configs):
        gone = [(kind, layer) in removed for kind in (model_io.ATTENTION, model_io.FEED_FORWARD)]
        if [block.attention.no_op, block.ffn.no_op] != gone or model.config.architectures != ["DeciLMForCausalLM"]:
            raise check_export.Failed(f"{folder.name}: block_configs say {block} of layer {layer}")


def check(models, folder):
    """By how much MLX differs from transformers."""
    name, blocks, form = folder.name.split(" ")
    whole = models / name if (models / name).exists() else FIXTURES / name
    removed = model_io.parse_blocks(blocks)
    reference = json.loads((whole / "reference.json").read_text(encoding="utf-8"))
    windows = model_io.cut_windows(reference["ids"], reference["window"], reference["windows"])
    expected = model_io.perplexity(model_io.load_model(whole), windows, blocks=removed)
    if form == "deci":
        check_transformers(folder, removed, windows, expected)
    model, _ = load_model(folder)
    found = perplexity(model, windows)
    off = check_export.check_perplexity(f"{folder.name} in MLX", found, expected, TOLERANCE)
    check_pieces(model, windows)
    return f"{found:12.5f}, expected {expected:12.5f}, off by {off:.1e}"


def check_real(job, case):
    # Otherwise it asks, of a `deci`, whether to run the program for transformers in the folder.
    model, tokenizer = load(case["folder"], tokenizer_config={"trust_remote_code": False})
    text = pathlib.Path(job["text"]).read_text(encoding="utf-8")
    ids = tokenizer.encode(text, add_special_tokens=False)
    windows = model_io.cut_windows(ids, job["window"], job["windows"])
    found = perplexity(model, windows)
    off = check_export.check_perplexity(f"{case['folder']} in MLX", found, case["perplexity"], case["tolerance"])
    check_pieces(model, windows)
    return f"{found:12.5f}, expected {case['perplexity']:12.5f}, off by {off:.1e}"


def every(cases):
    """Runs `name, check` after `name, check`, and fails at the end if one did."""
    failed = []
    for name, run in cases:
        try:
            print(f"{name:50} {run()}", flush=True)
        except (Exception, SystemExit) as error:  # MLX does not load a model in many ways.
            print(f"{name}: {type(error).__name__}: {error}", flush=True)
            failed.append(name)
    if failed:
        raise SystemExit(f"{', '.join(failed)} failed")


def main():
    model_io.quiet_and_deterministic()
    match sys.argv[1:]:
        case ["make", models]:
            make(pathlib.Path(models))
        case ["check", models, written]:
            folders = sorted(pathlib.Path(written).iterdir())
            every((folder.name, lambda folder=folder: check(pathlib.Path(models), folder)) for folder in folders)
        case ["real", cases]:
            job = json.loads(pathlib.Path(cases).read_text(encoding="utf-8"))
            every((case["folder"], lambda case=case: check_real(job, case)) for case in job["cases"])
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
