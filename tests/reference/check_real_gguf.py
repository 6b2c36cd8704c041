"""Runs GGUF files of a real model in llama.cpp, and compares perplexities with those that blockpruner found.

    python tests/reference/check_real_gguf.py DIR CASES

DIR holds llama.cpp's libraries, as for llama_cpp_ids.py. CASES is a JSON file: `text` (a file), `window` (tokens) and `windows` (how
many), and in `cases` for each file its `file`, its `perplexity` by blockpruner, and the relative `tolerance`. llama.cpp splits
the text into tokens by what the file says, so that a wrong tokenizer shows, too.
"""

import json
import pathlib
import sys

from check_llama_cpp import Model, Runner


def main():
    runner = Runner(pathlib.Path(sys.argv[1]))
    job = json.loads(pathlib.Path(sys.argv[2]).read_text(encoding="utf-8"))
    text = pathlib.Path(job["text"]).read_text(encoding="utf-8")
    size, count = job["window"], job["windows"]
    failed = []
    for case in job["cases"]:
        [ids] = runner.ids(case["file"], [text])
        windows = [ids[start : start + size] for start in range(0, size * count, size)]
        with Model(runner, case["file"], context=size) as model:
            found = model.perplexity(windows)
        off = abs(found / case["perplexity"] - 1)
        print(f"{case['file']}: {found:.5f}, expected {case['perplexity']:.5f}, off by {off:.1e}", flush=True)
        if not off <= case["tolerance"]:
            failed.append(case["file"])
    if failed:
        raise SystemExit(f"{', '.join(failed)} differ")


if __name__ == "__main__":
    main()
