"""Files of settings, flags, and configurations of models to change and read, see `tests/mutants.py`.

python -m tests.jobs.settings_mutants phases 1000 7
"""

import json
import random
import tomllib
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import tomli_w

from bertloom.json_files import decode_json, read_json
from jobs.bench_tasks import read_tasks
from jobs.build_vocab import BuildVocabConfig
from jobs.preprocess import PreprocessConfig
from jobs.pretrain import PretrainConfig
from jobs.support.config import parse
from jobs.support.finetune_config import FinetuneConfig
from jobs.support.inputs import read_inputs
from jobs.support.phase_tables import FOLDER, phases_of, read_table, table_names
from model.bert_config import BertShape
from model.encoders import build_encoder, config_from
from model.hub.config import read_config, write_config
from model.hub.vector_files import VectorForm, read_vector_form, write_vector_files
from model.modern_bert_config import ModernBertShape
from model.shape import EncoderConfig
from pipeline.inputs.corpora import corpora
from pipeline.inputs.documents import TextConfig
from tests.mutants import VALUES, Seeds, Target, Use, change_value, main, mutate

PRESETS = Path(__file__).parent.parent.parent / "jobs/presets"
CONFIGS: dict[str, tuple[type, dict[str, Any], list[str]]] = {
    "pretrain": (
        PretrainConfig,
        {"learning_rate": 1e-3, "phases": ["128:0.9", "512:0.1:64"], "budget": "2h", "seed": 1, "warmup_ratio": 0.1}
        | {"model": {"hidden_size": 64, "encoder": "bert"}, "data": ["a=A:0.5", "B:0.5:epochs=2"], "remask": True},
        ["--data", "D", "--out", "O"],
    ),
    "preprocess": (
        PreprocessConfig,
        {"like": "c4", "max_seq_length": [128, 512], "dupe_factor": 5, "languages": ["en"], "pairs": "sop"}
        | {"validation_fraction": 0.01, "sentences": "icu:ja", "gates": {"fail": True, "max_unknown": 0.1}}
        | {"encoding": "gb18030", "records": "lines", "document_start": "^ = "},
        ["--input", "I", "--vocab", "V", "--out", "O"],
    ),
    "build-vocab": (
        BuildVocabConfig,
        {"vocab_size": 8000, "model": "bpe", "do_lower_case": False, "like": "bookcorpus"},
        ["--input", "I", "--vocab-size", "8000", "--out", "O"],
    ),
    "finetune": (
        FinetuneConfig,
        {"columns": ["text=review", "label=stars"], "pooling": "mean", "max_seq_length": 64, "learning_rate": 1e-5},
        ["--model", "M", "--task", "classify", "--train", "T", "--dev", "D", "--out", "O"],
    ),
}
"""Classes of configurations, some values, and the flags that they need."""


def toml(table: dict[str, Any]) -> bytes:
    return tomli_w.dumps(table).encode()


def phases() -> Seeds:
    seeds = {f"{name}.toml": (FOLDER / f"{name}.toml").read_bytes() for name in table_names()}
    full = {"share": 0.5, "max_seq_length": 128, "batch_size": 64, "data": ["a=A:0.5", "B:0.5:epochs=2"]}
    full |= {"temperature": 0.3, "masked_lm_prob": 0.3, "decay": "linear", "learning_rate": 1.0}
    return seeds | {"full.toml": toml({"phase": [full, {"share": 0.5, "final_learning_rate": 0.1, "decay": "sqrt"}]})}


def lists_of_inputs() -> Seeds:
    tables: list[dict[str, Any]] = [{"path": "a.jsonl", "name": "web", "like": "c4", "tokens": 1000}]
    tables.append(
        {"path": ["b/*.txt", "@list"], "languages": ["en", "zh"], "sample": 0.5, "gates": {"max_unknown": 0.1}}
    )
    tables += [{"path": "c", "like": name} for name in list(corpora())[::3]]
    tables.append({"path": "d.csv", "text_column": "1", "header": "no", "encoding": "cp1252", "quality_filter": ["c4"]})
    return {"corpus.toml": toml({"input": tables}), "one.toml": toml({"input": tables[:1]})}


def lists_of_tasks() -> Seeds:
    task = {"task": "classify", "train": "a.jsonl", "dev": "b.jsonl", "columns": ["text=review"], "max_seq_length": 64}
    return {"tasks.toml": toml({"learning_rate": 1e-5, "seeds": [1, 2], "one": task, "two": task | {"task": "pair"}})}


def presets(name: str) -> Seeds:
    seeds = {"own.toml": toml(CONFIGS[name][1])}
    if name == "pretrain":
        seeds |= {path.name: path.read_bytes() for path in PRESETS.glob("*.toml")}
    return seeds


