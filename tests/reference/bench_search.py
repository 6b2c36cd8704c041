"""The published search in PyTorch, timed beside what `blockpruner bench --json` measured on the same machine.

    bench_search.py --ours bench.json [more.json ...] [--pytorch-candidates N] [--threads N] [--batch N] [--attention sdpa|eager]

Model, token ids, windows and the blocks to remove are those of the first report; further ones are of other searches for the
same. The published loop literally: one whole forward
pass in f32 for every candidate, logits and losses for every position. With --pytorch-candidates only so many candidates of
the first step are run, spread evenly over its order, and the rest is extrapolated: a step's passes are taken to be shorter
in proportion to the blocks that are left. Prints a table, or one JSON object with --json.
"""

import argparse
import json
import math
import os
import pathlib
import resource
import time

import numpy
import torch

import model_io

TINY = pathlib.Path(__file__).resolve().parents[2] / "assets" / "tiny"


def mean_nll(model, windows, batch):
    """Mean over the windows of their mean NLL; f32 logits, cross-entropy over every position."""
    means = []
    for part in windows.split(batch):
        logits = model(input_ids=part, use_cache=False).logits[:, :-1]
        nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten(), reduction="none")
        means.append(nll.view(part.shape[0], -1).mean(dim=1).double())
    return float(torch.cat(means).mean())


def timed(work):
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def published_loop(score, candidates, remove):
    """The whole loop: (order, perplexities of the winners, scores of the first step, seconds)."""
    removed, perplexities, first = [], [], {}
    start = time.perf_counter()
    for step in range(remove):
        best = None
        for block in candidates:
            if block in removed:
                continue
            value = score([*removed, block])
            if step == 0:
                first[model_io.block_name(block)] = value
            if math.isfinite(value) and (best is None or value < best[0]):
                best = (value, block)
        removed.append(best[1])
        perplexities.append(best[0])
        model_io.note(f"PyTorch: step {step + 1}, {time.perf_counter() - start:.0f} s")
    order = [model_io.block_name(block) for block in removed]
    return order, perplexities, first, time.perf_counter() - start


