"""The fixtures of other families than Llama, one for each or for a variant of it: configurations as the hub has them.

Sizes are small and odd: three heads (or two) share one of keys and values, nothing divides by 16, and the size of a head
is not hidden_size / heads where the family has a key for it. Windows of text are longer than the sliding windows and
than `original_max_position_embeddings`; scales and caps are such that leaving one out changes a lot. Most are spelled as published
before transformers 5 (`rope_theta`, `rope_scaling`, `torch_dtype`), `ministral` and `gemma3-parameters` as it writes them.
"""


def config(model_type, name, **keys):
    """What nearly all have; `keys` in addition, or instead."""
    return {
        "architectures": [f"{name}ForCausalLM"],
        "model_type": model_type,
        "hidden_size": 36,
        "intermediate_size": 44,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "vocab_size": 101,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
        **keys,
    }


def llama_like(model_type, name, **keys):
    return config(model_type, name, **{"hidden_act": "silu", "rope_theta": 10000.0, **keys})


def gemma_like(model_type, name, **keys):
    """Two heads of 20 beside a hidden_size of 24."""
    sizes = {"hidden_size": 24, "num_attention_heads": 2, "head_dim": 20, "rms_norm_eps": 1e-6}
    tokens = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0, "tie_word_embeddings": True}
    return config(model_type, name, **{**sizes, **tokens, "attention_bias": False, **keys})


def gemma3(**keys):
    return gemma_like(
        "gemma3_text", "Gemma3", hidden_activation="gelu_pytorch_tanh", query_pre_attn_scalar=31, sliding_window=11,
        attn_logit_softcapping=None, final_logit_softcapping=None, eos_token_id=[1, 7], **keys,
    )


def newer(parameters, old):
    """As transformers 5 writes it: `rope_parameters`, and `dtype`."""
    rest = {key: value for key, value in old.items() if key not in ("rope_theta", "torch_dtype")}
    return {**rest, "dtype": old["torch_dtype"], "rope_parameters": parameters}


SLIDING, FULL = "sliding_attention", "full_attention"

