"""The files by which sentence-transformers turns a model's directory into vectors of texts.

    modules.json                         the modules: Transformer, Pooling and perhaps Normalize
    1_Pooling/config.json                how the vectors of the tokens become one
    sentence_bert_config.json            the number of tokens that are read of a text
    config_sentence_transformers.json    that vectors are compared by their cosine

They are written in the form that all its versions from 2 on read; version 6 writes another one, which is also read.
"""

import json
from pathlib import Path
from typing import Any, get_args

from bertloom.json_files import decode_json, read_json, read_regular
from bertloom.shapes import check_shape, shown
from model.pooling import Pooling, VectorForm

MODULES = "modules.json"
LENGTHS = "sentence_bert_config.json"
SETTINGS = "config_sentence_transformers.json"
OLD_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""The names of poolings in the form of versions before 6."""


def read_vector_form(directory: Path, max_seq_length: int) -> VectorForm | None:
    """Return how sentence-transformers makes vectors with the model in a directory; None if it is not one of its models.

    Args:
        max_seq_length: tokens of a text that the model reads, if sentence-transformers' files do not name a smaller number.

    Raises:
        ValueError: it has a module or a pooling that bertloom does not have.
    """
    path = directory / MODULES
    if not path.exists():
        return None
    modules = decode_json(read_regular(path), str(path))
    check_shape({"modules": modules}, {"modules": [{"path": str, "type": str}]}, str(path))
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ValueError(
            f"{path}: its modules are {', '.join(kinds)[:200]}: expected Transformer, Pooling and perhaps Normalize; other "
            f"modules change the vectors, so embed with sentence-transformers, or remove {MODULES} to use the encoder alone"
        )
    check_texts(directory)
    return VectorForm(
        pooling=pooling_of(inside(directory, modules[1]["path"], path) / "config.json"),
        normalize=len(kinds) == 3,
        max_seq_length=min(longest_text(directory), max_seq_length),
    )


def check_texts(directory: Path) -> None:
    """Raise ValueError if sentence-transformers changes texts before the tokenizer reads them, which bertloom does not."""
    path = directory / LENGTHS
    if path.exists() and read_json(path).get("do_lower_case") not in (None, False):
        raise ValueError(f"{path}: do_lower_case is set: if the tokenizer itself lower-cases, set it to false")
    path = directory / SETTINGS
    content = read_json(path) if path.exists() else {}
    if (name := content.get("default_prompt_name")) is not None:
        raise ValueError(
            f"{path}: default_prompt_name is {shown(name)}: bertloom puts no prompt before a text; set it to null, and put "
            f"the prompt into the texts"
        )


def inside(directory: Path, name: str, where: Path) -> Path:
    """Return the folder of a module; ValueError if it is not right inside the model's directory."""
    if Path(name).name != name:
        raise ValueError(f"{where}: path is {name!r:.80}, expected the name of a folder, such as 1_Pooling")
    return directory / name


def pooling_of(path: Path) -> Pooling:
    """Return the pooling in the configuration of the module Pooling."""
    content = read_json(path)
    mode: Any = content.get("pooling_mode")
    if mode is None:
        modes = [mode for name, mode in OLD_MODES.items() if content.get(name) is True]
        mode = modes[0] if len(modes) == 1 else modes or "mean"
    if mode not in get_args(Pooling):
        raise ValueError(f"{path}: the pooling is {shown(mode)}: expected {' or '.join(get_args(Pooling))}")
    pooling: Pooling = mode
    return pooling


def longest_text(directory: Path) -> int:
    """Return the number of tokens that sentence-transformers reads of a text, 2^20 if its files do not name it."""
    path = directory / LENGTHS
    length = read_json(path).get("max_seq_length") if path.exists() else None
    return length if isinstance(length, int) and length >= 3 else 1 << 20


def write_vector_files(form: VectorForm, hidden_size: int, directory: Path) -> None:
    """Write the files into an existing directory of a model."""
    names = ["Transformer", "Pooling"] + ["Normalize"] * form.normalize
    paths = ["" if number == 0 else f"{number}_{name}" for number, name in enumerate(names)]
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{name}"}
        for number, (name, path) in enumerate(zip(names, paths))
    ]
    for path in paths[1:]:
        (directory / path).mkdir(exist_ok=True)
    modes = {name: mode == form.pooling for name, mode in OLD_MODES.items()}
    files: dict[str, Any] = {
        MODULES: modules,
        f"{paths[1]}/config.json": {"word_embedding_dimension": hidden_size, **modes},
        LENGTHS: {"max_seq_length": form.max_seq_length, "do_lower_case": False},
        SETTINGS: {"similarity_fn_name": "cosine"},
    }
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
