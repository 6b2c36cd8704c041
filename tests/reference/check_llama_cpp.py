"""Runs the GGUF fixtures of gguf_families.py in llama.cpp and compares its logits with those of transformers.

    python tests/reference/check_llama_cpp.py DIR [NAME ...]

DIR holds llama.cpp's libraries, as for llama_cpp_ids.py; the layout of `llama_context_params` below is that of the same
version. llama.cpp multiplies weights that are not F32 with rounded activations, so each fixture is written anew with F32
weights. Its first window is compared, or as much of it as llama.cpp computes as the model was trained. llama.cpp reads GELU
from a table of f16, which is why models with it are further off.
"""

import ctypes
import json
import pathlib
import sys
import tempfile

import numpy
import torch
from gguf import GGMLQuantizationType as Type

import gguf_families
import model_io
from llama_cpp_ids import Llama

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "fixtures"
TOLERANCE, GELU_TOLERANCE = 1e-4, 1e-2
CONTEXT = 128
# Tokens that are compared, where llama.cpp leaves Phi-3's window out.
COMPARED = {"gguf-phi3": 13}
# It knows by their number that layers of EXAONE 4 slide.
LAYERS = {"gguf-exaone4-sliding": 64}


class ContextParams(ctypes.Structure):
    _fields_ = [
        ("n_ctx", ctypes.c_uint32), ("sizes", ctypes.c_uint32 * 6),
        ("n_threads", ctypes.c_int32), ("n_threads_batch", ctypes.c_int32), ("types", ctypes.c_int32 * 4),
        ("flash_attention", ctypes.c_int32),
        ("rope", ctypes.c_float * 8), ("callback", ctypes.c_void_p * 2),
        ("type_k", ctypes.c_int32), ("type_v", ctypes.c_int32),
        ("behind", ctypes.c_uint8 * 48),
    ]  # fmt: skip


class Batch(ctypes.Structure):
    _fields_ = [("n_tokens", ctypes.c_int32)] + [
        (name, ctypes.c_void_p) for name in ("token", "embd", "pos", "n_seq_id", "seq_id", "logits")
    ]


class Runner(Llama):
    def __init__(self, folder):
        super().__init__(folder)
        library = self.library
        library.llama_context_default_params.restype = ContextParams
        library.llama_init_from_model.restype = ctypes.c_void_p
        library.llama_init_from_model.argtypes = [ctypes.c_void_p, ContextParams]
        library.llama_vocab_n_tokens.argtypes = library.llama_model_n_layer.argtypes = [ctypes.c_void_p]
        library.llama_batch_init.restype = Batch
        library.llama_batch_free.argtypes = [Batch]
        library.llama_decode.argtypes = [ctypes.c_void_p, Batch]
        library.llama_get_logits.restype = ctypes.POINTER(ctypes.c_float)
        library.llama_get_logits.argtypes = [ctypes.c_void_p]
        library.llama_get_memory.restype = ctypes.c_void_p
        library.llama_get_memory.argtypes = [ctypes.c_void_p]
        library.llama_memory_clear.argtypes = [ctypes.c_void_p, ctypes.c_bool]
        library.llama_free.argtypes = library.llama_model_free.argtypes = [ctypes.c_void_p]
        # Of the kernels that come for this kind of processor, the best that it can run.
        library.ggml_backend_load_all_from_path(str(folder).encode())

    def logits(self, path, ids):
        """Of one window, [tokens, vocabulary]."""
        with Model(self, path) as model:
            return model.logits(ids)


