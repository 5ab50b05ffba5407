"""What to train in a number of hours, and which measured runs each recommendation rests on.

measured_runs.toml lists these runs. Only four layers of 128 and modern-tiny were measured. For larger models the preset's
own values are given, with a note that they are not measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

from bertloom.json_files import parse_toml
from jobs.support.config import parse
from jobs.support.pretrain_config import PretrainConfig
from model.schedule import parse_phases

BERT, MODERN = ("tiny", "mini", "small", "base", "large"), ("modern-tiny", "modern-mini", "modern-small", "modern-base")
BERT_WORDS = 30_522
LARGE_TEXT = 200_000_000
"""Tokens of text from which BERT's size of the vocabulary is recommended: about ten times what was measured."""
MOST_PASSES = 40
"""Largest number of passes over the text: BERT made about 40 (Devlin et al. 2019)."""
FILL = 0.95
"""Share of an example's length that is real tokens: benchmarks/results/train-base-128.md."""
MASKED = 0.15
"""Share of the tokens for which the words of the vocabulary are scored."""
OWN = "the preset's own value. Not measured in docs/results.md"


@dataclass(frozen=True)
class Advice:
    """A recommended value."""

    what: str
    value: str
    why: str


def measured_runs() -> dict[str, dict[str, Any]]:
    """Return the rules of measured_runs.toml by name."""
    return parse_toml((files("jobs.support") / "measured_runs.toml").read_bytes(), "measured_runs.toml")


def preset_config(preset: str, words: Sequence[str] = ()) -> PretrainConfig:
    """Return the configuration of a preset, or of a .toml file. ValueError if there is none of this name."""
    return parse(
        PretrainConfig, [*preset.split(), *words, "--data", "DATASET", "--out", "RUN"], prog="bertloom pretrain"
    )


def num_weights(config: PretrainConfig, vocabulary_size: int) -> int:
    """Return the number of weights of the model."""
    import torch

    from model.heads import PretrainingModel
    from model.shape import EncoderConfig

    with torch.device("meta"):
        model = PretrainingModel(EncoderConfig(shape=config.model, vocab_size=vocabulary_size))
    return sum(parameter.numel() for parameter in model.parameters())


def cost_per_token(config: PretrainConfig, vocabulary_size: int) -> float:
    """Return the multiplications of a token in the matrix products of the forward pass, without attention between tokens."""
    embeddings = vocabulary_size * config.model.hidden_size
    return num_weights(config, vocabulary_size) - embeddings * (1 - MASKED)


def recommend(hours: float, tokens_per_second: float, preset: str, text_tokens: float) -> list[Advice]:
    """Return what to train.

    Args:
        tokens_per_second: measured in a training of `preset`, on this machine.
        text_tokens: tokens of all texts, once.
    """
    runs, is_modern = measured_runs(), preset.startswith("modern")

    def of_run(what: str, name: str, value: str | None = None) -> Advice:
        run = runs[name]
        return Advice(what, value or str(run["value"]), f"{run['why']} ({run['page']}, {run['section']})")

    large_text = text_tokens >= LARGE_TEXT
    words = BERT_WORDS if large_text else int(runs["vocabulary"]["value"])
    small_run = "small_modern_shape" if is_modern else "small_shape"
    small, rule = str(runs[small_run]["value"]), runs["tokens_per_weight"]
    known = cost_per_token(preset_config(preset), words)
    chosen, in_time = small, 0.0
    for name in [small, *(MODERN if is_modern else BERT)[1:]]:
        config = preset_config(name)
        tokens = hours * 3600 * tokens_per_second * known / cost_per_token(config, words)
        needed = rule["value"] * num_weights(config, words)
        if name == small or min(tokens, MOST_PASSES * text_tokens) >= needed:
            chosen, in_time = name, tokens
    num_tokens = min(in_time, MOST_PASSES * text_tokens)
    is_small, config = chosen == small, preset_config(chosen)
    why = f"{in_time / 1e6:,.1f} million tokens in {hours:g} hours"
    if chosen != preset:
        why += f", by the speed of {preset} and the ratio of their operations"
    if num_tokens < in_time:
        why += f". The text has {num_tokens / 1e6:,.1f} million in {MOST_PASSES} passes; BERT made {MOST_PASSES}, too"
    if is_small:
        why += f". {of_run('', small_run).why}"
    else:
        why += (
            f". The largest preset with {rule['value']} tokens for each weight. {of_run('', 'tokens_per_weight').why}. "
        )
        why += "Models of this size are not measured there"
    if num_tokens < runs["least_tokens"]["value"]:
        why += f". This is little. {of_run('', 'least_tokens').why}"
    phases = list(runs["phases"]["value"]) if is_small else ["128:0.9", "512:0.1"]
    per_step = sum(
        phase.share * phase.batch_size * phase.max_seq_length * FILL
        for phase in parse_phases(phases, config.batch_size)
    )
    advice = [
        Advice("preset", chosen, why),
        of_run("vocabulary", "vocabulary", f"{words:,}")
        if not large_text
        else Advice("vocabulary", f"{words:,}", "as BERT (Devlin et al. 2019). Not measured in docs/results.md"),
        of_run("phases", "phases", " ".join(phases))
        if is_small
        else Advice("phases", " ".join(phases), "as BERT (Devlin et al. 2019). Not measured in docs/results.md"),
        Advice("steps", f"{max(1, round(num_tokens / per_step)):,}", f"of about {per_step:,.0f} tokens"),
        of_run("batch size", "phases", "64, then 32")
        if is_small
        else Advice("batch size", f"{config.batch_size:,}", OWN),
        of_run("learning rate", "learning_rate")
        if is_small
        else Advice("learning rate", f"{config.learning_rate:g}", OWN),
        of_run("decay", "decay") if is_small else Advice("decay", config.decay, OWN),
    ]
    passes = f"{num_tokens / max(1.0, text_tokens):,.1f}"
    return [*advice, Advice("passes", passes, f"over the text. {of_run('', 'passes').why}")]


def of_data_sets(advice: Sequence[Advice], vocabulary_size: int, lengths: Sequence[int]) -> list[Advice]:
    """Return the advice with what finished data sets do not have, for which they must be made again.

    Args:
        vocabulary_size: of the data sets.
        lengths: of their examples.
    """
    found = []
    for one in advice:
        have = ""
        if one.what == "vocabulary" and one.value != f"{vocabulary_size:,}":
            have = f"{vocabulary_size:,} words"
        elif one.what == "phases" and {int(word.partition(":")[0]) for word in one.value.split()} - {*lengths}:
            have = f"examples of {', '.join(map(str, lengths)) or 'different'} tokens"
        again = f". The data sets have {have}: this needs preprocessing again" if have else ""
        found.append(replace(one, why=one.why + again))
    return found