def some_candidates(score, candidates, count, remove, blocks):
    """Some candidates of the first step, and the seconds that the whole loop would take."""
    chosen = [candidates[index * len(candidates) // count] for index in range(count)]
    first, seconds = timed(lambda: {model_io.block_name(block): score([block]) for block in chosen})
    passes = sum((len(candidates) - step) * (blocks - 1 - step) / (blocks - 1) for step in range(remove))
    return first, seconds / count * passes


def product_rate(multiply, size=1024, repeats=5):
    """GFLOP/s of the fastest of some f32 products."""
    multiply()
    return 2 * size**3 / min(timed(multiply)[1] for _ in range(repeats)) / 1e9


def product_rates(size=1024):
    a = torch.rand(size, size)
    b = a.numpy().copy()
    return {
        "torch": product_rate(lambda: torch.mm(a, a), size),
        "numpy": product_rate(lambda: numpy.matmul(b, b), size),
    }


def measure(arguments, ours):
    model_io.quiet_and_deterministic(arguments.threads)
    torch.use_deterministic_algorithms(False)
    text, search = ours["text"], ours["search"]
    windows = torch.tensor(text["ids"], dtype=torch.int64).view(text["windows"], text["window"])
    path = TINY if ours["model"] == "builtin:tiny" else ours["model"]
    model = model_io.load_model(path, arguments.attention)
    rates = product_rates()

    def score(removed):
        with model_io.without(model, removed):
            return math.exp(mean_nll(model, windows, arguments.batch))

    score([])
    passes = [timed(lambda: score([])) for _ in range(3)]
    result = {
        "threads": arguments.threads,
        "product_gflop_per_second": rates,
        "dense_perplexity": passes[0][0],
        "tokens_per_second": windows.numel() / min(seconds for _, seconds in passes),
    }
    if search:
        layers, remove = len(model_io.layers_of(model)), len(search["steps"])
        candidates = model_io.all_blocks(layers, search["block_types"])
        count = arguments.pytorch_candidates
        if count and count < len(candidates):
            first, seconds = some_candidates(score, candidates, count, remove, 2 * layers)
            result |= {"extrapolated_from": count, "first_step": first, "seconds": seconds}
        else:
            order, perplexities, first, seconds = published_loop(score, candidates, remove)
            result |= {"order": order, "perplexities": perplexities, "first_step": first, "seconds": seconds}
    result["peak_resident_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return result


def compared(search, result):
    """One of our searches beside the published loop."""
    scored = {c["block"]: c["perplexity"] for c in search["steps"][0]["candidates"] if c["perplexity"]}
    both = [abs(scored[block] / value - 1) for block, value in result["first_step"].items() if block in scored]
    order = [step["removed"] for step in search["steps"]]
    return {
        "strategy": search["strategy"],
        "approximate": search["approximate"],
        "seconds": search["count"]["seconds"],
        "speed_over_pytorch": result["seconds"] / search["count"]["seconds"],
        "largest_difference": max(both, default=None),
        "order": order,
        "perplexities": [step["perplexity"] for step in search["steps"]],
        "same_order": order == result["order"] if "order" in result else None,
    }


def table(ours, torch_result):
    device = ours["device"]
    rates = torch_result["product_gflop_per_second"]
    lines = [
        f"{ours['model']}, {ours['text']['windows']} windows of {ours['text']['window']}; ours on {device['name']} "
        f"(kernel {device['kernel']}), PyTorch {torch.__version__} f32 with {torch_result['threads']} threads",
        f"{'':<26}{'ours':>14}{'PyTorch':>14}{'ratio':>8}",
    ]

    def row(name, left, right, form="{:.1f}", ratio=None):
        ratio = left / right if ratio is None else ratio
        lines.append(f"{name:<26}{form.format(left):>14}{form.format(right):>14}{ratio:>8.2f}")

    row("best product, GFLOP/s", ours["rates"]["gemm_gflop_per_second"], rates["torch"])
    lines.append(f"{'  numpy, GFLOP/s':<26}{'':>14}{rates['numpy']:>14.1f}")
    row("dense pass, tokens/s", ours["pass"]["tokens_per_second"], torch_result["tokens_per_second"])
    row("dense perplexity", ours["pass"]["perplexity"], torch_result["dense_perplexity"], "{:.5f}")
    for search in torch_result.get("searches", []):
        name = f"{search['strategy']} search, seconds"
        row(name, search["seconds"], torch_result["seconds"], ratio=search["seconds"] / torch_result["seconds"])
        approximate = ", approximately" if search["approximate"] else ""
        lines.append(f"  {search['speed_over_pytorch']:.2f} times the speed of the published loop in PyTorch{approximate}")
        if search["largest_difference"] is not None:
            difference = search["largest_difference"]
            lines.append(f"  candidates of the first step differ in perplexity by {difference:.1e} at most")
        lines.append(f"  ours:    {pairs(search['order'], search['perplexities'])}")
        if search["same_order"] is not None:
            lines.append("  same order as PyTorch's" if search["same_order"] else "  ANOTHER ORDER THAN PYTORCH'S")
    if "extrapolated_from" in torch_result:
        sampled = torch_result["extrapolated_from"]
        lines.append(f"PyTorch's time is extrapolated from {sampled} candidates of the first step")
    elif "order" in torch_result:
        lines.append(f"PyTorch: {pairs(torch_result['order'], torch_result['perplexities'])}")
    return "\n".join(lines)


def pairs(order, perplexities):
    return ", ".join(f"{block} {perplexity:.5f}" for block, perplexity in zip(order, perplexities))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", required=True, nargs="+", help="what blockpruner bench --json printed")
    parser.add_argument("--pytorch-candidates", type=int, help="run only so many candidates of the first step")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--batch", type=int, default=1, help="windows in one forward pass")
    parser.add_argument("--attention", default="sdpa", help="transformers' attn_implementation")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    arguments = parser.parse_args()
    if arguments.pytorch_candidates is not None and arguments.pytorch_candidates < 1:
        parser.error("--pytorch-candidates: at least 1")
    reports = [json.loads(pathlib.Path(report).read_text(encoding="utf-8")) for report in arguments.ours]
    for report in reports[1:]:
        if report["text"]["ids"] != reports[0]["text"]["ids"] or report["model"] != reports[0]["model"]:
            parser.error(f"the reports are of different models or texts: {', '.join(arguments.ours)}")
    with torch.inference_mode():
        result = measure(arguments, reports[0])
    result["searches"] = [compared(report["search"], result) for report in reports if report["search"]]
    print(json.dumps(result) if arguments.json else table(reports[0], result))


if __name__ == "__main__":
    main()
