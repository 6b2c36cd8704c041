"""GGUF fixtures of other families than Llama and Qwen2: what llama.cpp's converter makes of a small Hugging Face model.

The weights are random under their Hugging Face names, as in the other fixtures, rounded to the types that the file stores
them in; transformers computes the truth from them. For the file they are renamed, put in order and shifted as llama.cpp's
`conversion/` does it, with the keys that it writes. Configurations are such as the format can hold: what it has no key for
has the value that llama.cpp assumes. check_llama_cpp.py shows that llama.cpp computes the same from these files.
"""

import gguf
import numpy
import torch
from gguf import GGMLQuantizationType as Type

import family_fixtures as families
import gguf_fixtures

# `general.architecture`, where it is not the `model_type`.
ARCHITECTURES = {
    "mistral": "mistral3", "gemma3_text": "gemma3", "olmo3": "olmo2", "phi": "phi2", "gpt_neox": "gptneox",
    # Q, K and V of Baichuan are apart in a file, and nothing else is different in the 7B.
    "llama": "baichuan",
}  # fmt: skip
# Rows of Q and K are put into the order of neighbouring elements.
PERMUTED = ("baichuan", "mistral3", "granite", "smollm3")
# Norms get 1 added.
SHIFTED = ("gemma", "gemma2", "gemma3", "nemotron")
# Matrices are transposed.
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
# Their parameters are written one by one, not as those of most.
OWN_PARAMETERS = ("gemma", "gemma2", "phi3", "phi2", "gptneox", "falcon", "stablelm", "gpt2")

TYPES = [Type.F16, Type.Q8_0, Type.F32]


def small(config, *left_out, **keys):
    """A family's configuration with sizes that fill blocks of 32."""
    sizes = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "vocab_size": gguf_fixtures.VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
        "torch_dtype": "float32",
    }
    known = {key: value for key, value in sizes.items() if key in config or key.endswith("_token_id")}
    return {key: value for key, value in {**config, **known, **keys}.items() if key not in left_out}


FULL, SLIDING = families.FULL, families.SLIDING
FALCON = dict(hidden_size=32, max_position_embeddings=2048)
# By the names that other families have, which its configuration takes, too.
GPT2 = dict(hidden_size=32, num_attention_heads=2, num_hidden_layers=2, max_position_embeddings=64)

# name -> configuration, and what else make_fixtures.make_gguf takes.
FILES = {
    "gguf-mistral": small(families.MISTRAL, head_dim=32, sliding_window=None),
    "gguf-qwen3": small(families.QWEN3, head_dim=32),
    "gguf-smollm3": small(
        families.SMOLLM3, "no_rope_layers", "layer_types", num_hidden_layers=4, intermediate_size=32, no_rope_layer_interval=4
    ),
    "gguf-granite": small(families.GRANITE),
    "gguf-seed-oss": small(families.SEED_OSS, head_dim=32),
    "gguf-ernie4-5": small(families.ERNIE4_5, head_dim=32, use_bias=False),
    "gguf-gemma": small(families.GEMMA, head_dim=32),
    "gguf-gemma2": small(families.GEMMA2, head_dim=32, query_pre_attn_scalar=32, num_hidden_layers=3, intermediate_size=32),
    "gguf-gemma3": small(
        families.GEMMA3, head_dim=16, query_pre_attn_scalar=16, num_hidden_layers=6, intermediate_size=32,
        sliding_window_pattern=6,
    ),
    "gguf-phi3": small(families.PHI3),
    "gguf-phi3-longrope": small(families.PHI3_LONGROPE, partial_rotary_factor=0.75),
    "gguf-olmo2": small(families.OLMO2, "head_dim"),
    "gguf-olmo3": small(families.OLMO3, num_hidden_layers=4, intermediate_size=32),
    "gguf-glm4": small(families.GLM4, head_dim=32),
    "gguf-exaone4": small(
        families.EXAONE4, "sliding_window_pattern", "head_dim", sliding_window=None, layer_types=[FULL, FULL]
    ),
    "gguf-exaone4-sliding": small(families.EXAONE4, num_hidden_layers=4, intermediate_size=32, head_dim=16),
    "gguf-starcoder2": small(families.STARCODER2, sliding_window=None),
    "gguf-nemotron": small(families.NEMOTRON, "head_dim"),
    "gguf-stablelm": small(families.STABLELM),
    "gguf-stablelm-parallel": small(families.STABLELM_PARALLEL),
    "gguf-stablelm-qk-norm": small(families.STABLELM_QK_NORM, num_attention_heads=4, num_key_value_heads=2),
    "gguf-cohere2": small(families.COHERE2, num_hidden_layers=4, intermediate_size=32, rotary_pct=1.0),
    "gguf-phi": small(families.PHI, intermediate_size=128, partial_rotary_factor=0.5),
    "gguf-gpt-neox": small(families.GPT_NEOX, rotary_emb_base=10000),
    "gguf-gpt-neox-sequential": small(
        families.GPT_NEOX, rotary_emb_base=10000, rotary_pct=0.5, use_parallel_residual=False
    ),
    "gguf-falcon": small(families.FALCON, **FALCON),
    "gguf-falcon-new": small(families.FALCON_NEW, "ffn_hidden_size", **FALCON, num_attention_heads=4),
    # So many layers tell llama.cpp that it is a 7B.
    "gguf-baichuan": small(
        families.llama_like("llama", "Llama"), num_hidden_layers=32, num_key_value_heads=2, intermediate_size=32
    ),
    "gguf-gpt2": {
        **families.without(families.GPT2, "n_ctx", "n_embd", "n_head", "n_layer", "n_positions"), **GPT2, "bos_token_id": 1,
        "eos_token_id": 2, "vocab_size": gguf_fixtures.VOCABULARY,
    },
    "gguf-falcon-one-norm": small(families.FALCON_ONE_NORM, **FALCON, num_attention_heads=4, bias=False),
}  # fmt: skip
# A seed that tells the blocks apart, where the usual one does not.
SEEDS = {"gguf-mistral": 2}
FIXTURES = {name: dict(config=config, seed=SEEDS.get(name, 1), window=43) for name, config in FILES.items()}
FIXTURES["gguf-phi3-longrope"]["window"] = 65
FIXTURES["gguf-olmo3"]["window"] = 65
# Of so many blocks, no search.
FIXTURES["gguf-baichuan"]["greedy"] = 0


