"""GGUF files for the reference scripts: dequantised by the `gguf` package and run by transformers in f32.

Files of arch `llama` store the rows of Q and K in the order of interleaved rotary embedding (llama.cpp's converter puts
element i of a head's first half before element i of its second half); transformers wants the halves apart.
"""

import functools
import pathlib

import gguf
import numpy
import tokenizers
import torch
from tokenizers import models, pre_tokenizers, processors

FILE_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}

# The split of text before byte-pair merging, by `tokenizer.ggml.pre`: published with the models' own tokenizer.json.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_SPLIT = QWEN2_SPLIT.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


@functools.lru_cache(maxsize=2)
def read(path):
    return gguf.GGUFReader(str(path))


def metadata(path):
    return {name: field.contents() for name, field in read(path).fields.items()}


def hf_name(name):
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`; None for what is not a weight."""
    parts = name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{LAYER_NAMES[parts[2]]}.{parts[3]}"
    if parts[0] == "rope_freqs":
        return None
    return f"{FILE_NAMES[parts[0]]}.{parts[1]}"


def halves_apart(values, heads):
    """Rows from the interleaved order to the order of transformers; biases too."""
    pairs = values.reshape(heads, -1, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)


def load_weights(path):
    """(transformers' state dictionary in f32, the factors of rope_freqs.weight or None)."""
    meta = metadata(path)
    arch = meta["general.architecture"]
    heads, kv_heads = head_counts(meta)
    state, factors = {}, None
    for tensor in read(path).tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32, copy=False)
        values = values.reshape([int(size) for size in reversed(tensor.shape)])
        name = hf_name(tensor.name)
        if name is None:
            factors = torch.from_numpy(values.copy())
            continue
        if arch == "llama" and ".attn_q." in tensor.name:
            values = halves_apart(values, heads)
        if arch == "llama" and ".attn_k." in tensor.name:
            values = halves_apart(values, kv_heads)
        state[name] = torch.from_numpy(numpy.ascontiguousarray(values).copy())
    return state, factors


def head_counts(meta):
    arch = meta["general.architecture"]
    heads = int(meta[f"{arch}.attention.head_count"])
    return heads, int(meta.get(f"{arch}.attention.head_count_kv", heads))


def model_config(path, state):
    """The transformers configuration that the metadata describe."""
    import transformers

    meta = metadata(path)
    arch = meta["general.architecture"]
    if arch not in ("llama", "qwen2"):
        raise SystemExit(f"{path}: arch {arch!r}; this reader knows llama and qwen2")
    get = lambda key, default=None: meta.get(f"{arch}.{key}", default)  # noqa: E731
    heads, kv_heads = head_counts(meta)
    config = {
        "hidden_size": get("embedding_length"),
        "intermediate_size": get("feed_forward_length"),
        "num_hidden_layers": get("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": state["model.embed_tokens.weight"].shape[0],
        "rms_norm_eps": get("attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": get("context_length"),
        "tie_word_embeddings": "lm_head.weight" not in state,
        "rope_parameters": {"rope_type": "default", "rope_theta": get("rope.freq_base", 10000.0)},
        "bos_token_id": meta.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": meta.get("tokenizer.ggml.eos_token_id"),
    }
    scaling = get("rope.scaling.type", "none")
    if scaling != "none":
        config["rope_parameters"] |= {"rope_type": scaling, "factor": get("rope.scaling.factor")}
    if scaling == "yarn":
        config["rope_parameters"]["original_max_position_embeddings"] = get("rope.scaling.original_context_length")
    if arch == "llama":
        config["head_dim"] = get("attention.key_length") or config["hidden_size"] // heads
        config["attention_bias"] = "model.layers.0.self_attn.q_proj.bias" in state
        config["mlp_bias"] = "model.layers.0.mlp.down_proj.bias" in state
    return transformers.AutoConfig.for_model(arch, **config)


def load_model(path, attention="eager"):
    import transformers

    import gguf_families

    if pathlib.Path(path).parent.name in gguf_families.FIXTURES:
        return gguf_families.load_model(pathlib.Path(path).parent.name, attention)
    state, factors = load_weights(path)
    config = model_config(path, state)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=torch.float32)
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, strict=True)
    if factors is not None:  # llama.cpp divides each frequency by its factor
        rotary = model.model.rotary_emb
        rotary.inv_freq.copy_(rotary.inv_freq / factors)
    return model.eval()


def load_tokenizer(path):
    """The byte-level BPE tokenizer in the metadata; other kinds need --tokenizer."""
    meta = metadata(path)
    kind = meta.get("tokenizer.ggml.model")
    if kind != "gpt2":
        raise SystemExit(f"{path}: tokenizer model {kind!r}; only gpt2 (byte-level BPE) is read, give --tokenizer")
    tokens = meta["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in meta["tokenizer.ggml.merges"]]
    tokenizer = tokenizers.Tokenizer(models.BPE({token: n for n, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizer(path, meta.get("tokenizer.ggml.pre", "default"))
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    types = meta.get("tokenizer.ggml.token_type", [1] * len(tokens))
    special = [tokenizers.AddedToken(t, special=True, normalized=False) for t, k in zip(tokens, types) if k == 3]
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens([tokenizers.AddedToken(t, normalized=False) for t, k in zip(tokens, types) if k == 4])
    if meta.get("tokenizer.ggml.add_bos_token"):
        bos = int(meta["tokenizer.ggml.bos_token_id"])
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{tokens[bos]} $A", special_tokens=[(tokens[bos], bos)]
        )
    return tokenizer


def pre_tokenizer(path, name):
    """The pre-tokenizer for a `tokenizer.ggml.pre`. No normaliser: llama.cpp has none, though Qwen2's tokenizer.json does."""
    byte_level = functools.partial(pre_tokenizers.ByteLevel, add_prefix_space=False)
    if name in ("default", "gpt-2", "gpt2"):
        return byte_level()
    if name == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level()])
    splits = {"qwen2": QWEN2_SPLIT, "llama-bpe": LLAMA3_SPLIT}
    if name not in splits:
        raise SystemExit(f"{path}: pre-tokenizer {name!r} is not known here, give --tokenizer")
    split = pre_tokenizers.Split(tokenizers.Regex(splits[name]), "isolated")
    return pre_tokenizers.Sequence([split, byte_level(use_regex=False)])
