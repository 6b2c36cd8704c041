"""Writes the small GGUF models of tests/fixtures: every storage type, with a working byte-level BPE tokenizer inside.

The types that the `gguf` package can quantise are quantised by it from random weights. It cannot quantise K and I types: for
those, random bytes are taken as they are (any bytes are a valid block) and only the scales are chosen. In both cases the
truth is what the package dequantises from the file.
"""

import json
import pathlib

import gguf
import numpy
import tokenizers
from gguf import GGMLQuantizationType as Type

ASSETS = pathlib.Path(__file__).resolve().parent.parent.parent / "assets"
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCABULARY = 320

# What a test tokenises: contractions, digits, capitals, several scripts, an emoji, runs of spaces, a special token.
SAMPLE_TEXT = (
    "The king didn't say 1234 words, she'll COUNT them:\n\n  3.14 or 2,718?\tGrüße aus Köln — 世界 🙂   \n"
    "<|im_start|>user\nthere was once a fox<|im_end|>\n"
)

I_TYPES = [
    Type.IQ1_S, Type.IQ2_XXS, Type.IQ2_XS, Type.IQ2_S, Type.IQ3_XXS, Type.IQ3_S, Type.IQ4_NL, Type.IQ4_XS,
]  # fmt: skip

# K and I types: where the f16 scales of a block lie, as (byte offset, factor). A minimum's factor is the mean of the unsigned
# quants that it has to balance, so that the weights scatter around zero.
SCALES = {type: [(0, 1.0)] for type in I_TYPES} | {
    Type.Q2_K: [(80, 1.0), (82, 1.5)],
    Type.Q3_K: [(108, 1.0)],
    Type.Q4_K: [(0, 1.0), (2, 7.5)],
    Type.Q5_K: [(0, 1.0), (2, 15.5)],
    Type.Q6_K: [(208, 1.0)],
}

PLAIN = [Type.F32, Type.F16, Type.BF16]
LEGACY = [Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1]
K_TYPES = [Type.Q2_K, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.Q6_K]
FEW_BITS = [Type.TQ1_0, Type.TQ2_0, Type.MXFP4]

# `types` are dealt to the matrices of the layers in turn; a K fixture has 14 of them, so each type lies in several roles.
FILES = {
    "gguf-floats": dict(
        arch="llama", hidden=48, heads=2, kv_heads=1, ffn=60, types=PLAIN, embedding=Type.F16, head=Type.BF16, window=43
    ),
    "gguf-legacy": dict(
        arch="llama", hidden=96, heads=4, kv_heads=2, ffn=160, types=LEGACY, embedding=Type.Q8_0, window=43
    ),
    "gguf-k-quants": dict(
        arch="llama", hidden=256, heads=4, kv_heads=2, ffn=256, types=K_TYPES, embedding=Type.Q6_K, window=43
    ),
    "gguf-i-quants": dict(
        arch="llama", hidden=256, heads=4, kv_heads=2, ffn=256, types=I_TYPES + FEW_BITS, embedding=Type.IQ4_NL, window=43
    ),
    "gguf-qwen2": dict(
        arch="qwen2", hidden=64, heads=2, kv_heads=1, ffn=96, types=[Type.Q5_0, Type.Q8_0, Type.Q4_1],
        embedding=Type.Q8_0, head=Type.Q5_1, window=43,
    ),
    "gguf-rope-freqs": dict(
        arch="llama", hidden=64, heads=2, kv_heads=1, ffn=96, types=[Type.Q8_0, Type.F16], embedding=Type.Q8_0,
        rope_freqs=True, window=65,
    ),
}
LAYERS = 2


