"""The model card (README.md) of an exported model, made of facts from its run.

Language, licence and intended use are unknown here. Whoever publishes the model adds them.
"""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bertloom.counts import counted
from jobs.support.finetune_results import read_results
from model.hub.pretrained import Pretrained
from model.loading.stream import Leg
from model.runs.metrics import read_metrics
from model.runs.sinks import numbers
from model.runs.state import TrainingState

PIPELINES = {
    "ForPreTraining": ("AutoModelForPreTraining", "fill-mask"),
    "ForMaskedLM": ("AutoModelForMaskedLM", "fill-mask"),
    "Model": ("AutoModel", "feature-extraction"),
    "ForSequenceClassification": ("AutoModelForSequenceClassification", "text-classification"),
    "ForMultipleChoice": ("AutoModelForMultipleChoice", "multiple-choice"),
    "ForTokenClassification": ("AutoModelForTokenClassification", "token-classification"),
    "ForQuestionAnswering": ("AutoModelForQuestionAnswering", "question-answering"),
}
"""For each class of a model, the class that loads it and the name of its pipeline on the Hub."""
WITHOUT_PIPELINE = ("multiple-choice",)
"""Those that transformers itself does not have."""
MEASURED = {
    "mlm_loss": "masked words, cross-entropy in nats",
    "mlm_accuracy": "masked words, accuracy",
    "nsp_loss": "next sentence, cross-entropy in nats",
    "nsp_accuracy": "next sentence, accuracy",
}


def pretraining_card(pretrained: Pretrained, state: TrainingState, name: str) -> str:
    """Return the card of a checkpoint of a pretraining run; `name` is the name of the exported directory."""
    lines = read_metrics(pretrained.path.parent.parent / "metrics.jsonl")
    return "\n".join(
        [
            *_head(pretrained, name, f"Pretrained for {counted(state.step, 'step')} with {_software()}."),
            *_training(state),
            *_measured(state, [line for line in lines if line["step"] <= state.step]),
        ]
    )


def run_card(pretrained: Pretrained, name: str) -> str:
    """Return the card of a fine-tuned or imported model."""
    results = pretrained.path.parent / "results.json"
    if not results.exists():
        return "\n".join(_head(pretrained, name, "Imported from a directory in transformers' form."))
    content = read_results(results)
    best = content  # with several seeds, the settings are in the folder of the best one
    if "best_seed" in content:
        best = read_results(results.parent / f"seed-{content['best_seed']}" / "results.json")
    return "\n".join(
        [
            *_head(pretrained, name, f"Fine-tuned for the task `{best['settings']['task']}` with {_software()}."),
            *_tuning(best),
            "## Metrics on the dev rows, which chose this model",
            "",
            *_tuned(best["metrics"], content),
        ]
    )


def _head(pretrained: Pretrained, name: str, what: str) -> list[str]:
    if pretrained.form not in PIPELINES:
        raise ValueError(
            f"{pretrained.path}: no model card can be made for a {pretrained.architecture}: expected one of "
            f"{', '.join(PIPELINES)}"
        )
    kind, pipeline = PIPELINES[pretrained.form]
    shape = pretrained.config.shape
    file = pretrained.tokenizer.file
    words = f"{pretrained.tokenizer.vocab_size:,} tokens, {file.content['model']['type']}"
    if file.is_bert:
        case = "lower-cased" if file.content["normalizer"]["lowercase"] else "cased"
        words = f"{pretrained.tokenizer.vocab_size:,} word pieces, {case}"
    facts = {
        "layers": shape.num_hidden_layers,
        "hidden size": shape.hidden_size,
        "attention heads": shape.num_attention_heads,
        "feed-forward size": shape.intermediate_size,
        "positions": shape.max_position_embeddings,
        "vocabulary": words,
        "parameters": f"{sum(tensor.numel() for tensor in pretrained.weights.values()):,}",
    }
    library, code = (
        "transformers",
        [
            f"from transformers import {kind}, AutoTokenizer" + ("" if pipeline in WITHOUT_PIPELINE else ", pipeline"),
            "",
            f'model = {kind}.from_pretrained("{name}")',
            f'tokenizer = AutoTokenizer.from_pretrained("{name}")',
            *([] if pipeline in WITHOUT_PIPELINE else [f'use = pipeline("{pipeline}", "{name}")']),
        ],
    )
    if form := pretrained.vectors:
        library, pipeline = "sentence-transformers", "sentence-similarity"
        code = [
            "from sentence_transformers import SentenceTransformer",
            "",
            f'vectors = SentenceTransformer("{name}").encode(["a text", "another"])',
        ]
        pooling = "the mean over all tokens" if form.pooling == "mean" else "that of [CLS]"
        length = ", of length 1" if form.normalize else ""
        facts["vector of a text"] = f"{pooling}, of the first {form.max_seq_length:,}{length}"
    return [
        "---",
        f"library_name: {library}",
        f"pipeline_tag: {pipeline}",
        "tags:",
        "- bert",
        "---",
        "",
        f"# {name}",
        "",
        f"A {pretrained.architecture}. {what}",
        "",
        "```python",
        *code,
        "```",
        "",
        "## The model",
        "",
        *_table(("", ""), facts.items()),
        "",
    ]