MISTRAL = llama_like("mistral", "Mistral", head_dim=20, num_hidden_layers=2, sliding_window=13)
MINISTRAL = newer(
    {"rope_theta": 10000.0, "rope_type": "default"},
    llama_like(
        "ministral", "Ministral", hidden_size=40, intermediate_size=28, head_dim=12, sliding_window=9,
        layer_types=[FULL, SLIDING, FULL],
    ),
)
QWEN2_SLIDING = llama_like(
    "qwen2", "Qwen2", intermediate_size=36, rms_norm_eps=1e-6, rope_theta=1000000.0, use_sliding_window=True,
    sliding_window=9, max_window_layers=1,
)
QWEN3 = llama_like(
    "qwen3", "Qwen3", hidden_size=40, intermediate_size=36, num_hidden_layers=2, head_dim=24, vocab_size=127,
    rms_norm_eps=1e-6, rope_theta=1000000.0, attention_bias=False, tie_word_embeddings=True, use_sliding_window=False,
    sliding_window=None, max_window_layers=2,
)
SMOLLM3 = llama_like(
    "smollm3", "SmolLM3", vocab_size=113, rms_norm_eps=1e-6, rope_theta=5000000.0, attention_bias=False, mlp_bias=False,
    tie_word_embeddings=True, pad_token_id=0, layer_types=[FULL] * 3, no_rope_layer_interval=2, no_rope_layers=[1, 0, 1],
    use_sliding_window=False, sliding_window=None, max_window_layers=3,
)
GRANITE = llama_like(
    "granite", "Granite", attention_bias=False, mlp_bias=False, tie_word_embeddings=True, attention_multiplier=0.15,
    embedding_multiplier=1.8, residual_multiplier=0.8, logits_scaling=0.75,
)
SEED_OSS = llama_like(
    "seed_oss", "SeedOss", hidden_size=40, intermediate_size=36, num_hidden_layers=2, head_dim=20, rms_norm_eps=1e-6,
    rope_theta=10000000.0, attention_bias=True, attention_out_bias=False, mlp_bias=False, attention_dropout=0.1,
    residual_dropout=0.1, pad_token_id=1,
)
ERNIE4_5 = llama_like(
    "ernie4_5", "Ernie4_5", hidden_size=40, intermediate_size=36, num_hidden_layers=2, head_dim=20, use_bias=True,
    rope_theta=500000.0, tie_word_embeddings=True, pad_token_id=0,
)
# "gelu" stands for the approximation with tanh in the files of this family.
GEMMA = gemma_like("gemma", "Gemma", num_hidden_layers=2, hidden_act="gelu", rope_theta=10000.0, torch_dtype="float32")
GEMMA2 = gemma_like(
    "gemma2", "Gemma2", vocab_size=131, hidden_act="gelu_pytorch_tanh", hidden_activation="gelu_pytorch_tanh",
    rope_theta=10000.0, query_pre_attn_scalar=29, sliding_window=11, attn_logit_softcapping=1.5,
    final_logit_softcapping=4.0, cache_implementation="hybrid",
)
# The factor is for the layers that see everything.
GEMMA3 = gemma3(
    rope_theta=1000000.0, rope_local_base_freq=10000.0, rope_scaling={"factor": 8.0, "rope_type": "linear"},
    sliding_window_pattern=3,
)
GEMMA3_PARAMETERS = newer(
    {
        FULL: {"rope_theta": 1000000.0, "rope_type": "default"},
        SLIDING: {"rope_theta": 10000.0, "rope_type": "default"},
    },
    gemma3(layer_types=[SLIDING, FULL, SLIDING], use_bidirectional_attention=False),
)
PHI3 = llama_like(
    "phi3", "Phi3", num_hidden_layers=2, attention_bias=False, original_max_position_embeddings=256, sliding_window=13,
    rope_scaling=None, pad_token_id=0, embd_pdrop=0.0, resid_pdrop=0.0,
)
PHI3_LONGROPE = llama_like(
    "phi3", "Phi3", hidden_size=40, num_attention_heads=2, num_hidden_layers=2, attention_bias=False,
    max_position_embeddings=128, original_max_position_embeddings=32, partial_rotary_factor=0.6, sliding_window=262144,
    rope_scaling={
        "long_factor": [1.0, 1.3, 2.0, 3.0, 4.0, 6.0], "short_factor": [1.0, 1.05, 1.15, 1.3, 1.5, 2.0], "type": "longrope",
    },
    tie_word_embeddings=True, pad_token_id=0, embd_pdrop=0.0, resid_pdrop=0.0,
)
# A head_dim of its own, so that rows of keys hold two heads: their norm is over the whole row.
OLMO2 = llama_like(
    "olmo2", "Olmo2", intermediate_size=36, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2, head_dim=12,
    rms_norm_eps=1e-6, rope_theta=500000.0, attention_bias=False, pad_token_id=0,
)
OLMO3 = llama_like(
    "olmo3", "Olmo3", hidden_size=24, intermediate_size=36, num_hidden_layers=4, num_attention_heads=2, rms_norm_eps=1e-6,
    rope_theta=500000.0, attention_bias=False, sliding_window=9, layer_types=[SLIDING, SLIDING, SLIDING, FULL],
    rope_scaling={
        "attention_factor": 1.2079441541679836, "beta_fast": 32.0, "beta_slow": 1.0, "factor": 8.0,
        "original_max_position_embeddings": 32, "rope_type": "yarn",
    },
    pad_token_id=0,
)
GLM4 = llama_like(
    "glm4", "Glm4", hidden_size=40, intermediate_size=36, num_hidden_layers=2, head_dim=20, attention_bias=True,
    partial_rotary_factor=0.5, pad_token_id=0, eos_token_id=[2, 5],
)
EXAONE4 = llama_like(
    "exaone4", "Exaone4", hidden_size=24, intermediate_size=36, num_hidden_layers=4, num_attention_heads=2, head_dim=20,
    rope_theta=1000000.0, sliding_window=9, sliding_window_pattern="LLLG", layer_types=[SLIDING, SLIDING, SLIDING, FULL],
    pad_token_id=0,
)

