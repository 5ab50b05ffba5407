"""Weights, to and from the directories that transformers reads: names of tensors, and the files.

No number changes. Fused tensors are split, and the tied decoder is not stored twice; `HuggingFaceNames` has the tables.
"""

import json
import logging
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bertloom.counts import counted
from bertloom.json_files import check_regular, read_json
from bertloom.shapes import shown
from model.encoders import names_of
from model.heads import PretrainingModel, expected_tensors
from model.hub.config import class_name, read_config, write_config
from model.hub.tensor_bundle import read_index
from model.hub.tensorflow_names import index_file, read_checkpoint
from model.hub.tokenizer import TextTokenizer, save_tokenizer
from model.hub.vector_files import write_vector_files
from model.pooling import VectorForm
from model.shape import EncoderConfig
from model.tensor_files import read_tensors, write_tensors

SHARD_NAME = re.compile(r"[A-Za-z0-9_.-]*[A-Za-z0-9_-]\.(safetensors|bin)")
"""Names of files in an index: plain names, without a folder."""
WRAPPERS = re.compile(r"((module|_orig_mod|model)\.)+")
"""What DistributedDataParallel, torch.compile and Lightning put in front of the names of tensors."""

logger = logging.getLogger("bertloom")


class HasForm(Protocol):
    """A model of ours that a class of transformers reads."""

    form: str
    """Second part of that class's name, such as "ForPreTraining"."""
    config: EncoderConfig


def name_table(config: EncoderConfig, form: str | None) -> dict[str, list[str]]:
    """Return the names in transformers of each of our tensors: one name, or those that a fused one is split into.

    form: second part of the class's name in transformers; None for the encoder alone.
    """
    names = names_of(config)
    table = {}
    heads = {} if form is None else names.heads[form]
    singles = {ours: [theirs] for ours, theirs in (dict(names.encoder) | dict(heads)).items()}
    for ours, theirs in (singles | dict(names.fused)).items():
        for layer in range(config.shape.num_hidden_layers) if "{}" in ours else [0]:
            for kind in [""] if ours.endswith((".weight", ".bias")) else [".weight", ".bias"]:
                table[ours.format(layer) + kind] = [name.format(layer) + kind for name in theirs]
    return {ours: theirs for ours, theirs in table.items() if ours not in names.absent}


def to_hugging_face(
    state: Mapping[str, Tensor], config: EncoderConfig, form: str = "ForPreTraining"
) -> dict[str, Tensor]:
    """Return the same tensors (weights, or gradients) under transformers' names.

    Raises:
        ValueError: transformers' class has no place for a tensor, as for those of batch normalisation.
    """
    table = name_table(config, form)
    if unknown := sorted(state.keys() - table.keys()):
        raise ValueError(
            f"the model has {unknown[0]}, which transformers' {names_of(config).prefix}{form} has no place for. "
            f"A model with batch normalisation cannot be exported: train one with --model.normalization layer"
        )
    converted: dict[str, Tensor] = {}
    for ours, theirs in table.items():
        parts = state[ours].chunk(len(theirs))
        converted |= {name: part.contiguous() for name, part in zip(theirs, parts)}
    return converted


def from_hugging_face(
    state: Mapping[str, Tensor], config: EncoderConfig, form: str | None = "ForPreTraining"
) -> dict[str, Tensor]:
    """Return the same tensors under our names, without those we have no name for (the tied decoder, buffers).

    Args:
        form: see `name_table`.

    Raises:
        ValueError: a tensor is missing, as the head for pairs is in a checkpoint of BertForMaskedLM; or the decoder is
            not the word embeddings.
    """
    names, table = names_of(config), name_table(config, form)
    missing = [name for theirs in table.values() for name in theirs if name not in state]
    if missing:
        raise ValueError(f"{_missing(missing)}: this is not a {names.prefix}{form or 'Model'}")
    words = state[names.word_embeddings]
    if "mlm.bias" in table and not torch.equal(state.get(names.decoder, words), words):
        raise ValueError(f"{names.decoder} is not the word embeddings: only tied ones can be read")
    return {ours: torch.cat([state[name] for name in theirs]) for ours, theirs in table.items()}


def save_pretrained(
    model: HasForm,
    directory: str | os.PathLike[str],
    tokenizer: TextTokenizer | None = None,
    max_seq_length: int | None = None,
    vectors: VectorForm | None = None,
    **configuration: Any,
) -> None:
    """Write a directory that `from_pretrained` of the model's class in transformers reads.

    Args:
        directory: made if it does not exist; gets config.json and model.safetensors.
        tokenizer: written too if it is given, so that AutoTokenizer reads the directory.
        max_seq_length: length of the longest sequences that the model was trained on, where tokenizers will truncate; by
            default the longest that it can read.
        vectors: of a model for vectors of texts; sentence-transformers then reads the directory, too.
        configuration: more of config.json, such as id2label.
    """
    assert isinstance(model, nn.Module)
    state = to_hugging_face(model.state_dict(), model.config, model.form)
    write_pretrained(state, model.config, model.form, directory, tokenizer, max_seq_length, vectors, **configuration)


