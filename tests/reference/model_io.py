"""What the reference scripts share: loading a model in f32, skipping blocks, perplexity, the published search, texts.

Everything here runs PyTorch and Hugging Face transformers on the CPU. Nothing of BlockPruner itself is imported: these
numbers are what the Rust side is compared with.

A block is a residual branch: attention (`mha:LAYER`) or feed-forward (`mlp:LAYER`) together with its norms. Removing a
block skips the whole branch, so the residual stream passes untouched: x + f(norm(x)) becomes x. Here attention or feed-forward
is made to return zeros: no family's norm or scale behind it makes anything else of them, and x + 0 is x exactly.
"""

import contextlib
import json
import math
import pathlib
import sys
from typing import NamedTuple

import numpy
import torch

ATTENTION, FEED_FORWARD = "mha", "mlp"


def quiet_and_deterministic(threads=1):
    """One thread unless asked otherwise, deterministic algorithms, and no progress bars or advice on stderr."""
    import transformers

    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    torch.set_grad_enabled(False)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


# --- blocks -----------------------------------------------------------------------------------------------------------


def parse_block(text):
    """`mha:3` -> ("mha", 3)."""
    kind, separator, layer = text.strip().partition(":")
    if kind not in (ATTENTION, FEED_FORWARD) or not separator or not layer.isdigit():
        raise SystemExit(f"{text!r} is not a block: expected mha:LAYER or mlp:LAYER, layers counted from 0")
    return kind, int(layer)


def parse_blocks(text):
    """`mha:1,mlp:2` -> [("mha", 1), ("mlp", 2)]; an empty string is no block."""
    return [parse_block(part) for part in text.split(",") if part.strip()]


def block_name(block):
    return f"{block[0]}:{block[1]}"


def all_blocks(layers, block_types="mix"):
    """Every block in the published order of candidates: attention by layer, then feed-forward by layer."""
    kinds = {"mix": (ATTENTION, FEED_FORWARD), ATTENTION: (ATTENTION,), FEED_FORWARD: (FEED_FORWARD,)}[block_types]
    return [(kind, layer) for kind in kinds for layer in range(layers)]


class Names(NamedTuple):
    """What a family calls the parts of a decoder layer."""

    layers: str = "model.layers"
    attention: str = "self_attn"
    attention_out: str = "o_proj"
    feed_forward: tuple = ("mlp",)
    feed_forward_out: str = "mlp.down_proj"

    def parts(self, kind):
        """The modules of a kind of block."""
        return (self.attention,) if kind == ATTENTION else self.feed_forward

    def output(self, kind):
        """The projection by which it writes, within the layer."""
        return f"{self.attention}.{self.attention_out}" if kind == ATTENTION else self.feed_forward_out


NAMES = {
    "starcoder2": Names(feed_forward_out="mlp.c_proj"),
    "phi": Names(attention_out="dense", feed_forward_out="mlp.fc2"),
    "gpt_neox": Names("gpt_neox.layers", "attention", "dense", feed_forward_out="mlp.dense_4h_to_h"),
    "falcon": Names("transformer.h", "self_attention", "dense", feed_forward_out="mlp.dense_4h_to_h"),
    "gpt2": Names("transformer.h", "attn", "c_proj", feed_forward_out="mlp.c_proj"),
    "gemma3": Names("model.language_model.layers"),
    "llava": Names("model.language_model.layers"),
    "mistral3": Names("model.language_model.layers"),
    "opt": Names("model.decoder.layers", "self_attn", "out_proj", ("fc1", "fc2"), "fc2"),
}


def plain(family):
    return family.removeprefix("blockpruner_")


def names_of(family):
    """The names of a `model_type`."""
    return NAMES.get(plain(family), Names())


def layers_of(model):
    return model.get_submodule(names_of(model.config.model_type).layers)


def zero_attention(hidden_states, *unused, **also_unused):
    return torch.zeros_like(hidden_states), None


def zero_feed_forward(hidden_states):
    return torch.zeros_like(hidden_states)


@contextlib.contextmanager
def without(model, blocks):
    """The model with these blocks skipped, for the time of a `with`."""
    patched = []
    layers, names = layers_of(model), names_of(model.config.model_type)
    for kind, layer in blocks:
        if layer >= len(layers):
            raise SystemExit(f"{block_name((kind, layer))}: the model has {len(layers)} layers, counted from 0")
        for part in names.parts(kind):
            branch = getattr(layers[layer], part)
            branch.forward = zero_attention if kind == ATTENTION else zero_feed_forward
            patched.append(branch)
    try:
        yield model
    finally:
        for branch in patched:
            branch.__dict__.pop("forward", None)