def architecture(config):
    return ARCHITECTURES.get(config["model_type"], config["model_type"])


def stored_types(tensors, types):
    """The types in which a file stores tensors: vectors and positions as F32, matrices by turns."""
    matrices = [name for name, values in tensors.items() if values.ndim > 1 and not name.endswith("wpe.weight")]
    return dict.fromkeys(tensors, Type.F32) | {name: types[i % len(types)] for i, name in enumerate(matrices)}


def rounded(name, types=TYPES):
    """The tensors of a fixture under their Hugging Face names, as far as their stored types can hold them."""
    import make_fixtures

    spec = FIXTURES[name]
    drawn = make_fixtures.random_tensors(spec["config"], spec["seed"])
    tensors = {name: values.numpy() for name, values in drawn.items()}
    by_name = stored_types(tensors, types)

    def through(name, values):
        stored, type = transposed(spec["config"], name, values), by_name[name]
        back = gguf.quants.dequantize(gguf.quants.quantize(stored, type), type).reshape(stored.shape).astype(numpy.float32)
        return transposed(spec["config"], name, back)

    return {name: through(name, values) for name, values in tensors.items()}, by_name


def transposed(config, name, values):
    """The matrix that a file stores, of a matrix that a checkpoint does, and the other way round."""
    is_transposed = architecture(config) == "gpt2" and name.endswith(TRANSPOSED)
    return numpy.ascontiguousarray(values.T) if is_transposed else values


