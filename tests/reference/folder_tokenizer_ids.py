"""Token ids of folders without tokenizer.json for tests/tests/folder_tokenizers.rs: SentencePiece models, and vocab.json with
merges.txt.

    python tests/reference/folder_tokenizer_ids.py > tests/reference/folder_tokenizer_ids.json

The models are trained here by the `sentencepiece` package, the byte-level vocabulary is that of llama_cpp_ids.json. The ids are those
of transformers 5.24.0 on such a folder. A SentencePiece model is converted by its generic class, with which the package itself has to
agree, but where a text names control tokens, which only transformers finds there. (transformers' LlamaTokenizer puts no space
before a text that begins with one, unlike SentencePiece and its own older versions.)
"""

import base64
import io
import json
import pathlib
import tempfile

import sentencepiece
import transformers

import awkward

HERE = pathlib.Path(__file__).resolve().parent
SAMPLE = HERE.parents[1] / "assets/tiny/calibration.txt"
BYTE_LEVEL = json.loads((HERE / "llama_cpp_ids.json").read_text())["byte_level"]
TEXTS = awkward.texts()
# Kind, whether bytes stand for unknown characters, a space before the text, runs of spaces made one, normalisation rules.
MODELS = {
    "llama": ("bpe", True, True, False, False, {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True}),
    "llama by class": ("bpe", True, True, False, False, {"tokenizer_class": "LlamaTokenizer"}),
    "baichuan": ("bpe", True, False, False, False, {"tokenizer_class": "BaichuanTokenizer", "add_bos_token": False}),
    "bpe with one space": ("bpe", False, True, True, True, {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False}),
    "unigram": ("unigram", True, True, True, True, {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False}),
    "unigram as it is": (
        "unigram", False, False, False, False,
        {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": True, "add_eos_token": True},
    ),
}
BYTE_LEVEL_CLASSES = [
    {"tokenizer_class": "GPT2Tokenizer"},
    {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "bos_token": "<|bos|>", "eos_token": "<|bos|>", "unk_token": "<|bos|>"},
    {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|end|>", "unk_token": "<|end|>", "pad_token": "<|end|>"},
    {"tokenizer_class": "GPTNeoXTokenizer", "bos_token": "<|end|>", "eos_token": "<|end|>", "unk_token": "<|end|>", "pad_token": "<|bos|>"},
]
SPECIAL = "a<|end|>b<|bos|> <|user|>"


def train(kind, byte_fallback, prefix, single, rules, folder):
    model = io.BytesIO()
    tsv = folder / "rules.tsv"
    tsv.write_text("FB01\t66 69\nC4\t41 308\nFF21\t41\n3000\t20\n9\t20\n2126\t3A9\n")
    more = {"normalization_rule_tsv": str(tsv)} if rules else {"normalization_rule_name": "identity"}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SAMPLE.read_text(encoding="utf-8").split("\n")), model_writer=model, vocab_size=500,
        model_type=kind, byte_fallback=byte_fallback, add_dummy_prefix=prefix, remove_extra_whitespaces=single,
        character_coverage=1.0, minloglevel=2, **more,
    )
    return model.getvalue()


def loaded(folder, config):
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    name = config["tokenizer_class"]
    kind = getattr(transformers, name, transformers.PreTrainedTokenizerFast)
    return kind.from_pretrained(folder)


def sentence_piece(name):
    *shape, config = MODELS[name]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        model = train(*shape, folder)
        (folder / "tokenizer.model").write_bytes(model)
        add_bos = config.get("add_bos_token", True)
        tokenizer = loaded(folder, {**config, "tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": add_bos})
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        before = [processor.bos_id()] if add_bos else []
        behind = [processor.eos_id()] if config.get("add_eos_token", False) else []
        ids = [tokenizer(text)["input_ids"] for text in TEXTS]
        for text, found in zip(TEXTS, ids, strict=True):
            own = before + processor.encode(text) + behind
            if own != found and "<s>" not in text:
                raise SystemExit(f"{name}: sentencepiece and transformers differ on {text!r}\n{own}\n{found}")
        return {"name": name, "config": config, "model": base64.b64encode(model).decode(), "ids": ids}


def byte_level(config):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "vocab.json").write_text(json.dumps({token: id for id, token in enumerate(BYTE_LEVEL["tokens"])}))
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(BYTE_LEVEL["merges"]) + "\n")
        tokenizer = loaded(folder, config)
        return {"config": config, "ids": [tokenizer(text)["input_ids"] for text in [*TEXTS, SPECIAL]]}


def rows(values):
    return ",\n".join(json.dumps(value, separators=(",", ":")) for value in values)


print(f'{{"texts":{json.dumps(TEXTS)},\n"special":{json.dumps(SPECIAL)},\n"sentence_piece":[')
print(rows(sentence_piece(name) for name in MODELS))
print('],\n"byte_level":[')
print(rows(byte_level(config) for config in BYTE_LEVEL_CLASSES))
print("]}")
