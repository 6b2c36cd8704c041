"""Checks exported folders with real transformers.

    check_export.py DENSE ZEROED [HF] --ids reference.json --without mha:1,mlp:2 [--plain FOLDER mha:1,mlp:1]

DENSE is the original model (a folder or a .gguf file), ZEROED and HF the folders of `export --format hf-zeroed` and
`--format hf`, both without the named blocks; models of images and text have no HF. Checked, each on the windows of --ids, in f32:

1. ZEROED loads as it stands, with no missing or unexpected tensors, and has the perplexity of DENSE with the blocks
   skipped (relative difference at most --tolerance).
2. HF does so with trust_remote_code, has no parameters for the removed blocks, and generates the same tokens with the KV
   cache as without, from the same logits.
3. HF without trust_remote_code is refused.
4. AutoTokenizer gives the ids of their tokenizer.json.
5. A folder of `--format plain`, without the blocks that are named with it, has fewer layers and is otherwise checked as ZEROED is.

Prints one JSON line. Exits 1 with a message naming the first check that failed.
"""

import argparse
import json
import math
import pathlib

import torch
import transformers

import model_io

LOADING_KEYS = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")


class Failed(Exception):
    pass


def load_exported(folder, trust_remote_code):
    """The model, after checking that transformers found exactly the tensors that it wanted."""
    config = json.loads((pathlib.Path(folder) / "config.json").read_text(encoding="utf-8"))
    model, info = model_io.auto_class(config).from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation=model_io.attention_for(model_io.config_of(folder)),
        trust_remote_code=trust_remote_code,
        output_loading_info=True,
    )
    for key in LOADING_KEYS:
        if info.get(key):
            raise Failed(f"{folder}: {key} on loading: {sorted(map(str, info[key]))}")
    return model.eval()


def check_perplexity(what, measured, expected, tolerance):
    difference = abs(measured / expected - 1)
    if not difference <= tolerance:  # a NaN fails too
        raise Failed(f"{what}: perplexity {measured:.9g}, but {expected:.9g} was expected (differs by {difference:.2e})")
    return difference


def check_no_parameters(folder, model, removed):
    """The removed blocks hold no parameter, in the model and in the files; all others hold some."""
    stored = set(model.state_dict())
    for block in model_io.all_blocks(model.config.num_hidden_layers):
        prefixes = model_io.block_prefixes(model.config.to_dict(), block)
        found = sorted(name for name in stored if name.startswith(prefixes))
        if (block in removed) == bool(found):
            name = model_io.block_name(block)
            raise Failed(f"{folder}: {name} was {'' if found else 'not '}expected to be gone; tensors: {found}")


def changes_frequencies(model):
    """Whether the rotary frequencies depend on the length of the text; some families have a type for each type of layer."""
    types = getattr(getattr(model.base_model, "rotary_emb", None), "rope_type", None)
    return any(kind in ("dynamic", "longrope") for kind in (types.values() if isinstance(types, dict) else [types]))