def load_model(name, attention="eager", types=TYPES):
    """The Hugging Face model that a fixture holds."""
    import transformers

    config = transformers.AutoConfig.for_model(**FIXTURES[name]["config"])
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=torch.float32)
    tensors, _ = rounded(name, types)
    state = {key.replace("embed_out", "lm_head"): torch.from_numpy(values.copy()) for key, values in tensors.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or any(key != "lm_head.weight" for key in missing):
        raise SystemExit(f"{name}: {missing} are missing, {unexpected} unexpected")
    model.tie_weights()
    return model.eval()


def converted(config, name, values):
    """What the converter makes of a tensor's values."""
    arch = architecture(config)
    heads = config["num_attention_heads"]
    if arch in SHIFTED and name.endswith("norm.weight"):
        return values + 1
    if arch in PERMUTED and ("q_proj" in name or "k_proj" in name):
        count = heads if "q_proj" in name else config["num_key_value_heads"]
        return values.reshape(count, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
    if "query_key_value" in name:
        groups = config.get("num_kv_heads", 1) if arch == "falcon" else heads
        width = config["hidden_size"] // heads
        parts = values.reshape(groups, heads // groups + 2, width, *values.shape[1:])
        queries, keys, value_heads = parts[:, :-2], parts[:, -2], parts[:, -1]
        return numpy.concatenate([part.reshape(-1, *values.shape[1:]) for part in (queries, keys, value_heads)])
    return transposed(config, name, values)


def stacked(tensors):
    """The norms of a layer's heads as rows of one matrix, which follows the other tensors."""
    found, heads = {}, {}
    for name, values in tensors.items():
        module, norms, head = name.partition("_layernorm.norms.")
        if norms:
            heads.setdefault(f"{module}_layernorm.weight", {})[int(head.removesuffix(".weight"))] = values
        else:
            found[name] = values
    return found | {name: numpy.stack([rows[head] for head in sorted(rows)]) for name, rows in heads.items()}


def write(path, name, types=TYPES):
    config = FIXTURES[name]["config"]
    arch = architecture(config)
    writer = gguf.GGUFWriter(path, arch)
    # By some names llama.cpp expects the tokens of the published models.
    writer.add_name("small")
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
    add |= {str: writer.add_string, list: writer.add_array}
    for key, value in parameters(config).items():
        add[type(value)](f"{arch}.{key}", value)
    gguf_fixtures.write_tokenizer(writer, arch)
    number = next(number for number, known in gguf.MODEL_ARCH_NAMES.items() if known == arch)
    names = gguf.get_tensor_name_map(number, config["num_hidden_layers"])
    tensors, by_name = rounded(name, types)
    for hf_name, values in stacked(tensors).items():
        new = names.get_name(hf_name, try_suffixes=(".weight", ".bias"))
        if new is None:
            raise SystemExit(f"{name}: GGUF has no name for {hf_name}")
        kind = by_name.get(hf_name, Type.F32)
        values = numpy.ascontiguousarray(converted(config, hf_name, values))
        writer.add_tensor(new, gguf.quants.quantize(values, kind), raw_dtype=kind)
    for new, factors in rope_factors(config).items():
        writer.add_tensor(new, numpy.array(factors, dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def rope_factors(config):
    scaling = config.get("rope_scaling") or {}
    if "long_factor" not in scaling:
        return {}
    return {f"rope_factors_{length}.weight": scaling[f"{length}_factor"] for length in ("long", "short")}


def parameters(config):
    """The metadata, after the architecture's name, as the converter writes them."""
    arch = architecture(config)
    get = config.get
    width, heads = config["hidden_size"], config["num_attention_heads"]
    head = get("head_dim") or width // heads
    inner = get("intermediate_size", 4 * width)
    found = {
        "block_count": config["num_hidden_layers"], "context_length": config["max_position_embeddings"],
        "embedding_length": width, "feed_forward_length": inner, "attention.head_count": heads,
    }  # fmt: skip
    if arch in (*PERMUTED, "exaone4", "nemotron", "cohere2"):
        found["vocab_size"] = config["vocab_size"]
    epsilon = get("layer_norm_eps") or get("layer_norm_epsilon") or get("norm_epsilon") or get("norm_eps")
    if epsilon:
        found["attention.layer_norm_epsilon"] = epsilon
    if get("rms_norm_eps") or get("norm_eps"):
        found["attention.layer_norm_rms_epsilon"] = get("rms_norm_eps") or config["norm_eps"]
    kv_heads = get("num_key_value_heads") or {"falcon": get("num_kv_heads", 1), "phi2": heads}.get(arch)
    if kv_heads:
        found["attention.head_count_kv"] = kv_heads
    if get("head_dim") or arch in ("nemotron", "cohere2"):
        found |= {"attention.key_length": head, "attention.value_length": head}
    share = get("partial_rotary_factor") or get("rotary_pct")
    if share:
        found["rope.dimension_count"] = int(share * head)
    if arch in PERMUTED:
        found["rope.dimension_count"] = head
    if arch not in OWN_PARAMETERS or arch == "phi3":
        if get("rope_theta"):
            found["rope.freq_base"] = config["rope_theta"]
    scaling = get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind in ("linear", "yarn"):
        found |= {"rope.scaling.type": kind, "rope.scaling.factor": scaling["factor"]}
    if kind == "yarn":
        found |= {
            "rope.scaling.original_context_length": scaling["original_max_position_embeddings"],
            "rope.scaling.yarn_attn_factor": scaling["attention_factor"],
            "rope.scaling.yarn_beta_fast": scaling["beta_fast"], "rope.scaling.yarn_beta_slow": scaling["beta_slow"],
        }  # fmt: skip
    if arch == "phi3":
        original = config["original_max_position_embeddings"]
        found["rope.scaling.original_context_length"] = original
        found["attention.sliding_window"] = get("sliding_window") or 0
        ratio = config["max_position_embeddings"] / original
        if kind == "longrope":
            found["rope.scaling.attn_factor"] = float(numpy.sqrt(1 + numpy.log(ratio) / numpy.log(original)))
        else:
            found["rope.dimension_count"] = head
    if arch in ("gemma2", "gemma3", "cohere2") or (arch in ("olmo2", "exaone4") and get("sliding_window")):
        found["attention.sliding_window"] = config["sliding_window"]
    if arch in ("olmo2", "exaone4") and get("sliding_window"):
        found["attention.sliding_window_pattern"] = [kind == SLIDING for kind in config["layer_types"]]
    sliding_base = config["rope_theta"] if config["model_type"] == "olmo3" else get("rope_local_base_freq")
    if sliding_base:
        found["rope.freq_base_swa"] = sliding_base
    if arch in ("nemotron", "cohere2"):
        found["rope.scaling.type"] = "none"
    if arch in ("gptneox", "stablelm"):
        found["use_parallel_residual"] = config["use_parallel_residual"]
    if arch == "falcon":
        found["tensor_data_layout"] = "jploski"
    names = {
        "attn_logit_softcapping": "attn_logit_softcapping", "final_logit_softcapping": "final_logit_softcapping",
        "logit_scale": "logit_scale", "logits_scaling": "logit_scale", "attention_multiplier": "attention.scale",
        "embedding_multiplier": "embedding_scale", "residual_multiplier": "residual_scale",
    }  # fmt: skip
    found |= {new: config[old] for old, new in names.items() if get(old)}
    return found