def layer_norm_like(model_type, name, eps="layer_norm_eps", **keys):
    """Families with layer norms; `eps` is what they call what is added to the variance."""
    plain = config(model_type, name, **{"rope_theta": 10000.0, **keys})
    value = plain.pop("rms_norm_eps")
    return {**plain, eps: value}


def without(config, *keys):
    return {key: value for key, value in config.items() if key not in keys}


STARCODER2 = layer_norm_like(
    "starcoder2", "Starcoder2", eps="norm_epsilon", num_hidden_layers=2, hidden_act="gelu_pytorch_tanh", use_bias=True,
    sliding_window=13, tie_word_embeddings=True, mlp_type="default", norm_type="layer_norm",
)
NEMOTRON = layer_norm_like(
    "nemotron", "Nemotron", eps="norm_eps", hidden_size=40, num_attention_heads=2, num_hidden_layers=2, head_dim=24,
    hidden_act="relu2", partial_rotary_factor=0.5, attention_bias=False, mlp_bias=False,
)
STABLELM = layer_norm_like(
    "stablelm", "StableLm", num_hidden_layers=2, hidden_size=48, hidden_act="silu", partial_rotary_factor=0.25,
    use_qkv_bias=True, qk_layernorm=False, use_parallel_residual=False,
)
STABLELM_PARALLEL = layer_norm_like(
    "stablelm", "StableLm", num_hidden_layers=2, hidden_size=48, hidden_act="silu", partial_rotary_factor=0.25,
    use_qkv_bias=False, qk_layernorm=False, use_parallel_residual=True,
)
# Two heads of keys, so that they differ.
STABLELM_QK_NORM = layer_norm_like(
    "stablelm", "StableLm", num_hidden_layers=2, hidden_size=48, num_attention_heads=4, num_key_value_heads=2,
    hidden_act="silu", partial_rotary_factor=0.5, use_qkv_bias=False, qk_layernorm=True, use_parallel_residual=True,
)
COHERE2 = layer_norm_like(
    "cohere2", "Cohere2", hidden_act="silu", num_hidden_layers=4, hidden_size=40, num_attention_heads=2,
    attention_bias=False, logit_scale=0.6, sliding_window=9, sliding_window_pattern=4, tie_word_embeddings=True,
    pad_token_id=0,
)
PHI = without(
    layer_norm_like(
        "phi", "Phi", num_hidden_layers=2, hidden_size=40, num_attention_heads=2, hidden_act="gelu_new",
        partial_rotary_factor=0.4, qk_layernorm=False, embd_pdrop=0.0, resid_pdrop=0.0,
    ),
    "num_key_value_heads",
)
GPT_NEOX = without(
    layer_norm_like(
        "gpt_neox", "GPTNeoX", num_hidden_layers=2, hidden_size=48, hidden_act="gelu", rotary_pct=0.25, rotary_emb_base=1000,
        use_parallel_residual=True, attention_bias=True,
    ),
    "num_key_value_heads", "rope_theta",
)
GPT_NEOX_SEQUENTIAL = newer(
    {"rope_theta": 10000.0, "rope_type": "default", "partial_rotary_factor": 0.5},
    {**without(GPT_NEOX, "rotary_pct", "rotary_emb_base"), "use_parallel_residual": False, "attention_bias": False},
)


def falcon(**keys):
    plain = layer_norm_like("falcon", "Falcon", eps="layer_norm_epsilon", num_hidden_layers=2, **{"alibi": False, **keys})
    return without(plain, "num_key_value_heads", "intermediate_size")


