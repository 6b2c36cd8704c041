"""Loads a model (@TYPE@), of whose layers BlockPruner removed attention or feed-forward blocks.

    AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)

config.json says in `block_configs` which blocks each layer has: an entry for each layer, with `no_op` in its `attention` or in its
`ffn` where there is none. Otherwise the model is a Llama, and the weights have Llama's names. vLLM and SGLang compute it by programs
of their own, and read the configuration through this file; MLX needs neither.
"""

from transformers import LlamaConfig, LlamaForCausalLM

from .modeling_blockpruner import remove_blocks


class Part(dict):
    """A part of `block_configs`, in which vLLM and SGLang look for attributes."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    @classmethod
    def of(cls, value):
        return cls({key: cls.of(part) for key, part in value.items()}) if isinstance(value, dict) else value


class BlockPrunerDeciLMConfig(LlamaConfig):
    model_type = "@TYPE@"

    def __setattr__(self, name, value):
        super().__setattr__(name, [Part.of(part) for part in value] if name == "block_configs" else value)

    def without(self, kind):
        """Numbers of the layers that have no block of a kind."""
        return [layer for layer, parts in enumerate(self.block_configs) if parts[kind]["no_op"]]

    @property
    def drop_attn_list(self):
        return self.without("attention")

    @property
    def drop_mlp_list(self):
        return self.without("ffn")


class BlockPrunerDeciLMForCausalLM(LlamaForCausalLM):
    config_class = BlockPrunerDeciLMConfig

    def __init__(self, config):
        super().__init__(config)
        remove_blocks(self)


# So that save_pretrained writes these files and `auto_map` again.
BlockPrunerDeciLMConfig.register_for_auto_class()
BlockPrunerDeciLMForCausalLM.register_for_auto_class("AutoModelForCausalLM")
