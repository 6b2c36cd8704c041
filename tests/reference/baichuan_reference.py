"""Baichuan in plain PyTorch, because transformers has no class of it, and the Python files beside the published weights are not
run here. Written from what they compute (Baichuan2-7B-Base and Baichuan2-13B-Base):

    - Llama, with Q, K and V one below the other in `W_pack`, and as many heads of K and V as of Q;
    - with `max_position_embeddings` (7B), Q and K are turned as Llama's with a theta of 10000; without (13B), slope * position
      of the key is added to a score (Press et al., 2022);
    - the rows of the second generation's head are divided by their lengths.

Parameters are called as in the published weights. What looks like a cache is the ids so far: all is computed anew.
"""

import json
import math
import pathlib
import types
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional


class Output(NamedTuple):
    logits: torch.Tensor
    past_key_values: torch.Tensor


class Generated(NamedTuple):
    sequences: torch.Tensor
    logits: list


def slopes(heads):
    """Of every head: powers of 2^(-8 / heads); past the largest power of two that fits, every second one of the next."""
    lower = 2 ** math.floor(math.log2(heads))
    own = [2 ** (-8 * i / lower) for i in range(1, lower + 1)]
    between = [2 ** (-4 * i / lower) for i in range(1, 2 * lower, 2)]
    return torch.tensor((own + between)[:heads])


class RmsNorm(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.hidden_size))
        self.eps = config.rms_norm_eps

    def forward(self, states):
        return self.weight * states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + self.eps)


def linear(inner, outer):
    return nn.Linear(inner, outer, bias=False)


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.W_pack = linear(config.hidden_size, 3 * config.hidden_size)
        self.o_proj = linear(config.hidden_size, config.hidden_size)

    def forward(self, states):
        batch, length, hidden = states.shape
        heads = self.config.num_attention_heads
        width = hidden // heads
        q, k, v = (part.view(batch, length, heads, width).transpose(1, 2) for part in self.W_pack(states).split(hidden, -1))
        positions = torch.arange(length, dtype=torch.float32)
        rotary = hasattr(self.config, "max_position_embeddings")
        if rotary:
            frequencies = 1.0 / 10000.0 ** (torch.arange(0, width, 2).float() / width)
            angles = torch.outer(positions, frequencies).repeat(1, 2)
            turned = lambda x: x * angles.cos() + torch.cat([-x[..., width // 2 :], x[..., : width // 2]], -1) * angles.sin()
            q, k = turned(q), turned(k)
        scores = q @ k.transpose(-1, -2) / math.sqrt(width)
        if not rotary:
            scores = scores + slopes(heads)[:, None, None] * positions
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(later, -math.inf).softmax(-1)
        return self.o_proj((weights @ v).transpose(1, 2).reshape(batch, length, hidden)), None


class FeedForward(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate_proj = linear(config.hidden_size, config.intermediate_size)
        self.up_proj = linear(config.hidden_size, config.intermediate_size)
        self.down_proj = linear(config.intermediate_size, config.hidden_size)

    def forward(self, states):
        return self.down_proj(functional.silu(self.gate_proj(states)) * self.up_proj(states))


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.input_layernorm = RmsNorm(config)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RmsNorm(config)
        self.mlp = FeedForward(config)

    def forward(self, states):
        states = states + self.self_attn(self.input_layernorm(states))[0]
        return states + self.mlp(self.post_attention_layernorm(states))


class Model(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RmsNorm(config)

    def forward(self, ids):
        states = self.embed_tokens(ids)
        for layer in self.layers:
            states = layer(states)
        return self.norm(states)


class Baichuan(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = types.SimpleNamespace(**config)
        self.model = Model(self.config)
        self.lm_head = linear(self.config.hidden_size, self.config.vocab_size)

    def forward(self, input_ids, past_key_values=None, use_cache=False):
        ids = input_ids if past_key_values is None else torch.cat([past_key_values, input_ids], 1)
        head = self.lm_head.weight
        if self.config.norm_head:
            head = functional.normalize(head)
        states = self.model(ids)[:, -input_ids.shape[1] :]
        return Output(functional.linear(states, head), ids)

    def generate(self, ids, max_new_tokens, **unused):
        """The most likely token after the other, up to the end of the text."""
        logits = []
        for _ in range(max_new_tokens):
            logits.append(self(ids).logits[:, -1])
            ids = torch.cat([ids, logits[-1].argmax(-1, keepdim=True)], 1)
            if ids[0, -1] == self.config.eos_token_id:
                break
        return Generated(ids, logits)


def load(folder):
    from safetensors.torch import load_file

    folder = pathlib.Path(folder)
    model = Baichuan(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.float().eval()
