"""Perplexity of a model under PyTorch and transformers in f32, and how long the forward pass takes.

    perplexity.py --model SmolLM2.gguf --text wiki.test.txt --window 1024 --windows 4
    perplexity.py --model FOLDER --ids reference.json --without mha:1,mlp:2 --json
    perplexity.py --model FOLDER --text T --window 2048 --windows 1 --threads 2 --time 3

The text is tokenised once (rows of a .json or .jsonl joined by two newlines), cut into consecutive windows, the rest
dropped; PPL = exp(mean over windows of the window's mean NLL).

--time N times N passes over the windows, head and NLL included, and reports the fastest: tokens/s is windows x window over
seconds. GFLOP/s counts multiplications and additions of the matrix products: per token 2 x (parameters of every matrix,
the head included, the embedding lookup not) plus, for causal attention, 2 x 2 x heads x head_dim x (window + 1) / 2 per
layer that has attention. The load average of the machine is printed beside it.
"""

import argparse
import json
import math
import os
import time

import torch

import model_io


def flop_per_token(model, window, removed):
    """The formula of --time; a skipped block costs nothing."""
    config = model.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    total = 2 * config.vocab_size * config.hidden_size
    names = model_io.names_of(config.model_type)

    def weights(layer, kind):
        parts = [getattr(layer, part) for part in names.parts(kind)]
        return sum(p.numel() for part in parts for p in part.parameters() if p.dim() == 2)

    for index, layer in enumerate(model_io.layers_of(model)):
        if ("mha", index) not in removed:
            total += 2 * weights(layer, "mha")
            total += 2 * 2 * config.num_attention_heads * head_dim * (window + 1) / 2
        if ("mlp", index) not in removed:
            total += 2 * weights(layer, "mlp")
    return total


def time_passes(model, windows, batch, repeats):
    """Seconds of the fastest of `repeats` passes over all windows, after one that does not count."""
    model_io.windows_nll(model, windows[:batch], batch)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        model_io.windows_nll(model, windows, batch)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def measure(arguments):
    windows, tokens = model_io.read_windows(arguments)
    model = model_io.load_model(arguments.model, arguments.attention, arguments.trust_remote_code)
    removed = model_io.parse_blocks(arguments.without)
    with model_io.without(model, removed):
        nll = model_io.windows_nll(model, windows, arguments.batch)
        result = {
            "perplexity": math.exp(model_io.mean_nll(nll)),
            "mean_nll": model_io.mean_nll(nll),
            "tokens": windows.numel(),
            "windows": windows.shape[0],
            "window": windows.shape[1],
            "text_tokens": tokens,
            "window_nll": nll.mean(dim=1).tolist(),
        }
        if arguments.time:
            seconds = time_passes(model, windows, arguments.batch, arguments.time)
            rate = windows.numel() / seconds
            result["timing"] = {
                "seconds": seconds,
                "tokens_per_second": rate,
                "gflop_per_second": rate * flop_per_token(model, windows.shape[1], removed) / 1e9,
                "threads": torch.get_num_threads(),
                "batch": arguments.batch,
                "attention": arguments.attention,
                "load_average": os.getloadavg()[0],
            }
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model_io.add_text_arguments(parser)
    parser.add_argument("--without", default="", help="blocks to skip: mha:1,mlp:2")
    parser.add_argument("--time", type=int, default=0, metavar="N", help="time N passes, report the fastest")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    arguments = parser.parse_args()
    model_io.quiet_and_deterministic(arguments.threads)
    result = measure(arguments)
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"perplexity {result['perplexity']:.6f} on {result['windows']} windows of {result['window']} tokens")
    print("mean NLL of each window: " + " ".join(f"{value:.6f}" for value in result["window_nll"]))
    if arguments.time:
        timing = result["timing"]
        print(
            f"{timing['tokens_per_second']:.1f} tokens/s, {timing['gflop_per_second']:.1f} GFLOP/s "
            f"({timing['threads']} threads, batch {timing['batch']}, load {timing['load_average']:.1f})"
        )


if __name__ == "__main__":
    main()
