"""Writes the fixtures of core/src/weights: what the Python packages `gguf` and `safetensors` make of the same bytes.

    pip install gguf safetensors numpy
    python core/src/weights/testdata/make_fixtures.py

dequantize.safetensors   per type random blocks (`Q4_K.blocks`) and `gguf.quants.dequantize` of them (`Q4_K.values`)
llama.gguf               one tiny layer as llama.cpp's converter writes it: Q and K permuted, several types
llama.safetensors        the same tensors under their Hugging Face names, unpermuted, as f32
"""

from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type, GGUFWriter
from gguf.quants import dequantize, quantize
from safetensors.numpy import save_file

HERE = Path(__file__).parent
rng = np.random.default_rng(5065)

# Where the f16 scales of a block are; every other byte may be anything.
SCALES = {
    "F16": [0], "BF16": [], "Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}


def random_scales(count):
    """Finite f16 of both signs, small and large, subnormal ones and zeros among them."""
    bits = rng.integers(0, 1 << 16, count, dtype=np.uint16)
    return np.where(bits & 0x7C00 == 0x7C00, bits & 0x83FF, bits).astype(np.uint16)


def random_blocks(name):
    elements, size = GGML_QUANT_SIZES[Type[name]]
    count = {1: 64, 32: 8, 256: 2}[elements]
    blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
    if name == "BF16":
        blocks[:, 1] &= 0xBF  # not all exponent bits
    for offset in SCALES[name]:
        blocks[:, offset : offset + 2] = random_scales(count).view(np.uint8).reshape(count, 2)
    return blocks


def dequantize_fixture():
    tensors = {}
    for name in SCALES:
        blocks = random_blocks(name)
        tensors[f"{name}.blocks"] = blocks
        tensors[f"{name}.values"] = dequantize(blocks.reshape(1, -1), Type[name]).reshape(-1)
    save_file(tensors, HERE / "dequantize.safetensors")


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
    dequantize_fixture()
    llama_fixture()