# The norms of a decoder layer that belong to its attention block, and those of its feed-forward block.
BEFORE = (["input_layernorm"], ["post_attention_layernorm"])
BEHIND = (["post_attention_layernorm"], ["post_feedforward_layernorm"])
BOTH = (["input_layernorm", "post_attention_layernorm"], ["pre_feedforward_layernorm", "post_feedforward_layernorm"])
NORMS = {
    "exaone4": BEHIND,
    "gemma2": BOTH,
    "gemma3_text": BOTH,
    "glm4": (["input_layernorm", "post_self_attn_layernorm"], ["post_attention_layernorm", "post_mlp_layernorm"]),
    "gpt2": (["ln_1"], ["ln_2"]),
    "olmo2": BEHIND,
    "olmo3": BEHIND,
    "opt": (["self_attn_layer_norm"], ["final_layer_norm"]),
}


def norms_of(config):
    """Names of the attention block's norms, of the feed-forward block's, and of those that both read, by a config.json."""
    family = plain(config["model_type"])
    new, parallel = config.get("new_decoder_architecture"), config.get("parallel_attn", True)
    if family == "falcon" and new and config.get("num_ln_in_parallel_attn") in (None, 2):
        return ["ln_attn"], ["ln_mlp"], []
    one = {"cohere2": True, "phi": True, "falcon": parallel, "stablelm": config.get("use_parallel_residual")}
    if one.get(family):
        return [], [], ["input_layernorm"]
    return *NORMS.get(family, BEFORE), []


def block_prefixes(config, block):
    """How the names of a block's own tensors begin."""
    kind, layer = block
    names, norms = names_of(config["model_type"]), norms_of(config)
    parts = [*names.parts(kind), *(norms[0] if kind == ATTENTION else norms[1])]
    return tuple(f"{names.layers}.{layer}.{part}." for part in parts)


def removed_prefixes(config, blocks):
    """How the names of the tensors begin that go with these blocks: a norm that two share goes with the second."""
    prefixes = [prefix for block in blocks for prefix in block_prefixes(config, block)]
    for layer in {layer for kind, layer in blocks if (ATTENTION, layer) in blocks and (FEED_FORWARD, layer) in blocks}:
        prefixes += [f"{names_of(config['model_type']).layers}.{layer}.{norm}." for norm in norms_of(config)[2]]
    return tuple(prefixes)


# --- perplexity -------------------------------------------------------------------------------------------------------


def next_token_nll(model, windows):
    """Negative log-likelihood (nats, f64) of every target: `windows` is [count, window], the result [count, window - 1].

    The forward pass is f32; only the log-sum-exp over the finished logits is done in f64.
    """
    logits = model(input_ids=windows, use_cache=False).logits[:, :-1].double()
    return torch.nn.functional.cross_entropy(logits.transpose(1, 2), windows[:, 1:], reduction="none")


def windows_nll(model, windows, batch=1):
    """`next_token_nll` over many windows, `batch` at a time."""
    return torch.cat([next_token_nll(model, part) for part in windows.split(batch)])


def mean_nll(nll):
    """Mean over windows of each window's mean, as published (all windows have the same length)."""
    return float(nll.mean(dim=1).mean())


def perplexity(model, windows, batch=1, blocks=()):
    with without(model, blocks):
        return math.exp(mean_nll(windows_nll(model, windows, batch)))


def greedy_search(model, windows, remove, block_types="mix", batch=1, progress=None):
    """The published loop: each step tries every block left, and removes the one whose absence leaves the lowest
    perplexity; `<` is strict, so on a tie the first candidate stays. Candidates that are not finite cannot win."""
    removed, steps = [], []
    for step in range(1, remove + 1):
        candidates = [b for b in all_blocks(len(layers_of(model)), block_types) if b not in removed]
        if not candidates:
            raise SystemExit(f"only {step - 1} blocks could be removed, {remove} were asked for")
        scores = {}
        for block in candidates:
            scores[block_name(block)] = perplexity(model, windows, batch, [*removed, block])
        best = None
        for block in candidates:
            score = scores[block_name(block)]
            if math.isfinite(score) and (best is None or score < scores[block_name(best)]):
                best = block
        if best is None:
            raise SystemExit(f"step {step}: no candidate has a finite perplexity")
        removed.append(best)
        steps.append({"removed": block_name(best), "perplexity": scores[block_name(best)], "candidates": scores})
        if progress:
            progress(step, steps[-1])
    return steps


# --- models -----------------------------------------------------------------------------------------------------------


