"""Greedy continuations by Hugging Face transformers, for tests/tests/generate.rs: `generate.json` in every fixture.

    python tests/reference/generate.py [NAME ...]     all fixtures, or the named ones

A list of cases:

    removed     blocks that are left out
    prompt      token ids
    tokens      what `generate(do_sample=False)` appends, with the KV cache, up to the end-of-sequence token with it
    gap         the smallest difference between the two largest logits

The models are random, so a next token could be decided by rounding, some 1e-5 of a logit. Prompts are taken from the ids
of reference.json; of those that keep the gap safe, one is used that says many different tokens. Nothing but generate.json
is written.

A removed block adds exact zeros here because its last projection is zeroed. Its attention stays, so that transformers'
cache has an entry for every layer and counts its positions right.

Keys in the cache stay turned as they were when a text grows beyond the length where frequencies change, except in Phi-3:
transformers runs the whole text anew when its `longrope` goes from the short factors to the long ones.
"""

import json
import pathlib
import sys

import torch

import model_io

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "fixtures"
NEW_TOKENS = 24
SAFE_GAP = 0.02
# Beyond 32 positions, where the frequencies of `dynamic` and `longrope` change, in the middle of the continuation.
PROMPTS = (20, 21, 19, 22, 18, 23, 17, 24, 16, 25)
# (blocks of the greedy path that are removed, prompt lengths): the whole model, one token only, some blocks left out.
CASES = ((0, PROMPTS), (0, (1,)), (2, PROMPTS))


def remove(model, blocks):
    for kind, layer in blocks:
        projection = model_io.layers_of(model)[layer].get_submodule(model_io.names_of(model.config.model_type).output(kind))
        for parameter in projection.parameters():
            parameter.zero_()


def continued(model, prompt):
    """(new tokens, smallest gap) of one prompt."""
    ids = torch.tensor([prompt])
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS, do_sample=False, use_cache=True,
        pad_token_id=0, output_logits=True, return_dict_in_generate=True,
    )
    tokens = output.sequences[0, len(prompt) :].tolist()
    gaps = [float(top[0, 0] - top[0, 1]) for top in (logits.topk(2).values for logits in output.logits)]
    return tokens, min(gaps)


def case(path, ids, window, removed, lengths):
    best = None
    for start in range(0, min(len(ids), 40 * window), max(1, window // 5)):
        for length in lengths:
            prompt = ids[start : start + length]
            if len(prompt) < length:
                continue
            # A fresh model: dynamic frequencies stay from one text to the next.
            model = model_io.load_model(path)
            remove(model, removed)
            tokens, gap = continued(model, prompt)
            variety = len(set(tokens))
            if gap >= SAFE_GAP and (best is None or variety > len(set(best["tokens"]))):
                best = {"removed": [model_io.block_name(b) for b in removed], "prompt": prompt, "tokens": tokens, "gap": gap}
            if best and len(set(best["tokens"])) >= 10:
                return best
    if best is None:
        raise SystemExit(f"{path}: no prompt keeps the two largest logits {SAFE_GAP} apart")
    return best


def make(name):
    folder = FIXTURES / name
    reference = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    path = folder / "model.gguf" if (folder / "model.gguf").is_file() else folder
    order = [model_io.parse_block(block) for block in (reference.get("greedy") or {}).get("order", [])]
    cases = [
        case(path, reference["ids"], reference["window"], order[:count], lengths)
        for count, lengths in CASES
        if count <= len(order)
    ]
    lines = ",\n".join("  " + json.dumps(case) for case in cases)
    (folder / "generate.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    shown = [(len(c["prompt"]), c["removed"], len(c["tokens"]), len(set(c["tokens"])), round(c["gap"], 3)) for c in cases]
    print(name, shown, flush=True)


def main():
    model_io.quiet_and_deterministic()
    for name in sys.argv[1:] or sorted(path.parent.name for path in FIXTURES.glob("*/reference.json")):
        make(name)


if __name__ == "__main__":
    main()