def train_tokenizer():
    """A byte-level BPE of 320 tokens from the embedded model's calibration text: (tokens by id, merges)."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = (ASSETS / "tiny/calibration.txt").read_text(encoding="utf-8")
    # Sorted lines: training counts words in parallel, and nothing may depend on the order it meets them in.
    tokenizer.train_from_iterator(sorted(text.splitlines()), trainer)
    vocabulary = tokenizer.get_vocab()
    merges = [" ".join(merge) for merge in as_pairs(tokenizer)]
    return sorted(vocabulary, key=vocabulary.get), merges


def as_pairs(tokenizer):
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]


def float_blocks(random, shape, type, deviation):
    """Random weights in a type that the gguf package can write."""
    values = (deviation * random.standard_normal(shape)).astype(numpy.float32)
    return gguf.quants.quantize(values, type)


def random_blocks(random, shape, type, deviation):
    """Random bytes with scales such that the weights have about this standard deviation."""
    elements, size = gguf.GGML_QUANT_SIZES[type]
    if shape[-1] % elements:
        raise ValueError(f"rows of {shape[-1]} elements do not fill blocks of {elements}")
    blocks = random.integers(0, 256, size=(*shape[:-1], shape[-1] // elements, size), dtype=numpy.uint8)
    spread = 0.5 + random.random(blocks.shape[:-1])

    def with_scale(scale):
        for offset, factor in SCALES[type]:
            halves = (scale * factor * spread).astype("<f2")
            blocks[..., offset : offset + 2] = halves[..., None].view(numpy.uint8)
        return blocks.reshape(*shape[:-1], -1)

    unit = gguf.quants.dequantize(with_scale(1.0), type).std()
    return with_scale(deviation / unit)


def write(path, spec, seed):
    random = numpy.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, spec["arch"])
    write_metadata(writer, path.parent.name, spec)
    write_tokenizer(writer, spec["arch"])
    deviation = 1.5 / numpy.sqrt(spec["hidden"])

    def matrix(name, shape, type):
        make = random_blocks if type in SCALES else float_blocks
        writer.add_tensor(name, make(random, shape, type, deviation), raw_dtype=type)

    def vector(name, values):
        writer.add_tensor(name, values.astype(numpy.float32))

    def norm(name):
        vector(name, 1 + 0.2 * random.standard_normal(spec["hidden"]))

    matrix("token_embd.weight", (VOCABULARY, spec["hidden"]), spec["embedding"])
    types = iter(spec["types"] * (LAYERS * 7))
    for layer in range(LAYERS):
        norm(f"blk.{layer}.attn_norm.weight")
        norm(f"blk.{layer}.ffn_norm.weight")
        for name, shape in matrices(spec):
            matrix(f"blk.{layer}.{name}.weight", shape, next(types))
            if spec["arch"] == "qwen2" and name in ("attn_q", "attn_k", "attn_v"):
                vector(f"blk.{layer}.{name}.bias", 0.2 * random.standard_normal(shape[0]))
    norm("output_norm.weight")
    if "head" in spec:
        matrix("output.weight", (VOCABULARY, spec["hidden"]), spec["head"])
    if spec.get("rope_freqs"):
        vector("rope_freqs.weight", numpy.linspace(1, 8, spec["hidden"] // spec["heads"] // 2))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def matrices(spec):
    hidden, ffn = spec["hidden"], spec["ffn"]
    kv = hidden // spec["heads"] * spec["kv_heads"]
    return [
        ("attn_q", (hidden, hidden)), ("attn_k", (kv, hidden)), ("attn_v", (kv, hidden)),
        ("attn_output", (hidden, hidden)),
        ("ffn_gate", (ffn, hidden)), ("ffn_up", (ffn, hidden)), ("ffn_down", (hidden, ffn)),
    ]  # fmt: skip


def write_metadata(writer, name, spec):
    writer.add_name(name)
    writer.add_context_length(256)
    writer.add_embedding_length(spec["hidden"])
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(spec["ffn"])
    writer.add_head_count(spec["heads"])
    writer.add_head_count_kv(spec["kv_heads"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    if spec["arch"] == "llama":
        writer.add_rope_dimension_count(spec["hidden"] // spec["heads"])
        writer.add_vocab_size(VOCABULARY)


def write_tokenizer(writer, arch):
    tokens, merges = train_tokenizer()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2" if arch == "qwen2" else "smollm")
    writer.add_token_list(tokens)
    types = [gguf.TokenType.CONTROL if token in SPECIAL_TOKENS else gguf.TokenType.NORMAL for token in tokens]
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