FALCON = falcon(multi_query=True, new_decoder_architecture=False, parallel_attn=True, bias=False, tie_word_embeddings=True)
FALCON_NEW = falcon(
    hidden_size=48, num_attention_heads=4, num_kv_heads=2, ffn_hidden_size=52, new_decoder_architecture=True, bias=False,
)
FALCON_ONE_NORM = falcon(
    hidden_size=48, num_attention_heads=4, num_kv_heads=2, new_decoder_architecture=True, num_ln_in_parallel_attn=1, bias=True,
)
FALCON_SEQUENTIAL = falcon(multi_query=False, parallel_attn=False, bias=True)
# Windows with positions that bf16 does not have: 256 and more.
FALCON_ALIBI = falcon(multi_query=False, parallel_attn=False, bias=True, alibi=True, max_position_embeddings=512)
BAICHUAN = without(
    llama_like(
        "baichuan", "Baichuan", num_hidden_layers=2, rms_norm_eps=1e-6, model_max_length=256, norm_head=True, pad_token_id=0,
        z_loss_weight=0, tokenizer_class="BaichuanTokenizer",
    ),
    "num_key_value_heads", "rope_theta",
)
# Five heads, which are no power of two.
BAICHUAN_ALIBI = without(
    {**BAICHUAN, "hidden_size": 40, "num_attention_heads": 5, "gradient_checkpointing": False}, "max_position_embeddings"
)

GPT2 = {
    "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new", "attn_pdrop": 0.1,
    "bos_token_id": 100, "embd_pdrop": 0.1, "eos_token_id": 100, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05,
    "n_ctx": 64, "n_embd": 36, "n_head": 3, "n_layer": 2, "n_positions": 64, "resid_pdrop": 0.1, "summary_activation": None,
    "summary_first_dropout": 0.1, "summary_proj_to_labels": True, "summary_type": "cls_index", "summary_use_proj": True,
    "torch_dtype": "float32", "vocab_size": 101,
}
GPT2_INNER = {
    **GPT2, "activation_function": "gelu", "n_embd": 40, "n_head": 2, "n_inner": 44, "n_layer": 3,
    "reorder_and_upcast_attn": True, "scale_attn_by_inverse_layer_idx": True, "scale_attn_weights": False,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}


def opt(**keys):
    plain = config(
        "opt", "OPT", ffn_dim=44, max_position_embeddings=64, num_hidden_layers=2, activation_function="relu", dropout=0.1,
        do_layer_norm_before=True, _remove_final_layer_norm=False, word_embed_proj_dim=36, bos_token_id=2, pad_token_id=1,
        **keys,
    )
    return without(plain, "intermediate_size", "num_key_value_heads", "rms_norm_eps", "tie_word_embeddings")


OPT = opt()
# More positions than are looked up at a time.
OPT_LONG = {
    **opt(enable_bias=False, torch_dtype="float16"), "activation_function": "gelu", "hidden_size": 24, "num_attention_heads": 2,
    "word_embed_proj_dim": 24, "max_position_embeddings": 1100, "tie_word_embeddings": False,
}

