"""Reads results.json of fine-tuning."""

from pathlib import Path
from typing import Any

from bertloom.json_files import read_json
from bertloom.shapes import shaped


def read_results(path: Path) -> dict[str, Any]:
    """Return the content of a results.json, of one seed or of several; ValueError if fine-tuning did not write it."""
    content = read_json(path)
    kinds: dict[str, Any] = {
        "step": int,
        "best_step": int,
        "metrics": dict[str, float | None],
        "settings": dict[str, Any],
    }
    if "best_seed" in content:
        values = dict[str, float | None]
        kinds = {"best_seed": int, "mean": values, "deviation": values, "seeds": dict[str, values]}
    for name, kind in kinds.items():
        shaped(content.get(name), kind, f"{path}: {name}")
    if "best_seed" not in content:
        for name in ("task", "model", "train", "dev"):
            shaped(content["settings"].get(name), str, f"{path}: settings.{name}")
    elif content["mean"].keys() != content["deviation"].keys():
        raise ValueError(
            f"{path}: mean and deviation have different metrics: the file is damaged, or fine-tuning did not write it"
        )
    return content
