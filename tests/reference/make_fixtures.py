"""Makes the small models of tests/fixtures and what PyTorch says about them.

    python tests/reference/make_fixtures.py [NAME ...]     all fixtures, or the named ones

A fixture is a folder with a model (config.json + safetensors, or model.gguf) and `reference.json`:

    window, windows     tokens in a window, number of windows
    ids                 windows * window token ids
    nll                 per window, the negative log-likelihood (nats) of every target (window - 1 of them)
    window_nll          the mean of each window (long fixtures have these instead of `nll`)
    mean_nll            mean of the window means
    perplexity          exp(mean_nll)
    without             block -> perplexity of the model without that block
    greedy              order and perplexities of the published search
    text, text_ids      (GGUF) a text and its ids by the tokenizer in the file

Every folder also has a tokenizer.json whose tokens are the words `t0`, `t1`, ...: the text "t5 t17 t0" is the ids
5, 17, 0, so the ids of a reference can be given to a program that only takes text.

Removing a block skips its whole residual branch, norm included (see model_io.py). Weights are random, rounded to the
stored dtype, and the reference is computed in f32 from what was stored: the folder just written is loaded again.
They are drawn large enough (standard deviation 0.1 to 0.3, norms away from 1) for every block to matter, and the ids are
sampled from the model itself, so that perplexities lie far below the vocabulary size and differ between blocks.
Everything is seeded: with the versions in requirements.txt, running this again gives the same files.
"""

import json
import math
import pathlib
import sys

import numpy
import tokenizers
import torch
import transformers
from safetensors.torch import save_file

import baichuan_reference
import family_fixtures
import gguf_families
import gguf_fixtures
import gguf_io
import model_io

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "fixtures"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def llama(**changes):
    """config.json of a small Llama as the hub spells it. Sizes are odd on purpose: nothing divides by 16 or 32."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 72,
        "intermediate_size": 100,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 24,
        "vocab_size": 307,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 256,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float32",
        **changes,
    }


def qwen2(**changes):
    config = llama(architectures=["Qwen2ForCausalLM"], model_type="qwen2", rms_norm_eps=1e-6, rope_theta=1000000.0)
    for key in ("head_dim", "attention_bias", "mlp_bias"):  # Qwen2 has none of these keys; its Q, K, V biases are fixed
        del config[key]
    return {**config, "use_sliding_window": False, **changes}


def small(**changes):
    """A smaller Llama for what does not depend on the sizes."""
    return llama(**{"hidden_size": 48, "num_attention_heads": 2, **changes})


def rope(**changes):
    sizes = {"num_hidden_layers": 2, "intermediate_size": 60, "vocab_size": 101, "torch_dtype": "bfloat16"}
    return small(**{**sizes, "max_position_embeddings": 128, **changes})


def newer_spelling(parameters, **changes):
    """`rope_parameters` (with rope_theta inside), as transformers 5 writes it, instead of rope_theta + rope_scaling."""
    config = rope(**changes)
    theta = config.pop("rope_theta")
    config["dtype"] = config.pop("torch_dtype")
    return {**config, "rope_parameters": {"rope_theta": theta, **parameters}}


LONGROPE_SHORT = [1.0, 1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8, 2.0]
LONGROPE_LONG = [1.0, 1.1, 1.3, 1.6, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0]

# name -> config.json, window, windows, steps of the greedy path, and what else the writer needs. Other families are in
# family_fixtures.py.
FOLDERS = {
    "llama-f32": dict(config=llama(), window=43, windows=3, greedy=4),
    "llama-bf16-tied": dict(
        config=llama(num_attention_heads=6, num_key_value_heads=2, tie_word_embeddings=True, torch_dtype="bfloat16"),
        window=129, windows=2, greedy=4,
    ),
    "qwen2-bf16": dict(config=qwen2(tie_word_embeddings=True, torch_dtype="bfloat16"), window=43, windows=3, greedy=4),
    "llama-f16-sharded": dict(config=small(torch_dtype="float16"), window=43, windows=2, greedy=3, shards=3),
    "llama-biases": dict(
        config=small(attention_bias=True, mlp_bias=True, torch_dtype="bfloat16"), window=2, windows=24, greedy=4
    ),
    "qwen2-f32": dict(
        config=qwen2(hidden_size=48, num_attention_heads=2, num_hidden_layers=2), window=129, windows=2, greedy=3
    ),
    "rope-linear": dict(config=rope(rope_scaling={"type": "linear", "factor": 4.0}), window=65, windows=2, greedy=3),
    # The window passes max_position_embeddings, from where on the dynamic base grows with the window.
    "rope-dynamic": dict(
        config=rope(rope_scaling={"rope_type": "dynamic", "factor": 2.0}, max_position_embeddings=32),
        window=65, windows=2, greedy=3,
    ),
    "rope-yarn": dict(
        config=rope(rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}),
        window=129, windows=2, greedy=3,
    ),
    "rope-yarn-parameters": dict(
        config=newer_spelling(
            {
                "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 16.0,
                "beta_slow": 2.0, "mscale": 1.0, "mscale_all_dim": 0.5, "truncate": False,
            }
        ),
        window=65, windows=2, greedy=3,
    ),
    "rope-longrope": dict(
        config=rope(
            rope_scaling={"type": "longrope", "short_factor": LONGROPE_SHORT, "long_factor": LONGROPE_LONG},
            original_max_position_embeddings=32,
        ),
        window=65, windows=2, greedy=3,
    ),
    # The same model within the original length: the short factors apply.
    "rope-longrope-short": dict(
        config=newer_spelling(
            {
                "rope_type": "longrope", "short_factor": LONGROPE_SHORT, "long_factor": LONGROPE_LONG, "factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        ),
        window=32, windows=2, greedy=3,
    ),
    "rope-llama3": dict(
        config=newer_spelling(
            {
                "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        ),
        window=65, windows=2, greedy=3,
    ),
    "window-2048": dict(
        config=llama(
            hidden_size=32, head_dim=16, num_attention_heads=2, num_hidden_layers=2, intermediate_size=40, vocab_size=61,
            max_position_embeddings=2048, torch_dtype="bfloat16",
        ),
        window=2048, windows=1, greedy=0,
    ),
    "wide": dict(
        config=llama(
            hidden_size=200, head_dim=40, num_attention_heads=5, num_hidden_layers=2, intermediate_size=104,
            vocab_size=131, tie_word_embeddings=True, torch_dtype="bfloat16",
        ),
        window=67, windows=2, greedy=3,
    ),
}


def text_config(config):
    """The settings of the text model, which may be a part of a whole."""
    return config.get("text_config", config)


def stored_dtype(config):
    return DTYPES[config.get("torch_dtype") or config["dtype"]]


def random_weight(random, name, shape, config):
    """Norms around 1; biases and the embedding at a fixed size; projections so that a block's output rivals its input."""
    gemma = config["model_type"].startswith("gemma")
    # Where rows of the head are small, what they multiply is not.
    if (gemma or config["model_type"] == "baichuan") and name == "model.norm.weight":
        return 2 + 0.2 * random.standard_normal(shape)
    if gemma and name == "model.embed_tokens.weight":
        # It is scaled up, and the head is the same matrix: if it were larger, every token would predict itself.
        return 0.5 / math.sqrt(config["hidden_size"]) * random.standard_normal(shape)
    if len(shape) == 1 and name.endswith(".weight"):
        # A norm. Gemma and Nemotron store what is added to 1.
        less_one = gemma or config["model_type"] == "nemotron"
        return (0 if less_one else 1) + 0.2 * random.standard_normal(shape)
    if name.endswith(".bias"):
        return 0.2 * random.standard_normal(shape)
    return 1.5 / math.sqrt(config.get("hidden_size") or config["n_embd"]) * random.standard_normal(shape)