# name -> what make_fixtures.make_folder takes.
FOLDERS = {
    "mistral": dict(config=MISTRAL, window=43, windows=2, greedy=3),
    "ministral": dict(config=MINISTRAL, window=43, windows=2, greedy=3),
    "qwen2-sliding": dict(config=QWEN2_SLIDING, window=43, windows=2, greedy=3),
    "qwen3": dict(config=QWEN3, window=43, windows=2, greedy=3),
    "smollm3": dict(config=SMOLLM3, window=43, windows=2, greedy=3),
    "granite": dict(config=GRANITE, window=43, windows=2, greedy=3, seed=1),
    "seed-oss": dict(config=SEED_OSS, window=43, windows=2, greedy=3),
    "ernie4-5": dict(config=ERNIE4_5, window=65, windows=2, greedy=3),
    "gemma": dict(config=GEMMA, window=43, windows=2, greedy=3),
    "gemma2": dict(config=GEMMA2, window=43, windows=2, greedy=3),
    "gemma3": dict(config=GEMMA3, window=43, windows=2, greedy=3),
    "gemma3-parameters": dict(config=GEMMA3_PARAMETERS, window=43, windows=2, greedy=3),
    "phi3": dict(config=PHI3, window=43, windows=2, greedy=3),
    "phi3-longrope": dict(config=PHI3_LONGROPE, window=65, windows=2, greedy=3),
    "olmo2": dict(config=OLMO2, window=43, windows=2, greedy=3),
    "olmo3": dict(config=OLMO3, window=65, windows=2, greedy=3),
    "glm4": dict(config=GLM4, window=65, windows=2, greedy=3),
    "exaone4": dict(config=EXAONE4, window=43, windows=2, greedy=3),
    "starcoder2": dict(config=STARCODER2, window=43, windows=2, greedy=3),
    "nemotron": dict(config=NEMOTRON, window=43, windows=2, greedy=3),
    "stablelm": dict(config=STABLELM, window=43, windows=2, greedy=3),
    "stablelm-parallel": dict(config=STABLELM_PARALLEL, window=43, windows=2, greedy=3),
    "stablelm-qk-norm": dict(config=STABLELM_QK_NORM, window=43, windows=2, greedy=3),
    "cohere2": dict(config=COHERE2, window=43, windows=2, greedy=3),
    "phi": dict(config=PHI, window=43, windows=2, greedy=3),
    "gpt-neox": dict(config=GPT_NEOX, window=43, windows=2, greedy=3),
    "gpt-neox-sequential": dict(config=GPT_NEOX_SEQUENTIAL, window=43, windows=2, greedy=3),
    "falcon": dict(config=FALCON, window=43, windows=2, greedy=3),
    "falcon-new": dict(config=FALCON_NEW, window=43, windows=2, greedy=3),
    "falcon-one-norm": dict(config=FALCON_ONE_NORM, window=43, windows=2, greedy=3),
    "falcon-sequential": dict(config=FALCON_SEQUENTIAL, window=43, windows=2, greedy=3),
    "baichuan": dict(config=BAICHUAN, window=43, windows=2, greedy=3),
    "baichuan-alibi": dict(config=BAICHUAN_ALIBI, window=65, windows=2, greedy=3),
    "falcon-alibi": dict(config=FALCON_ALIBI, window=300, windows=1, greedy=3),
    "gpt2": dict(config=GPT2, window=43, windows=2, greedy=3),
    "gpt2-inner": dict(config=GPT2_INNER, window=43, windows=2, greedy=3),
    "opt": dict(config=OPT, window=43, windows=2, greedy=3),
    "opt-long": dict(config=OPT_LONG, window=1100, windows=1, greedy=0),
}


# Models of images and text, whose text model is read. `published` writes the names of tensors that transformers renames when it
# loads them, as files on the hub have them.
PROJECTED = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
IMAGES = {**PROJECTED, "image_size": 28, "patch_size": 14}


def composite(model_type, name, text, vision, **keys):
    """`text` without what stands at the top."""
    return {
        "architectures": [f"{name}ForConditionalGeneration"],
        "model_type": model_type,
        "text_config": without(text, "architectures", "tie_word_embeddings", "torch_dtype"),
        "torch_dtype": text["torch_dtype"],
        "vision_config": {**IMAGES, **vision},
        **keys,
    }


LLAVA = composite(
    "llava", "Llava", llama_like("llama", "Llama", num_hidden_layers=2), {"model_type": "clip_vision_model", "projection_dim": 8},
    image_token_index=99, projector_hidden_act="gelu", vision_feature_layer=-1, vision_feature_select_strategy="default",
)
GEMMA3_IMAGES = composite(
    "gemma3", "Gemma3", GEMMA3, {"model_type": "siglip_vision_model"}, image_token_index=99, boi_token_index=97,
    eoi_token_index=98, mm_tokens_per_image=4, eos_token_id=[1, 7],
)
MISTRAL3 = composite(
    "mistral3", "Mistral3", {**MISTRAL, "sliding_window": None}, {"model_type": "pixtral", "head_dim": 8}, image_token_index=99,
    multimodal_projector_bias=False, projector_hidden_act="gelu", spatial_merge_size=2, vision_feature_layer=-1,
    tie_word_embeddings=False,
)

COMPOSITES = {
    "llava": dict(config=LLAVA, window=43, windows=2, greedy=3, published=True),
    "gemma3-images": dict(config=GEMMA3_IMAGES, window=43, windows=2, greedy=3, published=True),
    "mistral3": dict(config=MISTRAL3, window=43, windows=2, greedy=3),
}