def change_toml(original: Seeds, place: Path, draw: random.Random) -> Path:
    """Change the values of a TOML file, or its bytes."""
    name = draw.choice(sorted(original))
    path, content = place.with_name(f"{place.name}-{name}"), original[name]
    with suppress(TypeError, ValueError, AttributeError):
        values = tomllib.loads(content.decode())
        for _ in range(draw.choice((1, 1, 2, 3))):
            values = change_value(values, draw)
        content = tomli_w.dumps(values).encode(errors="replace")
    if content == original[name] or draw.random() < 0.3:
        content = mutate(content or b"a = 1", [*original.values()], draw)
    path.write_bytes(content)
    return path


def toml_target(seeds: Callable[[], Seeds], use: Callable[[Path], object], is_named: bool = True) -> Target:
    return Target(
        lambda folder: seeds(),
        change_toml,
        lambda original, path, draw: [partial(use, path)],
        500,
        errors=(ValueError,),
        is_named=is_named,
    )


def use_phases(path: Path) -> None:
    table = read_table([str(path)])
    with suppress(ValueError):  # names the phase, not the file
        phases_of(table, 32)
    for phase in table:
        with suppress(ValueError):
            phase.describe()


def use_preset(name: str, path: Path) -> None:
    config, _, flags = CONFIGS[name]
    parse(config, [str(path), *flags], "x")


# ---- flags


def change_flags(original: object, place: Path, draw: random.Random) -> Path:
    """Write the words of a command: flags that it has, with any values."""
    name = draw.choice(sorted(CONFIGS))
    config, values, words = CONFIGS[name]
    words = list(words)
    for _ in range(draw.choice((1, 1, 2, 4))):
        key = draw.choice(sorted(values))
        given = draw.choice([*VALUES, *values.values(), "None", "--", "-1", "@", "a=b=c", "128:0.5", "x:epochs=0"])
        words += [f"--{key.replace('_', '-')}", *(map(str, given) if isinstance(given, list) else [str(given)])]
    path = place.with_name(f"{place.name}.json")
    path.write_text(json.dumps([name, words]))
    return path


def use_flags(path: Path) -> None:
    """Parse the words. tyro prints its own errors, in a few lines, and ends with the status 2."""
    name, words = json.loads(path.read_text())
    try:
        parse(CONFIGS[name][0], words, "x")
    except SystemExit as end:
        assert end.code in (0, 2)


# ---- configurations of models


def models(folder: Path) -> Path:
    """Directories with config.json of each encoder, and the files of sentence-transformers."""
    modern = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    shapes = {"bert": BertShape(num_hidden_layers=2), "modern": ModernBertShape(**modern)}
    for name, shape in shapes.items():
        config = EncoderConfig(shape=shape, vocab_size=1000)
        for form in ("ForPreTraining", "Model"):
            directory = folder / f"{name}-{form}"
            directory.mkdir(parents=True)
            (directory / "config.json").write_text(json.dumps(write_config(config, form)))
            (directory / "values.json").write_text(json.dumps(config.values()))
            write_vector_files(VectorForm(pooling="mean", normalize=True, max_seq_length=64), 64, directory)
    return folder


def change_model(original: Path, place: Path, draw: random.Random) -> Path:
    files = sorted(path for path in original.rglob("*.json"))
    chosen = draw.choice([path for path in files if path.name == "config.json" or draw.random() < 0.4])
    directory = original / chosen.relative_to(original).parts[0]
    for file in files:
        if file.is_relative_to(directory):
            content = file.read_bytes()
            if file == chosen:
                value = decode_json(content, "")
                for _ in range(draw.choice((1, 1, 2, 3))):
                    value = change_value(value, draw)
                content = json.dumps(value).encode()
                content = mutate(content, [content], draw) if draw.random() < 0.2 else content
            (place / file.relative_to(directory)).parent.mkdir(parents=True, exist_ok=True)
            (place / file.relative_to(directory)).write_bytes(content)
    return place


def read_model(folder: Path) -> None:
    config = read_config(read_json(folder / "config.json"), str(folder / "config.json"))
    again = read_config(json.loads(json.dumps(write_config(config, "Model"))), "again")
    assert again == config, (config, again)
    _build(config)


def _build(config: EncoderConfig) -> None:
    import torch

    if config.shape.num_hidden_layers <= 4:
        with torch.device("meta"):
            build_encoder(config)


def use_models(original: Path, folder: Path, draw: random.Random) -> list[Use]:
    values = partial(lambda path: config_from(read_json(path)), folder / "values.json")
    return [partial(read_model, folder), partial(read_vector_form, folder, 512), values]


TARGETS = {
    "phases": toml_target(phases, use_phases),
    "inputs": toml_target(lists_of_inputs, lambda path: read_inputs(str(path), TextConfig())),
    "tasks": toml_target(lists_of_tasks, read_tasks),
    **{f"{name}-preset": toml_target(partial(presets, name), partial(use_preset, name), False) for name in CONFIGS},
    "flags": Target(
        lambda folder: None, change_flags, lambda _, path, draw: [partial(use_flags, path)], 500, errors=(ValueError,)
    ),
    "models": Target(models, change_model, use_models, 1000),
}

if __name__ == "__main__":
    main(TARGETS)
