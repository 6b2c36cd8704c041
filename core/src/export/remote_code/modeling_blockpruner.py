"""Loads a model from which BlockPruner removed attention or feed-forward blocks.

    AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)

config.json names the blocks that are gone, by 0-based layer: `drop_attn_list` and `drop_mlp_list`, and the same again as
`per_layer_config` ({"23": {"skip": ["attention", "mlp"]}}). A missing block is a residual branch skipped whole, its norm
included: `x + f(norm(x))` becomes `x`. Layers keep their numbers, so the tensor names are those of the original model.

Only the names of a decoder layer's parts are relied upon (`input_layernorm`, `self_attn`, `post_attention_layernorm`,
`mlp`) and that attention returns (output, weights): transformers 4.48 and newer.
"""

import torch
from torch import nn
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaForCausalLM
from transformers.models.qwen2.configuration_qwen2 import Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import Qwen2ForCausalLM

ATTENTION_NAMES = {"attention", "self_attn"}
FEED_FORWARD_NAMES = {"mlp"}


class BlockPrunerLlamaConfig(LlamaConfig):
    model_type = "blockpruner_llama"


class BlockPrunerQwen2Config(Qwen2Config):
    model_type = "blockpruner_qwen2"


class SkippedAttention(nn.Module):
    """Adds nothing to the residual stream, and leaves the KV cache alone."""

    def forward(self, hidden_states, *args, **kwargs):
        return torch.zeros_like(hidden_states), None


class SkippedFeedForward(nn.Module):
    """Adds nothing to the residual stream."""

    def forward(self, hidden_states):
        return torch.zeros_like(hidden_states)


def skips_of_layers(config):
    """`per_layer_config` as a dictionary layer -> names, or None if the configuration has none.

    transformers 5 turns the value in config.json into per-layer configurations with an attribute `skip`; before that it
    stays the dictionary that config.json holds.
    """
    per_layer = getattr(config, "per_layer_config", None)
    if per_layer is None:
        return None
    if isinstance(per_layer, dict):
        return {int(layer): set(overrides.get("skip", ())) for layer, overrides in per_layer.items()}
    if not getattr(config, "is_heterogeneous", True):
        return None
    return {layer: set(getattr(part, "skip", ())) for layer, part in enumerate(per_layer)}


def removed_layers(config):
    """(layers without attention, layers without feed-forward) that the configuration asks for; both may be empty."""
    lists = [getattr(config, key, None) for key in ("drop_attn_list", "drop_mlp_list")]
    skips = skips_of_layers(config)
    if skips is not None:
        unknown = set().union(*skips.values()) - ATTENTION_NAMES - FEED_FORWARD_NAMES
        if unknown:
            raise ValueError(f"config.json: per_layer_config skips {sorted(unknown)}; only attention and mlp are known")
        skipped = [
            {layer for layer, names in skips.items() if names & known} for known in (ATTENTION_NAMES, FEED_FORWARD_NAMES)
        ]
    if lists != [None, None]:
        removed = [set(layers or ()) for layers in lists]
        if skips is not None and removed != skipped:
            raise ValueError("config.json: per_layer_config and drop_attn_list, drop_mlp_list name different blocks")
    else:
        removed = skipped if skips is not None else [set(), set()]
    for layer in removed[0] | removed[1]:
        if not isinstance(layer, int) or not 0 <= layer < config.num_hidden_layers:
            raise ValueError(f"config.json: layer {layer!r} was removed, of {config.num_hidden_layers} (counted from 0)")
    return removed


def remove_blocks(model):
    """Takes the missing blocks out of a model just built, so that loading expects no tensors for them.

    A KV cache grows entry by entry from 0, and its length is read from entry 0. So the n-th attention that is left
    (counted from 0) uses entry n, whatever its layer.
    """
    config = model.config
    without_attention, without_feed_forward = removed_layers(config)
    if without_attention and len(set(getattr(config, "layer_types", None) or ())) > 1:
        raise ValueError("removed attention blocks are not supported in models that mix full and sliding attention")
    kept_attention = 0
    for index, layer in enumerate(model.model.layers):
        if index in without_attention:
            layer.input_layernorm = nn.Identity()
            layer.self_attn = SkippedAttention()
        else:
            layer.self_attn.layer_idx = kept_attention
            kept_attention += 1
        if index in without_feed_forward:
            layer.post_attention_layernorm = nn.Identity()
            layer.mlp = SkippedFeedForward()


class BlockPrunerLlamaForCausalLM(LlamaForCausalLM):
    config_class = BlockPrunerLlamaConfig

    def __init__(self, config):
        super().__init__(config)
        remove_blocks(self)


class BlockPrunerQwen2ForCausalLM(Qwen2ForCausalLM):
    config_class = BlockPrunerQwen2Config

    def __init__(self, config):
        super().__init__(config)
        remove_blocks(self)


# So that save_pretrained writes this file and `auto_map` again.
BlockPrunerLlamaConfig.register_for_auto_class()
BlockPrunerQwen2Config.register_for_auto_class()
BlockPrunerLlamaForCausalLM.register_for_auto_class("AutoModelForCausalLM")
BlockPrunerQwen2ForCausalLM.register_for_auto_class("AutoModelForCausalLM")
