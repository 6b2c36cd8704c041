"""Runs GGUF files that blockpruner has written in llama.cpp, and compares perplexities with those of transformers.

    python tests/reference/check_written_gguf.py DIR WRITTEN

DIR holds llama.cpp's libraries, as for llama_cpp_ids.py. WRITTEN holds a folder for each file, called by a fixture and the blocks
that it was written without: `llama-f32 mha:1`, or `llama-f32` for the whole model. Files should be of F32 weights: others
llama.cpp multiplies with rounded activations. The fixture's reference says the perplexity of the whole model and of the model
without any one block; others are compared with the same model in zeros, in a folder of the same name with ` zeroed` behind it.
"""

import json
import pathlib
import sys

import numpy

from check_llama_cpp import CONTEXT, FIXTURES, GELU_TOLERANCE, Runner


def perplexity(runner, path, reference, vocabulary):
    """As the fixtures have it: the mean over windows of the mean loss of what follows each token."""
    size = reference["window"]
    means = []
    for window in range(reference["windows"]):
        ids = reference["ids"][window * size : (window + 1) * size]
        logits = runner.logits(path, ids, vocabulary).astype(numpy.float64)[:-1]
        shifted = logits - logits.max(axis=1, keepdims=True)
        losses = numpy.log(numpy.exp(shifted).sum(axis=1)) - shifted[numpy.arange(size - 1), ids[1:]]
        means.append(losses.mean())
    return float(numpy.exp(numpy.mean(means)))


def main():
    runner = Runner(pathlib.Path(sys.argv[1]))
    failed = []
    for folder in sorted(pathlib.Path(sys.argv[2]).iterdir()):
        name, blocks, *zeroed = [*folder.name.split(" "), ""][:3]
        reference = json.loads((FIXTURES / name / "reference.json").read_text(encoding="utf-8"))
        if reference["window"] > CONTEXT:
            continue
        config = json.loads((FIXTURES / name / "config.json").read_text(encoding="utf-8"))
        vocabulary = config["vocab_size"]
        [path] = folder.glob("*.gguf")
        try:
            found = perplexity(runner, path, reference, vocabulary)
        except SystemExit as error:
            print(error)
            failed.append(folder.name)
            continue
        expected = reference["without"].get(blocks) if blocks else reference["perplexity"]
        if expected is None:
            [other] = (folder.parent / f"{folder.name} zeroed").glob("*.gguf")
            expected = perplexity(runner, other, reference, vocabulary)
        off = abs(found / expected - 1)
        print(f"{folder.name:40} {found:12.5f}, expected {expected:12.5f}, off by {off:.1e}", flush=True)
        gelu = any("gelu" in str(config.get(key, "")) for key in ("hidden_act", "hidden_activation", "activation_function"))
        if off > (GELU_TOLERANCE if gelu or config["model_type"] == "falcon" else 1e-4):
            failed.append(folder.name)
    if failed:
        raise SystemExit(f"{', '.join(failed)} differ")


if __name__ == "__main__":
    main()
