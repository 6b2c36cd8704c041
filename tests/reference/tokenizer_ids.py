"""Reference token ids of a GGUF file's tokenizer for tests/tests/tokenizers.rs.

    python tests/reference/tokenizer_ids.py FILE.gguf > tests/reference/tokenizer_NAME.json

A byte-level vocabulary (`tokenizer.ggml.model` = gpt2) is put together by gguf_io.py with the rules of the models' published
tokenizer.json; transformers' own conversion of GGUF metadata leaves out the splitting of digits and the normalisation. For a
SentencePiece vocabulary (llama) that conversion is the reference, and the `sentencepiece` package, given the model that the
metadata were made from, has to agree; except that it never finds control tokens in a text. The texts are awkward lines and the
start of the built-in sample.
"""

import json
import pathlib
import sys

import sentencepiece
import transformers
from sentencepiece import sentencepiece_model_pb2

import gguf_io

SAMPLE = pathlib.Path(__file__).resolve().parents[2] / "assets/tiny/calibration.txt"
TEXTS = [
    "Hello world",
    " a space before, two  spaces,   three    and at the end ",
    "lines\nand\n\nblank\n\n\n\nlines\r\nand\ttabs\t\t",
    "12345 1,234.56 007 3e-7 ½ ²",
    "I'll they're DON'T O'Neill's \u2019tis",
    "naïve café Straße Ångström e\u0301 \ufb01 \u1e9b\u0323",
    "日本語のテキスト 中文字符 한국어 ไทย हिन्दी العربية עברית",
    "🙂👩‍👩‍👧‍👦🏳️‍🌈 \U00010348 \U0001f9ff\u200d",
    "def f(x: int) -> str:\n    return f'{x!r}'  # <b>html</b>\n\tif (a && b || !c) { x += 1; }",
    "\u2581 \u2581word \ufeffbom \u00a0nbsp \u3000wide \x00\x01\x7f",
    "aaaaaaaaaaaaaaaa ======== -------- ........ ________",
    "<0x41> <table><td>",
    "",
]
CONTROL = "<bos> <eos> <s> </s> <unk> <|im_start|>user\n<|endoftext|> <start_of_turn>model <unused5>"


def sentence_piece(meta):
    """The SentencePiece model that the metadata were converted from, as its own package runs it."""
    piece_type = sentencepiece_model_pb2.ModelProto.SentencePiece.Type
    bos, unknown = int(meta["tokenizer.ggml.bos_token_id"]), int(meta["tokenizer.ggml.unknown_token_id"])
    model = sentencepiece_model_pb2.ModelProto()
    columns = (meta[f"tokenizer.ggml.{name}"] for name in ("tokens", "scores", "token_type"))
    for number, (token, score, kind) in enumerate(zip(*columns, strict=True)):
        kind = piece_type.UNKNOWN if number == unknown else kind
        # llama.cpp's converter writes the spaces of user-defined tokens as they are.
        piece = token.replace(" ", "\u2581") if kind == piece_type.USER_DEFINED else token
        model.pieces.add(piece=piece, score=score, type=kind)
    model.trainer_spec.model_type = sentencepiece_model_pb2.TrainerSpec.BPE
    model.trainer_spec.byte_fallback = piece_type.BYTE in meta["tokenizer.ggml.token_type"]
    for name in ("bos", "eos", "unknown", "padding"):
        field = {"unknown": "unk", "padding": "pad"}.get(name, name)
        number = int(meta.get(f"tokenizer.ggml.{name}_token_id", -1))
        setattr(model.trainer_spec, f"{field}_id", number)
        if number >= 0:
            setattr(model.trainer_spec, f"{field}_piece", meta["tokenizer.ggml.tokens"][number])
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = bool(meta.get("tokenizer.ggml.add_space_prefix", True))
    model.normalizer_spec.remove_extra_whitespaces = False
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
    before = [bos] if meta.get("tokenizer.ggml.add_bos_token", True) else []
    return lambda text: before + processor.encode(text)


def sentence_piece_ids(path, meta, texts):
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    encode = sentence_piece(meta)
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        if text != CONTROL and encode(text) != ids:
            raise SystemExit(f"transformers and sentencepiece differ on {text!r}")
        yield ids


def byte_level_ids(path, texts):
    tokenizer = gguf_io.load_tokenizer(path)
    return (tokenizer.encode(text).ids for text in texts)


def main():
    path = pathlib.Path(sys.argv[1])
    meta = gguf_io.metadata(path)
    texts = [*TEXTS, CONTROL, SAMPLE.read_text(encoding="utf-8")[:4000]]
    pieces = meta["tokenizer.ggml.model"] == "llama"
    ids = sentence_piece_ids(path, meta, texts) if pieces else byte_level_ids(path, texts)
    lines = ",\n".join(json.dumps({"text": text, "ids": found}) for text, found in zip(texts, ids, strict=True))
    print(f"[\n{lines}\n]")


main()
