"""Measure masked language models on the same masked pieces, with transformers.

    .venv-rivals/run_mlm/bin/python benchmarks/duel/judge.py pieces.npz MODEL ...

Prints a JSON object: for each model, for each form of the pieces, the loss and accuracy over all masked words, and their
number. A model whose directory lacks a weight, or has one too many, is refused.
"""

import json
import sys

import numpy as np
import torch
from transformers import AutoModelForMaskedLM

BATCH_SIZE = 32


def main() -> None:
    path, *models = sys.argv[1:]
    with np.load(path) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    forms = sorted({name.partition("/")[0] for name in arrays}, reverse=True)
    found = {}
    for model in models:
        found[model] = {}
        for form in forms:
            pieces = {name: arrays[f"{form}/{name}"] for name in ("input_ids", "attention_mask", "labels")}
            found[model][form] = measure(load(model), **pieces)
    print(json.dumps(found))


def load(path: str) -> torch.nn.Module:
    model, report = AutoModelForMaskedLM.from_pretrained(path, output_loading_info=True)
    # A directory of bertloom may also hold the pooler and the head for pairs, which this class leaves out.
    unused = [
        name for name in report["unexpected_keys"] if not name.startswith(("bert.pooler.", "cls.seq_relationship."))
    ]
    if report["missing_keys"] or report["mismatched_keys"] or unused:
        raise SystemExit(f"{path} does not load whole: {report}")
    return model.eval()


@torch.inference_mode()
def measure(
    model: torch.nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor
) -> dict[str, float]:
    loss, right, count = 0.0, 0, 0
    for at in range(0, len(input_ids), BATCH_SIZE):
        rows = slice(at, at + BATCH_SIZE)
        logits = model(input_ids=input_ids[rows], attention_mask=attention_mask[rows]).logits
        asked = labels[rows] != -100
        words = labels[rows][asked]
        loss += torch.nn.functional.cross_entropy(logits[asked], words, reduction="sum").item()
        right += int((logits[asked].argmax(-1) == words).sum())
        count += len(words)
    return {"loss": loss / count, "accuracy": right / count, "masked": count}


if __name__ == "__main__":
    main()
