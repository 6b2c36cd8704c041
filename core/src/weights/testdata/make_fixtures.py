"""Writes the fixtures of core/src/weights: what the Python packages `gguf` and `safetensors` make of the same bytes.

    pip install gguf safetensors numpy
    python core/src/weights/testdata/make_fixtures.py

dequantize.safetensors   per type random blocks (`Q4_K.blocks`) and `gguf.quants.dequantize` of them (`Q4_K.values`)
../dequantize/grids      the points of the I-quants' grids, as the package packs them
llama.gguf               one tiny layer as llama.cpp's converter writes it: Q and K permuted, several types
llama.safetensors        the same tensors under their Hugging Face names, unpermuted, as f32
"""

from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type, GGUFWriter, quants
from gguf.quants import dequantize, quantize
from safetensors.numpy import save_file

HERE = Path(__file__).parent
rng = np.random.default_rng(5065)

# Where the f16 scales of a block are; every other byte may be anything. (IQ1_M has its own in pieces, MXFP4 none.)
SCALES = {
    "F16": [0], "BF16": [], "Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
    "IQ1_S": [0], "IQ1_M": [], "IQ2_XXS": [0], "IQ2_XS": [0], "IQ2_S": [0], "IQ3_XXS": [0], "IQ3_S": [0],
    "IQ4_NL": [0], "IQ4_XS": [0], "TQ1_0": [52], "TQ2_0": [64], "MXFP4": [], "NVFP4": [],
}
GRIDS = ["IQ1_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"]


def random_scales(count):
    """Finite f16 of both signs, small and large, subnormal ones and zeros among them."""
    bits = rng.integers(0, 1 << 16, count, dtype=np.uint16)
    return np.where(bits & 0x7C00 == 0x7C00, bits & 0x83FF, bits).astype(np.uint16)


def random_blocks(name):
    elements, size = GGML_QUANT_SIZES[Type[name]]
    # Enough that much of a grid is met.
    count = 8 if name.startswith("IQ") else {1: 64, 32: 8, 64: 4, 256: 2}[elements]
    blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
    if name == "BF16":
        blocks[:, 1] &= 0xBF  # not all exponent bits
    for offset in SCALES[name]:
        blocks[:, offset : offset + 2] = random_scales(count).view(np.uint8).reshape(count, 2)
    if name == "IQ1_M":  # its scale is the high nibbles of the last four words
        words = np.ascontiguousarray(blocks[:, 48:]).view(np.uint16)
        nibbles = random_scales(count)[:, None] >> np.array([0, 4, 8, 12], dtype=np.uint16) << 12
        blocks[:, 48:] = (words & 0x0FFF | nibbles).view(np.uint8)
    if name == "MXFP4":  # the largest exponents go beyond f32; the smallest are below its normal numbers
        blocks[:, 0] = [0, 1, 2, 3, *rng.integers(4, 250, count - 4)]
    return blocks


def dequantize_fixture():
    tensors = {}
    for name in SCALES:
        blocks = random_blocks(name)
        tensors[f"{name}.blocks"] = blocks
        tensors[f"{name}.values"] = dequantize(blocks.reshape(1, -1), Type[name]).reshape(-1)
    save_file(tensors, HERE / "dequantize.safetensors")


def write_grids():
    for name in GRIDS:
        points = bytes.fromhex(getattr(quants, name).grid_hex.decode())
        (HERE.parent / "dequantize" / "grids" / f"{name.lower()}.bin").write_bytes(points)


def permuted(weights, heads):
    """The order of rows in GGUF `llama` files (`LlamaModel.permute` of llama.cpp's converter)."""
    shape = weights.shape
    halves = weights.reshape(heads, 2, shape[0] // heads // 2, *shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(shape))


def llama_fixture():
    hidden, heads, kv_heads, ffn, vocab = 32, 2, 1, 32, 10
    writer = GGUFWriter(HERE / "llama.gguf", "llama")
    writer.add_name("one tiny layer")
    writer.add_block_count(1)
    writer.add_embedding_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_token_list([f"token {i}" for i in range(vocab)])
    writer.add_token_types([1] * vocab)
    writer.add_token_scores([-float(i) / 4 for i in range(vocab)])
    writer.add_add_bos_token(False)
    layer = "model.layers.0"
    plan = [
        ("token_embd.weight", "model.embed_tokens.weight", (vocab, hidden), "Q8_0", 0),
        ("output_norm.weight", "model.norm.weight", (hidden,), "F32", 0),
        ("blk.0.attn_norm.weight", f"{layer}.input_layernorm.weight", (hidden,), "F32", 0),
        ("blk.0.ffn_norm.weight", f"{layer}.post_attention_layernorm.weight", (hidden,), "F32", 0),
        ("blk.0.attn_q.weight", f"{layer}.self_attn.q_proj.weight", (hidden, hidden), "Q4_1", heads),
        ("blk.0.attn_q.bias", f"{layer}.self_attn.q_proj.bias", (hidden,), "F32", heads),
        ("blk.0.attn_k.weight", f"{layer}.self_attn.k_proj.weight", (hidden // 2, hidden), "F16", kv_heads),
        ("blk.0.attn_v.weight", f"{layer}.self_attn.v_proj.weight", (hidden // 2, hidden), "BF16", 0),
        ("blk.0.attn_output.weight", f"{layer}.self_attn.o_proj.weight", (hidden, hidden), "Q5_0", 0),
        ("blk.0.ffn_gate.weight", f"{layer}.mlp.gate_proj.weight", (ffn, hidden), "Q4_0", 0),
        ("blk.0.ffn_up.weight", f"{layer}.mlp.up_proj.weight", (ffn, hidden), "Q5_1", 0),
        ("blk.0.ffn_down.weight", f"{layer}.mlp.down_proj.weight", (hidden, ffn), "Q4_1", 0),
        ("rope_freqs.weight", "rope_freqs.weight", (8,), "F32", 0),
    ]
    expected = {}
    for stored_name, name, shape, type_name, rope_heads in plan:
        # Quantised rows stay what they are when they change places, so both orders can be had from one array.
        stored = quantize(rng.standard_normal(shape).astype(np.float32), Type[type_name])
        expected[name] = dequantize(stored, Type[type_name])
        stored = permuted(stored, rope_heads) if rope_heads else stored
        writer.add_tensor(stored_name, stored, raw_dtype=Type[type_name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(expected, HERE / "llama.safetensors")


if __name__ == "__main__":
    llama_fixture()
    dequantize_fixture()
    write_grids()