class Model:
    """A file that llama.cpp has loaded; unless `exact`, keys and values are kept as llama.cpp does by itself."""

    def __init__(self, runner, path, context=CONTEXT, threads=1, exact=True):
        library = self.library = runner.library
        self.path = path
        self.model = library.llama_model_load_from_file(str(path).encode(), library.llama_model_default_params())
        if not self.model:
            raise SystemExit(f"llama.cpp does not load {path}")
        params = library.llama_context_default_params()
        params.n_ctx, params.n_threads, params.n_threads_batch = context, threads, threads
        if exact:
            params.flash_attention = params.type_k = params.type_v = 0  # none, F32
        self.context = library.llama_init_from_model(self.model, params)
        if not self.context:
            raise SystemExit(f"llama.cpp makes no context for {path}")
        self.layers = library.llama_model_n_layer(self.model)
        self.vocabulary = library.llama_vocab_n_tokens(library.llama_model_get_vocab(self.model))

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.library.llama_free(self.context)
        self.library.llama_model_free(self.model)

    def clear(self):
        """Forgets the tokens before."""
        self.library.llama_memory_clear(self.library.llama_get_memory(self.context), True)

    def decode(self, ids, position, wanted):
        """Runs tokens that stand at `position`; gives the logits of the last `wanted` of them, [wanted, vocabulary]."""
        library = self.library
        batch = library.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        fill(batch.token, ctypes.c_int32, ids)
        fill(batch.pos, ctypes.c_int32, range(position, position + len(ids)))
        fill(batch.n_seq_id, ctypes.c_int32, [1] * len(ids))
        fill(batch.logits, ctypes.c_int8, [index >= len(ids) - wanted for index in range(len(ids))])
        for pointer in (ctypes.c_void_p * len(ids)).from_address(batch.seq_id):
            fill(pointer, ctypes.c_int32, [0])
        failed = library.llama_decode(self.context, batch)
        library.llama_batch_free(batch)
        if failed:
            raise SystemExit(f"llama.cpp does not run {self.path}")
        return numpy.ctypeslib.as_array(library.llama_get_logits(self.context), (wanted, self.vocabulary)).copy()

    def logits(self, ids):
        self.clear()
        return self.decode(ids, 0, len(ids))

    def perplexity(self, windows):
        """The exponential of the mean over windows of the mean loss of what follows each token."""
        means = []
        for ids in windows:
            logits = self.logits(ids)[:-1].astype(numpy.float64)
            shifted = logits - logits.max(axis=1, keepdims=True)
            losses = numpy.log(numpy.exp(shifted).sum(axis=1)) - shifted[numpy.arange(len(ids) - 1), ids[1:]]
            means.append(losses.mean())
        return float(numpy.exp(numpy.mean(means)))


def fill(place, kind, values):
    ctypes.memmove(place, (kind * len(values))(*values), ctypes.sizeof(kind) * len(values))


def tolerance(config):
    """What of llama.cpp's results may be off, by the model's config.json."""
    keys = ("hidden_act", "hidden_activation", "activation", "activation_function")
    gelu = config["model_type"] == "falcon" or any("gelu" in str(config.get(key, "")) for key in keys)
    return GELU_TOLERANCE if gelu else TOLERANCE


def compare(runner, name):
    """The largest difference of a logit, and the largest logit."""
    reference = json.loads((FIXTURES / name / "reference.json").read_text(encoding="utf-8"))
    ids = reference["ids"][: reference["window"]][: COMPARED.get(name)]
    if name in LAYERS:
        config = gguf_families.FIXTURES[name]["config"]
        types = config["layer_types"] * (LAYERS[name] // config["num_hidden_layers"])
        config |= {"num_hidden_layers": LAYERS[name], "layer_types": types}
    expected = gguf_families.load_model(name, types=[Type.F32])(torch.tensor([ids])).logits[0].numpy()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.gguf"
        gguf_families.write(path, name, types=[Type.F32])
        found = runner.logits(path, ids)
    return float(numpy.abs(found - expected).max()), float(numpy.abs(expected).max()), len(ids)


def main():
    model_io.quiet_and_deterministic()
    runner = Runner(pathlib.Path(sys.argv[1]))
    failed = []
    for name in sys.argv[2:] or gguf_families.FIXTURES:
        difference, largest, tokens = compare(runner, name)
        print(f"{name:26} {tokens} tokens, logits up to {largest:.2f} differ by {difference:.1e}", flush=True)
        if not difference <= tolerance(gguf_families.FIXTURES[name]["config"]):
            failed.append(name)
    if failed:
        raise SystemExit(f"too far from transformers: {', '.join(failed)}")


if __name__ == "__main__":
    main()
