"""Reference perplexities of SmolLM2-135M-Instruct for tests/tests/smollm2.rs.

    python tests/reference/smollm2.py SmolLM2-135M-Instruct.Q4_1.gguf > tests/reference/smollm2.json

transformers dequantises the GGUF file to f32; the text is the built-in sample, 2 windows of 256 tokens.
"""

import json
import pathlib
import sys

import transformers

import model_io

SAMPLE = pathlib.Path(__file__).resolve().parents[2] / "assets/tiny/calibration.txt"
WITHOUT = ["mha:13", "mlp:5"]


def main():
    model_io.quiet_and_deterministic()
    path = pathlib.Path(sys.argv[1])
    source = dict(pretrained_model_name_or_path=path.parent, gguf_file=path.name)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        **source, dtype="float32", attn_implementation="eager"
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
    ids = tokenizer(SAMPLE.read_text(encoding="utf-8"), add_special_tokens=False)["input_ids"]
    windows = model_io.cut_windows(ids, 256, 2)
    result = {
        "command": "python tests/reference/smollm2.py SmolLM2-135M-Instruct.Q4_1.gguf > tests/reference/smollm2.json",
        "window": 256,
        "windows": 2,
        "ids": windows.flatten().tolist(),
        "perplexity": model_io.perplexity(model, windows),
        "without": {b: model_io.perplexity(model, windows, blocks=[model_io.parse_block(b)]) for b in WITHOUT},
    }
    print(json.dumps(result))


main()