def generated(model, ids, new_tokens, use_cache):
    prompt = ids[:1, : max(1, ids.shape[1] // 2)]
    return model.generate(
        prompt, use_cache=use_cache, max_new_tokens=new_tokens, do_sample=False, pad_token_id=0, eos_token_id=None,
        output_logits=True, return_dict_in_generate=True, attention_mask=torch.ones_like(prompt),
    )


def check_same(folder, what, one, other):
    """Two generations of the same tokens, from the same logits within 1e-3; gives the largest difference of a logit."""
    difference = max(float((a - b).abs().max()) for a, b in zip(one.logits, other.logits, strict=True))
    if not difference <= 1e-3:
        raise Failed(f"{folder}: logits of generate {what} differ by {difference:.2e}")
    if not torch.equal(one.sequences, other.sequences):
        raise Failed(f"{folder}: generate {what} gives other tokens")
    return difference


def check_generation(folder, model, zeroed, ids, new_tokens):
    """Greedy tokens and their logits are those of the zeroed model with the KV cache, and equal those without it.

    Except that dynamic RoPE and LongRoPE change their frequencies while the text grows, which the entries already in the
    cache do not follow: there a dense model differs from itself, and only the two models are compared.
    """
    cached, plain = (generated(model, ids, new_tokens, use_cache) for use_cache in (True, False))
    differences = [
        check_same(folder, "with the KV cache and of the zeroed model", cached, generated(zeroed, ids, new_tokens, True)),
        check_same(folder, "without KV cache and of the zeroed model", plain, generated(zeroed, ids, new_tokens, False)),
    ]
    if not changes_frequencies(model):
        differences.append(check_same(folder, "with and without the KV cache", cached, plain))
        differences.append(check_pieces(folder, model, ids))
    return max(differences)


def check_pieces(folder, model, ids):
    """Fed in two pieces through the KV cache, without positions or mask, a text has the logits that it has in one.

    `generate` names every position itself and so hides a cache whose length is read from the wrong entry; this does not.
    """
    text = ids[:1]
    middle = text.shape[1] // 2
    whole = model(text, use_cache=False).logits
    first = model(text[:, :middle], use_cache=True)
    length = first.past_key_values.get_seq_length()
    if length != middle:
        raise Failed(f"{folder}: the KV cache of {middle} tokens says that it holds {length}")
    second = model(text[:, middle:], past_key_values=first.past_key_values, use_cache=True)
    difference = float((torch.cat([first.logits, second.logits], dim=1) - whole).abs().max())
    if not difference <= 1e-3:
        raise Failed(f"{folder}: logits of a text fed in two pieces through the KV cache differ by {difference:.2e}")
    return difference


def check_tokenizer(folder, trust_remote_code):
    """Not the word-level ones of fixtures made by hand: transformers takes the family's class, which is BPE, instead."""
    if json.loads((pathlib.Path(folder) / "tokenizer.json").read_text())["model"]["type"] != "BPE":
        return
    text = "t1 t2 t30 and others"
    loaded = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    found, expected = loaded(text)["input_ids"], model_io.load_tokenizer(folder).encode(text).ids
    if not found or found != expected:
        raise Failed(f"{folder}: AutoTokenizer gives {found}, tokenizer.json {expected}")


def check_refused(folder):
    try:
        transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, KeyError):
        return
    raise Failed(f"{folder}: loads without trust_remote_code; transformers would fill the missing tensors at random")


def check_ordinary(folder, dense, removed, windows, tolerance):
    """A folder that loads without trust scores as DENSE does without the blocks; gives the model and what a figure is made of."""
    expected = model_io.perplexity(dense, windows, blocks=removed)
    model = load_exported(folder, trust_remote_code=False)
    found = model_io.perplexity(model, windows)
    difference = check_perplexity(folder, found, expected, tolerance)
    check_tokenizer(folder, trust_remote_code=False)
    return model, (expected, found, difference)


def check_plain(folder, dense, removed, windows, tolerance):
    model, (_, _, difference) = check_ordinary(folder, dense, removed, windows, tolerance)
    found, expected = model.config.num_hidden_layers, dense.config.num_hidden_layers - len(removed) // 2
    if found != expected:
        raise Failed(f"{folder}: {found} layers, {expected} were expected")
    return difference


def check(arguments):
    removed = model_io.parse_blocks(arguments.without)
    windows, _ = model_io.read_windows(arguments)
    dense = model_io.load_model(arguments.dense)
    zeroed, (expected, zeroed_perplexity, zeroed_difference) = check_ordinary(
        arguments.zeroed, dense, removed, windows, arguments.tolerance
    )
    figures = {
        "without": [model_io.block_name(block) for block in removed],
        "dense_perplexity": model_io.perplexity(dense, windows),
        "expected_perplexity": expected,
        "zeroed_perplexity": zeroed_perplexity,
        "zeroed_difference": zeroed_difference,
        "dense_parameters": sum(parameter.numel() for parameter in dense.parameters()),
    }
    for folder, blocks in arguments.plain:
        blocks = model_io.parse_blocks(blocks)
        difference = check_plain(folder, dense, blocks, windows, arguments.tolerance)
        figures["plain_difference"] = max(figures.get("plain_difference", 0.0), difference)
    if arguments.hf is None:
        return figures
    check_refused(arguments.hf)
    check_tokenizer(arguments.hf, trust_remote_code=True)
    pruned = load_exported(arguments.hf, trust_remote_code=True)
    check_no_parameters(arguments.hf, pruned, removed)
    pruned_perplexity = model_io.perplexity(pruned, windows)
    pruned_difference = check_perplexity(arguments.hf, pruned_perplexity, expected, arguments.tolerance)
    cache_difference = check_generation(arguments.hf, pruned, zeroed, windows, arguments.new_tokens)
    return figures | {
        "hf_perplexity": pruned_perplexity,
        "hf_difference": pruned_difference,
        "hf_parameters": sum(parameter.numel() for parameter in pruned.parameters()),
        "cached_logits_difference": cache_difference,
    }


def parse_arguments(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dense", help="the original model")
    parser.add_argument("zeroed", help="folder of export --format hf-zeroed")
    parser.add_argument("hf", nargs="?", help="folder of export --format hf")
    parser.add_argument("--ids", required=True, help='JSON with "ids" and "window"')
    parser.add_argument("--without", required=True, help="the removed blocks: mha:1,mlp:2")
    parser.add_argument(
        "--plain", nargs=2, metavar=("FOLDER", "BLOCKS"), action="append", default=[], help="a folder of export --format plain"
    )
    parser.add_argument("--window", type=int)
    parser.add_argument("--max-windows", type=int)
    parser.add_argument("--tolerance", type=float, default=1e-5, help="relative difference in perplexity")
    parser.add_argument("--new-tokens", type=int, default=12, help="tokens to generate")
    return parser.parse_args(words)


def main():
    arguments = parse_arguments()
    model_io.quiet_and_deterministic()
    for folder in (arguments.dense, arguments.zeroed, arguments.hf, *(folder for folder, _ in arguments.plain)):
        if folder and not pathlib.Path(folder).exists():
            raise SystemExit(f"{folder}: no such file or folder")
    try:
        figures = check(arguments)
    except Failed as failure:
        raise SystemExit(f"check_export: {failure}") from None
    if not all(math.isfinite(v) for v in figures.values() if isinstance(v, float)):
        raise SystemExit(f"check_export: a figure is not finite: {figures}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
