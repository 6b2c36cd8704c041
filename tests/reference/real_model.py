"""Reference perplexities of a real GGUF model for tests/tests/real_models.rs.

    python tests/reference/real_model.py FILE.gguf WINDOWS > tests/reference/NAME.json

transformers dequantises the file to f32; the text is the start of the built-in sample, in windows of 256 tokens.
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
    path, count = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    source = dict(pretrained_model_name_or_path=path.parent, gguf_file=path.name)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        **source, dtype="float32", attn_implementation="eager"
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
    ids = tokenizer(SAMPLE.read_text(encoding="utf-8"))["input_ids"]
    windows = model_io.cut_windows(ids, 256, count)
    result = {
        "command": f"python tests/reference/real_model.py {path.name} {count}",
        "window": 256,
        "windows": count,
        "ids": windows.flatten().tolist(),
        "perplexity": model_io.perplexity(model, windows),
        "without": {b: model_io.perplexity(model, windows, blocks=[model_io.parse_block(b)]) for b in WITHOUT},
    }
    print(json.dumps(result))


main()