def write_pretrained(
    state: Mapping[str, Tensor],
    config: EncoderConfig,
    form: str,
    directory: str | os.PathLike[str],
    tokenizer: TextTokenizer | None = None,
    max_seq_length: int | None = None,
    vectors: VectorForm | None = None,
    **configuration: Any,
) -> None:
    """Write the directory of `save_pretrained` from weights that already have transformers' names.

    Tensors that no class of transformers has a place for are left out, with a note in the log.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    names = names_of(config)
    for own, written in names.written_as.items():
        whole, kept = ({*chain(*name_table(config, each).values())} for each in (own, written))
        if left_out := sorted(state.keys() & (whole - kept)):
            logger.warning("left out %s: %s has no place for them", ", ".join(left_out), class_name(config, form))
            state = {name: tensor for name, tensor in state.items() if name not in left_out}
    content = write_config(config, form) | configuration
    if tokenizer is not None:
        content |= {theirs: getattr(tokenizer, ours) for theirs, ours in names.token_ids.items()}
        length = max_seq_length or config.shape.max_position_embeddings
        save_tokenizer(tokenizer, directory, length, config.shape.has_token_types)
    if vectors is not None:
        write_vector_files(vectors, config.shape.hidden_size, directory)
    cpu = {name: tensor.cpu() for name, tensor in state.items()}
    write_tensors(cpu, directory / "model.safetensors", {"format": "pt"})
    (directory / "config.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    # safetensors makes files that only their owner may read.
    (directory / "model.safetensors").chmod((directory / "config.json").stat().st_mode)


def load_pretrained(directory: str | os.PathLike[str]) -> PretrainingModel:
    """Return the model in a directory that transformers or `save_pretrained` wrote.

    Raises:
        ValueError: bertloom has no encoder for it, or it does not have both heads.
    """
    config = read_config(read_json(Path(directory) / "config.json"), f"{directory}/config.json")
    state = from_hugging_face(read_weights(Path(directory), config), config)
    model = PretrainingModel(config)
    load_weights(model, state, str(directory))
    return model


def weights_files(directory: Path) -> list[Path]:
    """Return the files in a model directory that hold the weights: one, or those that an index lists."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (directory / name).exists():
            return [directory / name]
        if (directory / f"{name}.index.json").exists():
            return listed_files(directory / f"{name}.index.json")
    if index := index_file(directory):
        return [index, *read_index(index)[1]]
    raise ValueError(f"{directory} has neither model.safetensors nor pytorch_model.bin: there are no weights to read")


def listed_files(index: Path) -> list[Path]:
    """Return the files that an index of transformers lists; ValueError if a name has another form than SHARD_NAME."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{index} has no weight_map: expected the names of tensors, each with the name of its file")
    for name in places.values():
        if not isinstance(name, str) or not SHARD_NAME.fullmatch(name):
            raise ValueError(
                f"{index} names the file {shown(name)}: expected one like model-00001-of-00002.safetensors"
            )
        if not (index.parent / name).exists():
            raise ValueError(f"{index.parent / name} is missing: {index.name} lists it; copy all files of the model")
    return [index.parent / name for name in sorted(set(places.values()))]


def read_weights(directory: Path, config: EncoderConfig) -> dict[str, Tensor]:
    """Return the weights in a model directory in fp32, under the names that transformers gives them today.

    Those of a bare encoder get its name in front, such as `bert.`; `gamma` and `beta` of old checkpoints become weight
    and bias; what DistributedDataParallel, torch.compile and Lightning put in front of names is removed.

    Raises:
        ValueError: the directory has no weights, a file is damaged or holds something else too, or a shape differs from
            config.json.
    """
    state: dict[str, Tensor] = {}
    paths = weights_files(directory)
    if paths[0].suffix == ".index":
        state = read_checkpoint(paths[0])
    else:
        for path in paths:
            state |= read_tensors(path) if path.suffix == ".safetensors" else read_pickled(path)
    where = paths[0] if len(paths) == 1 else directory
    names = names_of(config)
    base = f"{names.base}."
    wrapped = wrapper_of(state, names.word_embeddings.removeprefix(base), base, where)
    prefix = base if names.word_embeddings.removeprefix(base) in {name.removeprefix(wrapped) for name in state} else ""
    today = {
        name: prefix + name.removeprefix(wrapped).replace(".gamma", ".weight").replace(".beta", ".bias")
        for name in state
    }
    renamed = {today[name]: tensor for name, tensor in state.items()}
    check_shapes(renamed, config, where)
    return {name: tensor.float() for name, tensor in renamed.items()}


def read_pickled(path: Path) -> dict[str, Tensor]:
    """Return the tensors that `torch.save` wrote; ValueError if the file is damaged or holds anything else."""
    with open(check_regular(path), "rb") as file:
        is_archive = file.read(4) == b"PK\x03\x04"  # as torch decides
    if is_archive:
        check_stored(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)  # refuses what would run code
    except Exception as error:  # its unpickler raises whatever a wrong opcode leads to
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} cannot be read, it is damaged or holds more than weights: {what[:200]}") from None
    check_weights(state, path)
    weights: dict[str, Tensor] = state
    return weights


def check_stored(path: Path) -> None:
    """Raise ValueError if an archive is compressed: it may grow without bound, and torch never compresses one."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        raise ValueError(f"{path} cannot be read, it is damaged: {error}") from None
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError(f"{path} is compressed, which torch.save does not do: save the model's state_dict() again")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ValueError(f"{path} cannot be read, it is damaged: its parts are larger than the file")


