"""The published search in PyTorch and transformers, f32: what BlockPruner's order and perplexities are compared with.

    greedy.py --model M --text T [--field text --samples N] --window 2048 --remove 8 [--block-types mix|mha|mlp]

Every step measures the perplexity of the model without each block that is left (attention by layer, then feed-forward by
layer) and removes the first one of the lowest. Prints one JSON object; progress goes to stderr.
"""

import argparse
import json
import time

import model_io


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model_io.add_text_arguments(parser)
    parser.add_argument("--remove", type=int, required=True, help="blocks to remove")
    parser.add_argument("--block-types", choices=("mix", "mha", "mlp"), default="mix")
    arguments = parser.parse_args()
    model_io.quiet_and_deterministic(arguments.threads)
    windows, tokens = model_io.read_windows(arguments)
    model = model_io.load_model(arguments.model, arguments.attention, arguments.trust_remote_code)
    start = time.perf_counter()
    dense = model_io.perplexity(model, windows, arguments.batch)

    def progress(step, found):
        seconds = time.perf_counter() - start
        model_io.note(f"step {step}: without {found['removed']} {found['perplexity']:.4f} ({seconds:.0f} s)")

    steps = model_io.greedy_search(
        model, windows, arguments.remove, arguments.block_types, arguments.batch, progress
    )
    print(
        json.dumps(
            {
                "dense": dense,
                "order": [step["removed"] for step in steps],
                "perplexities": [step["perplexity"] for step in steps],
                "steps": steps,
                "windows": windows.shape[0],
                "window": windows.shape[1],
                "text_tokens": tokens,
                "seconds": time.perf_counter() - start,
            }
        )
    )


if __name__ == "__main__":
    main()
