"""Loads a model (@FAMILY@) from which BlockPruner removed attention or feed-forward blocks.

    AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)

config.json names the blocks that are gone, by 0-based layer: `drop_attn_list` and `drop_mlp_list`, and the same again as
`per_layer_config` ({"23": {"skip": ["attention", "mlp"]}}). A missing block is a residual branch skipped whole, its norms
included: `x + f(norm(x))` becomes `x`. Layers keep their numbers, so the tensor names are those of the original model.

Only the names of a decoder layer's parts are relied upon, and that attention returns (output, weights): transformers 4.48
and newer.
"""

import torch
from torch import nn
from @CONFIGURATION@ import @CONFIG_CLASS@
from @MODELING@ import @MODEL_CLASS@

# The parts of a decoder layer that a block consists of: a feed-forward block is one module, or its projections.
ATTENTION = "@ATTENTION@"
ATTENTION_NORMS = @ATTENTION_NORMS@
FEED_FORWARD = @FEED_FORWARD@
FEED_FORWARD_NORMS = @FEED_FORWARD_NORMS@
# Norms of what both blocks read.
SHARED_NORMS = @SHARED_NORMS@

# What `skip` may say.
ATTENTION_NAMES = {"attention", ATTENTION}
FEED_FORWARD_NAMES = {"mlp", *FEED_FORWARD}


class SkippedAttention(nn.Module):
    """Adds nothing to the residual stream, and keeps the length of its entry in the KV cache right.

    The lengths of the whole cache, and the sizes of masks, are read from the first entry of a kind, which may be this one.
    So it is given keys and values, too, of one head and one number a position. They are ones, because some caches count the
    positions that are not zero.
    """

    def __init__(self, attention):
        super().__init__()
        # What layers and models read from their attention, such as `is_sliding`: whatever is no parameter or module.
        for name, value in vars(attention).items():
            if not name.startswith("_"):
                setattr(self, name, value)

    def forward(self, hidden_states, *args, **kwargs):
        caches = [kwargs.get(name) for name in ("past_key_values", "past_key_value", "layer_past")]
        cache = next((cache for cache in caches if cache is not None), None)
        if cache is not None:
            batch, length = hidden_states.shape[:2]
            self.update(cache, hidden_states.new_ones(batch, 1, length, 1), kwargs.get("cache_position"))
        return torch.zeros_like(hidden_states), None

    def update(self, cache, states, cache_position):
        layers = getattr(cache, "layers", ())
        entry = layers[self.layer_idx] if self.layer_idx < len(layers) else None
        keys = getattr(entry, "keys", None)
        # A static cache may have reserved its room already.
        if keys is not None and keys.dim() == 4:
            states = states.expand(-1, keys.shape[1], -1, keys.shape[3])
        if cache_position is None:
            cache.update(states, states, self.layer_idx)
        else:
            window = getattr(self, "sliding_window", None)
            cache.update(states, states, self.layer_idx, {"cache_position": cache_position, "sliding_window": window})


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

    A norm behind a block goes, too: it would make nothing but zeros of its zeros.
    """
    without_attention, without_feed_forward = removed_layers(model.config)
    for index, layer in enumerate(model.@LAYERS@):
        norms = SHARED_NORMS if index in without_attention & without_feed_forward else []
        if index in without_attention:
            norms = norms + ATTENTION_NORMS
            setattr(layer, ATTENTION, SkippedAttention(getattr(layer, ATTENTION)))
        if index in without_feed_forward:
            norms = norms + FEED_FORWARD_NORMS
            for part in FEED_FORWARD:
                setattr(layer, part, SkippedFeedForward())
        for norm in norms:
            setattr(layer, norm, nn.Identity())


class BlockPruner@CONFIG_CLASS@(@CONFIG_CLASS@):
    model_type = "blockpruner_@FAMILY@"


class BlockPruner@MODEL_CLASS@(@MODEL_CLASS@):
    config_class = BlockPruner@CONFIG_CLASS@

    def __init__(self, config):
        super().__init__(config)
        remove_blocks(self)


# What transformers renames in checkpoints of this family, from version 5 on, it renames here, too.
try:
    from transformers import conversion_mapping
except ImportError:
    pass
else:
    renamed = conversion_mapping.get_checkpoint_conversion_mapping("@MODEL_CLASS@")
    if renamed:
        conversion_mapping.register_checkpoint_conversion_mapping("BlockPruner@MODEL_CLASS@", renamed, overwrite=True)

# So that save_pretrained writes this file and `auto_map` again.
BlockPruner@CONFIG_CLASS@.register_for_auto_class()
BlockPruner@MODEL_CLASS@.register_for_auto_class("AutoModelForCausalLM")