# What transformers 5 calls parts of a model of images and text, and what files on the hub call them.
PUBLISHED = {
    "model.language_model.": "language_model.model.",
    "lm_head.": "language_model.lm_head.",
    "model.vision_tower.": "vision_tower.vision_model.",
    "model.multi_modal_projector.": "multi_modal_projector.",
}


def published_name(name):
    begins = next((begins for begins in PUBLISHED if name.startswith(begins)), "")
    return PUBLISHED.get(begins, "") + name.removeprefix(begins)


def random_tensors(config, seed, published=False):
    """Every parameter of the architecture, in the stored dtype, from transformers' own list of names and shapes."""
    with torch.device("meta"):
        if config["model_type"] == "baichuan":
            empty = baichuan_reference.Baichuan(config)
        else:
            empty = model_io.auto_class(config).from_config(transformers.AutoConfig.for_model(**config))
    random = numpy.random.default_rng(seed)
    tensors = {}
    for name, parameter in sorted(empty.named_parameters()):
        plain = name.replace("model.language_model.", "model.")
        value = random_weight(random, plain, tuple(parameter.shape), text_config(config))
        if config["model_type"] == "gpt_neox":
            # As checkpoints have it; transformers 5 renames it when loading.
            name = name.replace("lm_head", "embed_out")
        tensors[published_name(name) if published else name] = torch.from_numpy(value).to(stored_dtype(config))
    return tensors


def write_json(path, value):
    """Indented, but lists of numbers on one line."""
    path.write_text(as_json(value) + "\n", encoding="utf-8")


def as_json(value, indent=0):
    space = " " * (indent + 2)
    if isinstance(value, dict) and value:
        inner = ",\n".join(f"{space}{json.dumps(k)}: {as_json(v, indent + 2)}" for k, v in value.items())
        return "{\n" + inner + "\n" + " " * indent + "}"
    if isinstance(value, list) and value and isinstance(value[0], list):
        return "[\n" + ",\n".join(space + json.dumps(v) for v in value) + "\n" + " " * indent + "]"
    return json.dumps(value)


def write_word_tokenizer(folder, vocabulary):
    """Token n is the word `tn`."""
    words = {f"t{number}": number for number in range(vocabulary)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="t0"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    (folder / "tokenizer.json").write_text(tokenizer.to_str() + "\n", encoding="utf-8")
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})


