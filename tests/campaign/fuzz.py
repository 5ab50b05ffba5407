"""A million changed files, texts and settings: no traceback that is not ours, no crash, no hang, no memory without bound.

What is changed, and how it is used, is in the targets (`tests/mutant_targets.py`). Then `tests/campaign/structured.py` draws
inputs with hypothesis, and `tests/campaign/guided.py` looks for inputs that reach new code. A case is a batch of mutants, a
property or a search. The text of a fault names the mutant, which stays in the folder of the part.
"""

from collections.abc import Iterator
from pathlib import Path

from tests.batches import batches
from tests.campaign import guided, structured
from tests.campaign.outcome import Outcome
from tests.mutant_targets import TARGETS

NUMBERS = {
    "texts-wordpiece": 256_000,
    "texts-bpe": 160_000,
    "texts-unigram": 110_000,
    "texts-sentences": 60_000,
    "texts-cleaning": 60_000,
    "texts-words": 35_000,
    "inputs-arrow": 20_000,
    "inputs-parquet": 20_000,
    "inputs-packed": 30_000,
    "inputs-delimited": 30_000,
    "inputs-json": 30_000,
    "inputs-web": 25_000,
    "inputs-dump": 15_000,
    "inputs-extracted": 25_000,
    "inputs-pages": 12_000,
    "inputs-parts": 10_000,
    "inputs-tar": 2_500,
    "inputs-zip": 4_000,
    "inputs-options": 15_000,
    "rows-jsonl": 6_000,
    "rows-json": 6_000,
    "rows-csv": 4_000,
    "rows-conll": 4_000,
    "rows-arrow": 2_000,
    "rows-parquet": 2_000,
    "tokenizers-directory": 12_000,
    "settings-phases": 8_000,
    "settings-inputs": 3_000,
    "settings-tasks": 5_000,
    "settings-pretrain-preset": 1_500,
    "settings-preprocess-preset": 1_500,
    "settings-build-vocab-preset": 1_500,
    "settings-finetune-preset": 1_500,
    "settings-flags": 1_500,
    "settings-models": 3_000,
    "data-set": 400,
    "models-checkpoint": 200,
    "models-directory": 200,
    "models-bundle": 200,
    "models-tuned": 200,
    "models-preset": 200,
}
"""Target -> inputs of a whole campaign: more for what takes a tenth of a millisecond, fewer for what takes half a second."""
STRUCTURED, GUIDED = 4_000, 12_600
"""Inputs of a whole campaign that hypothesis draws, and inputs of its searches."""
INPUTS_OF_BATCH = 5_000
MUTANTS_OF_BATCH = 200


def run(folder: Path, seed: int, share: float, only: int | None = None) -> Iterator[Outcome]:
    """Yield an outcome for each batch, each property and each search."""
    first = 0
    for name, amount in NUMBERS.items():
        target, number = TARGETS[name], max(1, round(amount * share))
        size = min(MUTANTS_OF_BATCH, INPUTS_OF_BATCH // target.inputs)
        num_batches = -(-number // (size * target.inputs))
        chosen = None if only is None else only - first
        first += num_batches
        if chosen is not None and not 0 <= chosen < num_batches:
            continue
        for batch in batches(target, number, seed, folder / name, size, chosen):
            result = "\n\n".join(batch.faults) or "used, or refused in one line"
            yield Outcome(name, result, batch.seconds, bool(batch.faults), batch.number)
    chosen = None if only is None else only - first
    yield from structured.run(folder / "structured", seed, round(STRUCTURED * share), chosen)
    chosen = None if chosen is None else chosen - len(structured.PROPERTIES)
    if chosen is None or chosen >= 0:
        yield from guided.run(folder / "guided", seed, round(GUIDED * share), chosen)
