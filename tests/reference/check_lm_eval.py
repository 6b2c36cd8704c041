"""Compares what `blockpruner evaluate` found with lm-evaluation-harness itself, item by item.

    python tests/reference/check_lm_eval.py FOLDER ITEMS RESULT NAME=FILE...

FOLDER is the model as `blockpruner export --step 0 --format hf-zeroed --dtype f32` writes it, ITEMS what `evaluate --items`
wrote, RESULT what `evaluate --json` printed, and the tasks are those that it was given. The harness runs its own task files on
the same rows, of which those in the short form (`ctx`, `choices`, `gold`) are spelt as the hub has them before. Needs
`pip install lm_eval==0.4.12 torch transformers accelerate`.
"""

import json
import os
import pathlib
import sys
import tempfile

TOLERANCE = 1e-3
# Where the harness keeps each task's file.
YAML = {
    "piqa": "piqa/piqa.yaml",
    "winogrande": "winogrande/default.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
    "lambada": "lambada/lambada_openai.yaml",
}


def as_hub(task, row):
    """A row as the hub has it."""
    if "gold" not in row:
        return row
    context, choices, gold = row["ctx"], row["choices"], row["gold"]
    letters = [chr(ord("A") + index) for index in range(len(choices))]
    listed = {"text": choices, "label": letters}
    match task:
        case "piqa":
            return {"goal": context, "sol1": choices[0], "sol2": choices[1], "label": gold}
        case "winogrande":
            return {"sentence": context, "option1": choices[0], "option2": choices[1], "answer": str(gold + 1)}
        case "hellaswag":
            label, _, rest = context.partition(": ")
            return {"activity_label": label, "ctx_a": rest, "ctx_b": "", "endings": choices, "label": str(gold)}
        case "openbookqa":
            return {"question_stem": context, "choices": listed, "answerKey": letters[gold]}
        case _:
            return {"question": context, "choices": listed, "answerKey": letters[gold]}


def harness(folder, files, counts, bos):
    """The harness' own results: per-item log-likelihoods with whether they are greedy, and the metrics."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    tasks_folder = pathlib.Path(lm_eval.__file__).parent / "tasks"
    with tempfile.TemporaryDirectory() as work:
        os.environ["HF_DATASETS_CACHE"] = work
        yamls = []
        for task, file in files.items():
            rows = [json.loads(line) for line in pathlib.Path(file).read_text(encoding="utf-8").splitlines() if line]
            rows = [as_hub(task, row) for row in rows[: counts[task]]]
            path = pathlib.Path(work) / f"{task}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            config = {
                "include": str(tasks_folder / YAML[task]),
                "task": task + "_local",
                "dataset_path": "json",
                "dataset_name": None,
                "dataset_kwargs": {"data_files": {"test": str(path)}},
                "training_split": None,
                "validation_split": None,
                "test_split": "test",
            }
            yamls.append(str(pathlib.Path(work) / f"{task}_local.yaml"))
            # JSON is YAML.
            pathlib.Path(yamls[-1]).write_text(json.dumps(config), encoding="utf-8")
        add_bos = {"never": False}.get(bos)
        model = HFLM(pretrained=folder, dtype="float32", device="cpu", batch_size=8, add_bos_token=add_bos)
        found = lm_eval.simple_evaluate(model=model, tasks=yamls, num_fewshot=0, bootstrap_iters=100000)
    items = {}
    for task in files:
        samples = sorted(found["samples"][task + "_local"], key=lambda sample: sample["doc_id"])
        items[task] = [[(float(resp[0][0]), bool(resp[0][1])) for resp in sample["resps"]] for sample in samples]
    return items, {task: found["results"][task + "_local"] for task in files}


def main():
    folder, items_file, result_file, *pairs = sys.argv[1:]
    files = dict(pair.split("=", 1) for pair in pairs)
    header, *lines = [json.loads(line) for line in pathlib.Path(items_file).read_text(encoding="utf-8").splitlines()]
    ours = {task: [line for line in lines if line["task"] == task] for task in files}
    result = json.loads(pathlib.Path(result_file).read_text(encoding="utf-8"))
    counts = {task: header["tasks"][task]["items"] for task in files}
    items, metrics = harness(folder, files, counts, header["bos"])
    failed = []
    for task in files:
        assert len(items[task]) == len(ours[task]) == counts[task], task
        off, others = 0.0, []
        for own, theirs in zip(ours[task], items[task]):
            values = [value for value, _ in theirs]
            assert len(values) == len(own["log_likelihoods"]), (task, own["index"])
            off = max([off] + [abs(a - b) for a, b in zip(own["log_likelihoods"], values)])
            normed = [value / length for value, length in zip(values, own["lengths"])]
            checks = {"prediction": values.index(max(values)), "prediction_norm": normed.index(max(normed))}
            checks["greedy"] = theirs[0][1]
            others += [(own["index"], key) for key, value in checks.items() if key in own and own[key] != value]
        print(f"{task}: {counts[task]} items, log-likelihoods off by {off:.1e} at most, other predictions: {others or 'none'}")
        for key in ["acc", "acc_stderr", "acc_norm", "acc_norm_stderr", "perplexity", "perplexity_stderr"]:
            if key in result["tasks"][task]:
                a, b = result["tasks"][task][key], metrics[task][key + ",none"]
                print(f"    {key}: {a:.10g}, by the harness {b:.10g}")
                if abs(a - b) > 1e-3 * abs(b):
                    failed.append(f"{task} {key}")
        if off > TOLERANCE or others:
            failed.append(task)
    if failed:
        sys.exit(f"differs: {', '.join(failed)}")


if __name__ == "__main__":
    main()