def wrapper_of(state: Mapping[str, Tensor], words: str, base: str, where: Path) -> str:
    """Return what wrappers put in front of the names, such as `module.`, with a note in the log; "" if nothing.

    Args:
        words: name of the word embeddings in a bare encoder.
        base: what a model with a head puts before it.

    Raises:
        ValueError: something else is in front.
    """
    found = [name.removesuffix(words).removesuffix(base) for name in state if name.endswith(words)]
    if not found or "" in found:
        return ""
    if len(found) > 1 or not WRAPPERS.fullmatch(found[0]):
        raise ValueError(
            f"{where}: the names of the tensors begin with {found[0][:80]!r}, as in {found[0][:80] + words!r}, expected "
            f"{base + words!r}: save the state_dict() of that part of the model alone"
        )
    logger.warning("%s: %r was removed from the beginning of the tensors' names: a wrapper added it", where, found[0])
    return found[0]


def check_weights(state: object, path: Path) -> None:
    """Raise ValueError unless a file holds a dict of names and plain tensors."""
    if not isinstance(state, dict):
        wrong = f"{path} holds a {type(state).__name__}"
    elif others := [name for name in state if not isinstance(name, str)]:
        wrong = f"{path}: one of the names is {shown(others[0])}"
    elif others := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        wrong = f"{path}: {shown(others[0])} is a {type(state[others[0]]).__name__}"
    elif others := [name for name, tensor in state.items() if not is_whole(tensor)]:
        wrong = f"{path}: {shown(others[0])} is a tensor without numbers of its own"
    else:
        return
    raise ValueError(
        f"{wrong}, expected a dict of names and their tensors: save the model's state_dict() there, and nothing else"
    )


def is_whole(tensor: Tensor) -> bool:
    """Return whether each number of a tensor has its own place in memory; a sparse or expanded tensor has fewer."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_complex():
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def check_shapes(state: Mapping[str, Tensor], config: EncoderConfig, where: Path) -> None:
    """Raise ValueError unless the encoder is complete and every tensor has the shape that config.json gives.

    It is called before a model is made, so config.json cannot ask for a model that is larger than its weights.
    """
    names = [name for theirs in name_table(config, None).values() for name in theirs]
    if missing := [name for name in names if name not in state]:
        raise ValueError(
            f"{where}: {_missing(missing)}: this is not a {names_of(config).prefix}Model of "
            f"{counted(config.shape.num_hidden_layers, 'layer')}, as config.json says"
        )
    for name, tensor in to_hugging_face(expected_tensors(config), config).items():
        if name in state and state[name].shape != tensor.shape:
            raise ValueError(
                f"{where}: {name} has the shape {tuple(state[name].shape)}, config.json says {tuple(tensor.shape)}"
            )
        if name in state and not state[name].is_floating_point():
            raise ValueError(f"{where}: {name} holds {state[name].dtype}, expected floating-point numbers")


def load_weights(model: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Copy weights into a model; ValueError if their shapes are not those of its configuration."""
    for name, parameter in model.state_dict().items():
        if parameter.shape != state[name].shape:
            raise ValueError(
                f"{where}: {name} has the shape {tuple(state[name].shape)}, config.json says {tuple(parameter.shape)}"
            )
    model.load_state_dict(state)


def _missing(names: Sequence[str]) -> str:
    return f"{counted(len(names), 'tensor')} {'is' if len(names) == 1 else 'are'} missing, {names[0]} first"
