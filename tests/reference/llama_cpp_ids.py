"""Token ids of llama.cpp's own tokenizer for tests/tests/llama_cpp.rs: byte-level BPE by every name of
`tokenizer.ggml.pre`, and SentencePiece BPE.

    python tests/reference/llama_cpp_ids.py DIR > tests/reference/llama_cpp_ids.json

DIR holds llama.cpp's libraries, for example `bins/linux-x64` of the npm package @node-llama-cpp/linux-x64 3.22.1
(llama.cpp v0.5.0); the layout of `llama_model_params` below is that version's. The byte-level vocabulary is trained without
splitting into words, so that its tokens cross every boundary that a pre-tokenizer draws. Names with the same ids share a
group; where a group's ids are those of the first, null stands for them.
"""

import ctypes
import io
import json
import pathlib
import sys
import tempfile

import gguf
import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2

import awkward

SAMPLE = pathlib.Path(__file__).resolve().parents[2] / "assets/tiny/calibration.txt"
# What `tokenizer.ggml.pre` may be, but for what only encoders and vocabularies that are not byte-level have.
NAMES = """
gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de gigachat a.x-4.0 mellum modern-bert exaone4 mpt olmo jais trillion granite-docling
starcoder refact command-r smollm codeshell exaone minerva-7b mellum2
llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano dbrx smaug-bpe glm4 chatglm-bpe jais-2 minicpm5
qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2 qwen35 ufakzeka laguna
deepseek-llm deepseek-coder deepseek-v3 hunyuan-dense joyai-llm hy_v4 spark2_5 youtu afmoe
tekken gpt-4o llama4 kanana2 talkie minimax-m2 granite-embed-multi-97m tiny_aya cohere2moe
falcon poro-chat bloom gpt3-finnish viking chameleon superbpe bailingmoe bailingmoe2 llada-moe seed-coder exaone-moe kimi-k2 default
""".split()
# The last is no control token by its type, but by its name.
SPECIAL = {"<|bos|>": 3, "<|end|>": 3, "<|user|>": 4, "<|im_end|>": 1}
SPECIAL_TEXTS = ["a<|end|>b <|user|> c<|bos|>", "<|user|>\n\n<|end|>", " <|end|> x<|im_end|>y"]
# Tokens that no merge builds: only a pre-tokenizer that takes whole words finds them.
WHOLE = ["quick", "\u0120quick", "fox"]


class ModelParams(ctypes.Structure):
    _fields_ = [("before", ctypes.c_uint8 * 72), ("vocab_only", ctypes.c_bool), ("behind", ctypes.c_uint8 * 87)]


class Llama:
    def __init__(self, folder):
        for name in ("libggml-base", "libggml", "libllama"):
            [path] = [path for path in folder.glob("*.so") if path.name.split(".")[0] == name]
            self.library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        self.library.llama_model_default_params.restype = ModelParams
        self.library.llama_model_load_from_file.restype = ctypes.c_void_p
        self.library.llama_model_load_from_file.argtypes = [ctypes.c_char_p, ModelParams]
        self.library.llama_model_get_vocab.restype = ctypes.c_void_p
        self.library.llama_model_get_vocab.argtypes = [ctypes.c_void_p]
        self.library.llama_tokenize.argtypes = [
            ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32, ctypes.c_bool, ctypes.c_bool,
        ]
        quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
        self.quiet = quiet
        self.library.llama_log_set(quiet, None)
        self.library.llama_backend_init()

    def ids(self, path, texts):
        params = self.library.llama_model_default_params()
        params.vocab_only = True
        model = self.library.llama_model_load_from_file(str(path).encode(), params)
        if not model:
            raise SystemExit(f"llama.cpp does not load {path}")
        vocab = self.library.llama_model_get_vocab(model)
        for text in texts:
            text = text.encode()
            room = (ctypes.c_int32 * (len(text) + 16))()
            count = self.library.llama_tokenize(vocab, text, len(text), room, len(room), True, True)
            yield list(room[:count])


def write(path, kind, tokens, types, **more):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(kind)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    for name, value in more.items():
        getattr(writer, f"add_{name}")(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def byte_level(texts):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=1000, min_frequency=2, special_tokens=list(SPECIAL), max_token_length=12, show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts * 2, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get) + WHOLE
    return tokens, [SPECIAL.get(token, 1) for token in tokens], [" ".join(merge) for merge in model["merges"]]


def sentence_piece():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SAMPLE.read_text(encoding="utf-8").split("\n")), model_writer=model, vocab_size=600,
        model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        character_coverage=1.0, user_defined_symbols=["<|user|>"], minloglevel=2,
    )
    pieces = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue()).pieces
    return [piece.piece for piece in pieces], [piece.type for piece in pieces], [piece.score for piece in pieces]


def line(value):
    return json.dumps(value, separators=(",", ":"))


def main():
    llama = Llama(pathlib.Path(sys.argv[1]))
    texts = awkward.texts() + SPECIAL_TEXTS
    tokens, types, merges = byte_level(awkward.texts())
    groups = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            path = pathlib.Path(folder) / f"{name}.gguf"
            write(path, "gpt2", tokens, types, tokenizer_pre=name, token_merges=merges, bos_token_id=0, eos_token_id=1)
            groups.setdefault(line(list(llama.ids(path, texts))), []).append(name)
        pieces, kinds, scores = sentence_piece()
        spm = {}
        for prefix in (True, False):
            path = pathlib.Path(folder) / "spm.gguf"
            write(path, "llama", pieces, kinds, token_scores=scores, add_space_prefix=prefix)
            spm[prefix] = list(llama.ids(path, texts))
    first = json.loads(next(iter(groups)))
    print("{")
    print(f'"texts":{line(texts)},')
    print(f'"byte_level":{{"tokens":{line(tokens)},"types":{line(types)},"merges":{line(merges)}}},')
    print('"groups":[')
    rows = []
    for number, (ids, names) in enumerate(groups.items()):
        ids = [None if number and found == known else found for found, known in zip(json.loads(ids), first, strict=True)]
        rows.append(line({"names": names, "ids": ids}))
    print(",\n".join(rows))
    print("],")
    print(f'"sentence_piece":{{"tokens":{line(pieces)},"types":{line(kinds)},"scores":{line(scores)},')
    print(f'"with_space_prefix":{line(spm[True])},\n"without_space_prefix":{line(spm[False])}}}')
    print("}")


if __name__ == "__main__":
    main()