def _tuning(result: dict[str, Any]) -> list[str]:
    settings = {key: value for key, value in result["settings"].items() if value not in (None, [], False)}
    settings.pop("task")  # it is in the first sentence
    names = {"model": "initial weights, sha256", "train": "training rows, sha256", "dev": "dev rows, sha256"}
    digests = {title: f"`{settings.pop(key)}`" for key, title in names.items()}
    facts = {"steps": f"{result['step']:,}, of which this model had {result['best_step']:,}"}
    facts |= {key.replace("_", " "): _value(value) for key, value in settings.items()}
    return ["## Training", "", *_table(("", ""), (facts | digests).items()), ""]


def _tuned(metrics: dict[str, float | None], content: dict[str, Any]) -> list[str]:
    if "seeds" not in content:
        return _table(("metric", "value"), ((key, _number(value)) for key, value in metrics.items()))
    columns = (metrics, content["mean"], content["deviation"])
    rows = ((key, *(_number(values[key]) for values in columns)) for key in metrics if key in content["mean"])
    return _table(("metric", "this model", f"mean of the seeds {', '.join(content['seeds'])}", "deviation"), rows)


def has_own_rates(phases: Any) -> bool:
    """Return whether the phases in a state, as `PhaseTable.describe` writes them, decide the learning rate."""
    words = [word for phase in phases for word in str(phase).split()] if isinstance(phases, list) else []
    return any(word.startswith(("decay=", "learning_rate=", "final_learning_rate=")) for word in words)


def _training(state: TrainingState) -> list[str]:
    recipe = {key: value for key, value in state.schedule.items() if value not in (None, [], False)}
    recipe.pop("max_seq_length", None)  # it is in the table of legs
    if has_own_rates(recipe.get("phases")):  # then --decay has no effect
        recipe.pop("decay", None)
        recipe.pop("decay_ratio", None)
    init_from = recipe.pop("init_from", None)
    legs = state.progress.legs
    ends = [leg.step for leg in legs[1:]] + [state.step]
    facts: dict[str, Any] = {
        "steps": f"{state.step:,}",
        "tokens, without padding": f"{state.progress.tokens:,}",
        "hours": f"{state.progress.seconds / 3600:.2f}",
        "initial weights": f"those of {Path(init_from).name}" if init_from else "random",
        "seed": state.seed,
        **{key.replace("_", " "): _value(value) for key, value in recipe.items()},
        "vocabulary, sha256": f"`{state.vocabulary_sha256}`",
        "stream digest": f"`{state.progress.stream}`",
    }
    rows = [
        (
            f"{leg.step + 1:,}" + (f" to {end:,}" if end > leg.step + 1 else ""),
            leg.max_seq_length,
            leg.batch_size,
            "<br>".join(f"{name} {shares[name]}`{digest}`".lstrip() for name, digest in leg.digests().items()),
        )
        for leg, end, shares in zip(legs, ends, map(_shares, legs))
        if end > leg.step
    ]
    changes = [f"- at step {c['step']:,}, {c['name']} from {c['before']} to {c['after']}" for c in state.changes]
    return [
        "## Training",
        "",
        *_table(("", ""), facts.items()),
        "",
        *_table(("steps", "length", "examples per step", "data, sha256 of shards.parquet"), rows),
        "",
        *(["Settings changed during training:", "", *changes, ""] if changes else []),
    ]


def _shares(leg: Leg) -> dict[str, str]:
    """Return the share of each data set of a leg by its name, as text; nothing if the run has one."""
    total = sum(source.share for source in leg.sources)
    return {source.name: f"{source.share / total:.3g} " for source in leg.sources} or {"": ""}


def _measured(state: TrainingState, lines: list[dict[str, Any]]) -> list[str]:
    rows: list[tuple[str, str, str]] = []
    for split, where in (("validation", "held out"), ("train", "training batch")):
        found = [line for line in lines if line["split"] == split]
        if not found:
            continue
        last = found[-1]
        where += f", step {last['step']:,}"
        if split == "validation":
            where += f", {counted(last.get('num_examples', 0), 'example')}"
        has_pairs = last.get("nsp_loss") != 0
        names = [key for key in MEASURED if key in numbers(last) and (has_pairs or not key.startswith("nsp"))]
        rows += [(MEASURED[key], where, _number(last[key])) for key in names]
        if not has_pairs and split == "train":
            rows.append(("next sentence", where, "not trained: the data has no pairs"))
    return ["## Metrics", "", *_table(("", "on", "value"), rows), ""] if rows else []


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    head = list(head)
    return [_row(head), "|" + " --- |" * len(head), *map(_row, rows)]


def _row(cells: Iterable[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _software() -> str:
    try:
        return f"bertloom {version('bertloom')}"
    except PackageNotFoundError:
        return "bertloom"