def auto_class(config):
    """What loads a model with this config.json, of text or of images and text."""
    import transformers

    return transformers.AutoModelForImageTextToText if "text_config" in config else transformers.AutoModelForCausalLM


def config_of(folder):
    return json.loads((pathlib.Path(folder) / "config.json").read_text(encoding="utf-8"))


def attention_for(config, wanted="eager"):
    """Eager attention of transformers' Falcon adds linear biases twice, in the mask and by itself; the default does not."""
    return "sdpa" if config.get("alibi") else wanted


def load_model(path, attention="eager", trust_remote_code=False):
    """A Hugging Face folder or a .gguf file as an f32 transformers model in evaluation mode."""
    path = pathlib.Path(path)
    if path.suffix == ".gguf":
        import gguf_io

        return gguf_io.load_model(path, attention)
    config = config_of(path)
    if config["model_type"] == "baichuan":
        import baichuan_reference

        return baichuan_reference.load(path)
    attention = attention_for(config, attention)
    return auto_class(config).from_pretrained(
        path, dtype=torch.float32, attn_implementation=attention, trust_remote_code=trust_remote_code
    ).eval()


def load_tokenizer(model, tokenizer=None):
    """A `tokenizers.Tokenizer`: from a tokenizer.json if named, else from the folder or the .gguf file."""
    import tokenizers

    model = pathlib.Path(model)
    if tokenizer is None and model.suffix == ".gguf":
        import gguf_io

        return gguf_io.load_tokenizer(model)
    path = pathlib.Path(tokenizer) if tokenizer else model / "tokenizer.json"
    if not path.is_file():
        raise SystemExit(f"{path}: no such tokenizer file; name one with --tokenizer")
    return tokenizers.Tokenizer.from_file(str(path))


# --- texts ------------------------------------------------------------------------------------------------------------


def read_rows(path, field=None, samples=None):
    """A .txt file is one row; .jsonl and .json hold rows, whose `field` is the text (default `text`)."""
    path = pathlib.Path(path)
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in content.splitlines() if line.strip()]
    elif path.suffix == ".json":
        rows = json.loads(content)
    else:
        return [content]
    rows = [row if isinstance(row, str) else row[field or "text"] for row in rows]
    return rows[:samples] if samples else rows


def cut_windows(ids, window, max_windows=None):
    """Consecutive windows of `window` tokens, the remainder dropped: an int64 tensor [count, window]."""
    if window < 2:
        raise SystemExit(f"--window {window}: a window needs at least 2 tokens")
    count = len(ids) // window
    if max_windows:
        count = min(count, max_windows)
    if count == 0:
        raise SystemExit(f"the text has {len(ids)} tokens, fewer than one window of {window}: use a smaller --window")
    return torch.tensor(numpy.asarray(ids[: count * window]).reshape(count, window), dtype=torch.int64)


def read_windows(arguments):
    """The windows that a script's --text/--field/--samples or --ids, --window and --max-windows ask for."""
    if arguments.ids:
        content = json.loads(pathlib.Path(arguments.ids).read_text(encoding="utf-8"))
        ids = content["ids"] if isinstance(content, dict) else content
        window = arguments.window or (content.get("window") if isinstance(content, dict) else None) or 2048
    elif arguments.text:
        rows = read_rows(arguments.text, arguments.field, arguments.samples)
        ids = load_tokenizer(arguments.model, arguments.tokenizer).encode("\n\n".join(rows)).ids
        window = arguments.window or 2048
    else:
        raise SystemExit("give the text with --text FILE, or token ids with --ids FILE.json")
    return cut_windows(ids, window, arguments.max_windows), len(ids)


def add_text_arguments(parser):
    parser.add_argument("--model", required=True, help="Hugging Face folder or .gguf file")
    parser.add_argument("--text", help=".txt, .jsonl or .json file")
    parser.add_argument("--field", help="the rows' text field (default: text)")
    parser.add_argument("--samples", type=int, help="use the first N rows")
    parser.add_argument("--ids", help='JSON list of token ids, or an object with "ids" and "window"')
    parser.add_argument("--tokenizer", help="tokenizer.json (default: the model's own)")
    parser.add_argument("--window", type=int, help="tokens in a window (default: the ids file's, else 2048)")
    parser.add_argument("--max-windows", "--windows", type=int, help="use the first N windows")
    parser.add_argument("--batch", type=int, default=1, help="windows in one forward pass")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--attention", default="eager", help="transformers' attn_implementation")
    parser.add_argument("--trust-remote-code", action="store_true", help="run a folder's own Python code")


def note(text):
    print(text, file=sys.stderr, flush=True)
