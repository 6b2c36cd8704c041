"""Tokens a second, memory and size of models in llama.cpp and in transformers, as a table in Markdown.

    python tests/reference/runtime_speed.py DIR TEXT WHAT=FILE [WHAT=FOLDER ..] [--threads 1] [--rounds 3]

DIR holds llama.cpp's libraries, as for llama_cpp_ids.py; FILE is a GGUF file, which llama.cpp runs, FOLDER a Hugging Face folder, which
transformers does, in the type of its weights. The first tokens of TEXT are the prompt; its logits decide the first of the tokens
that are generated, one after another, by the greatest logit. Every measurement has a process of its own, which
repeats it after a run that does not count. One thread waits for no other, which a busy machine would hold up. Rounds go through all
the models, so that what else the machine does meets all of them, and the fastest counts, as that only makes slower.
"""

import argparse
import itertools
import json
import pathlib
import subprocess
import sys
import time

PROMPT, GENERATED, REPEATS = 512, 64, 3


def peak_memory():
    """The most memory that this process has had resident, in MiB; pages of a mapped file count."""
    [line] = [line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def llama_cpp(libraries, path, text, threads):
    """The ids of a text, and a function that runs tokens at a position and gives the likeliest next one."""
    from check_llama_cpp import Model, Runner

    runner = Runner(libraries)
    [ids] = runner.ids(path, [text])
    model = Model(runner, path, context=PROMPT + GENERATED, threads=threads, exact=False)

    def run(tokens, position):
        if position == 0:
            model.clear()
        return int(model.decode(tokens, position, 1)[0].argmax())

    return ids, run


def hugging_face(path, text, threads):
    import torch
    import transformers

    import model_io

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    ids = model_io.load_tokenizer(path).encode(text).ids
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype="auto").eval()
    cache = None

    def run(tokens, position):
        nonlocal cache
        if position == 0:
            cache = transformers.DynamicCache(config=model.config)
        logits = model(torch.tensor([tokens]), past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        return int(logits[0, -1].argmax())

    return ids, run


def measure(libraries, path, text, threads):
    """Tokens a second of a prompt and of generating, and the memory that took."""
    text = text.read_text(encoding="utf-8")
    ids, run = llama_cpp(libraries, path, text, threads) if path.is_file() else hugging_face(path, text, threads)
    run(ids[:PROMPT], 0)
    rates = {"prompt": 0.0, "generated": 0.0}
    for _ in range(REPEATS):
        start = time.perf_counter()
        token = run(ids[:PROMPT], 0)
        middle = time.perf_counter()
        for position in range(PROMPT, PROMPT + GENERATED):
            token = run([token], position)
        end = time.perf_counter()
        rates["prompt"] = max(rates["prompt"], PROMPT / (middle - start))
        rates["generated"] = max(rates["generated"], GENERATED / (end - middle))
    return {**rates, "memory": peak_memory()}


def size(path):
    """Of the weights, in MiB."""
    files = [path] if path.is_file() else path.glob("*.safetensors")
    return sum(file.stat().st_size for file in files) / 2**20


def table(models, found):
    """Rates and sizes, each with what it is of the first model's in the same runtime."""
    print("| runtime | model | prompt, tokens/s | generated, tokens/s | weights, MiB | peak memory, MiB |")
    print("|---|---|---|---|---|---|")
    for runtime, group in itertools.groupby(models, key=lambda model: "llama.cpp" if model[1].is_file() else "transformers"):
        first = None
        for what, path in group:
            row = [max(one[key] for one in found[what]) for key in ("prompt", "generated")]
            row += [size(path), max(one["memory"] for one in found[what])]
            first = first or row
            cells = [f"{value:,.{1 if value < 100 else 0}f} (x{value / base:.2f})" for value, base in zip(row, first, strict=True)]
            print(f"| {runtime} | {what} | {' | '.join(cells)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("libraries", type=pathlib.Path)
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("models", nargs="+", metavar="WHAT=PATH")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", action="store_true", help="measure the one model here, and print JSON")
    arguments = parser.parse_args()
    models = [(what, pathlib.Path(path)) for what, path in (model.split("=", 1) for model in arguments.models)]
    if arguments.one:
        [(_, path)] = models
        print(json.dumps(measure(arguments.libraries, path, arguments.text, arguments.threads)))
        return
    found = {what: [] for what, _ in models}
    for _, (what, path) in itertools.product(range(arguments.rounds), models):
        command = [sys.executable, __file__, arguments.libraries, arguments.text, f"{what}={path}", "--one"]
        output = subprocess.run([*command, "--threads", str(arguments.threads)], stdout=subprocess.PIPE, check=True).stdout
        found[what].append(json.loads(output))
        print(f"{what}: {output.decode().strip()}", file=sys.stderr, flush=True)
    table(models, found)


if __name__ == "__main__":
    main()