def write_folder(folder, config, seed, shards=1, published=False):
    """config.json, a tokenizer, and model.safetensors, or `shards` files and their index."""
    write_json(folder / "config.json", config)
    write_word_tokenizer(folder, text_config(config)["vocab_size"])
    tensors = random_tensors(config, seed, published)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(tensors)
    weight_map = {}
    for shard in range(shards):
        part = names[shard::shards]  # interleaved: the tensors of one layer lie in different files
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, file))
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    write_json(folder / "model.safetensors.index.json", index)


def sample_windows(model, window, windows, seed):
    """Windows of ids drawn from the model's own distribution, one token after the other, all windows at once."""
    random = numpy.random.default_rng(seed)
    vocabulary = model.config.get_text_config().vocab_size
    ids = torch.from_numpy(random.integers(0, vocabulary, size=(windows, 1)))
    past = None
    while ids.shape[1] < window:
        output = model(input_ids=ids[:, -1:], past_key_values=past, use_cache=True)
        past = output.past_key_values
        cumulative = torch.softmax(output.logits[:, -1].double(), dim=-1).cumsum(dim=-1).numpy()
        draws = random.random(windows)
        drawn = [min(int(numpy.searchsorted(row, draw)), vocabulary - 1) for row, draw in zip(cumulative, draws)]
        ids = torch.cat([ids, torch.tensor(drawn).unsqueeze(1)], dim=1)
    return ids


def figure(value):
    """Nine significant digits carry an f32 exactly."""
    return float(f"{value:.9g}")


def reference(load, window, windows, greedy, seed, ids=None):
    """What reference.json says; `load` gives a fresh model, as dynamic RoPE keeps state from call to call."""
    if ids is None:
        ids = sample_windows(load(), window, windows, seed)
    model = load()
    nll = model_io.windows_nll(model, ids)
    mean = model_io.mean_nll(nll)
    result = {"window": window, "windows": windows, "ids": ids.flatten().tolist()}
    if greedy:
        result["nll"] = [[figure(value) for value in row] for row in nll.tolist()]
    else:
        result["window_nll"] = [figure(float(row.mean())) for row in nll]
    result |= {"mean_nll": figure(mean), "perplexity": figure(math.exp(mean))}
    if greedy:
        blocks = model_io.all_blocks(len(model_io.layers_of(model)))
        result["without"] = {
            model_io.block_name(b): figure(model_io.perplexity(model, ids, blocks=[b])) for b in blocks
        }
        steps = model_io.greedy_search(model, ids, greedy)
        result["greedy"] = {
            "order": [step["removed"] for step in steps],
            "perplexities": [figure(step["perplexity"]) for step in steps],
        }
        check_is_telling(result, steps)
    return result


def check_is_telling(result, steps):
    """A fixture whose winner is decided by rounding would make a test that fails by chance."""
    for step in steps:
        first, second = (sorted(step["candidates"].values()) + [math.inf])[:2]
        if second < first * 1.001:
            raise SystemExit(f"removing {step['removed']} wins by less than 0.1 %: choose another seed")
    if any(abs(value / result["perplexity"] - 1) < 0.01 for value in result["without"].values()):
        raise SystemExit("a block changes the perplexity by less than 1 %: choose another seed")


def make_folder(name, config, window, windows, greedy, seed=1, shards=1, published=False):
    folder = FIXTURES / name
    folder.mkdir(parents=True, exist_ok=True)
    write_folder(folder, config, seed, shards, published)
    result = reference(lambda: model_io.load_model(folder), window, windows, greedy, seed)
    finish(folder, result)


def make_gguf(name, window, windows=2, greedy=3, seed=1, **spec):
    """model.gguf; its reference has a text and its ids besides, for the tokenizer in the file."""
    folder = FIXTURES / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.gguf"
    if name in gguf_families.FIXTURES:
        gguf_families.write(path, name)
    else:
        gguf_fixtures.write(path, spec, seed)
    gguf_io.read.cache_clear()
    result = reference(lambda: model_io.load_model(path), window, windows, greedy, seed)
    result["text"] = gguf_fixtures.SAMPLE_TEXT
    result["text_ids"] = gguf_io.load_tokenizer(path).encode(gguf_fixtures.SAMPLE_TEXT).ids
    finish(folder, result)


def finish(folder, result):
    write_json(folder / "reference.json", result)
    summary = {key: result.get(key) for key in ("perplexity", "without", "greedy")}
    print(folder.name, json.dumps(summary), flush=True)


def main():
    model_io.quiet_and_deterministic()
    makers = {name: (make_folder, spec) for name, spec in (FOLDERS | family_fixtures.FOLDERS | family_fixtures.COMPOSITES).items()}
    makers |= {name: (make_gguf, spec) for name, spec in (gguf_fixtures.FILES | gguf_families.FIXTURES).items()}
    for name in sys.argv[1:] or makers:
        if name not in makers:
            raise SystemExit(f"no fixture {name}; there are {', '.join(makers)}")
        make, spec = makers[name]
        make(name, **spec)


if __name__ == "__main__":
    main()
