"""Reads a BERT from a directory in Hugging Face's form, checks it, and makes it a run folder to go on from.

    bertloom import --hf bert-base-uncased --out RUN
    bertloom preprocess --input 'texts/*.txt' --vocab RUN/model/vocab.txt --out DATASET
    bertloom pretrain RUN/config.toml --data DATASET --out MORE --num-steps 20000
    bertloom finetune --task classify --model RUN --train train.jsonl --dev dev.jsonl --out TUNED

The directory holds config.json, model.safetensors or an older pytorch_model.bin, and tokenizer.json or vocab.txt; nothing
is fetched, and nothing in it is run. Writes

    RUN/config.toml    a preset for `bertloom pretrain`: the shape of the model, and where its weights are
    RUN/model/         the model as transformers writes it today, every weight as it was

A model without a head for masked words or for the next sentence, as one for a task is, gets new ones in pretraining.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from bertloom.json_files import read_json
from bertloom.whole_files import whole_folder, write_text
from jobs.support.config import parse


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Reads a BERT from a directory in Hugging Face's form, checks it, and makes it a run folder to go on from."""

    hf: Path
    """The directory."""
    out: Path
    """The run folder to write: a new or empty one."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What was found in a directory."""

    architecture: str
    """The class that it is now: with all heads of pretraining, with that for masked words, or with none."""
    missing: list[str]
    """The heads of pretraining that it has no weights for."""
    left_out: list[str]
    """Tensors that no pretraining has, such as the classifier of a task."""


def main(argv: Sequence[str]) -> None:
    config = parse(ImportConfig, argv, prog="bertloom import")
    from model.hub.initial_weights import text_options

    found = import_model(config)
    model, shape = config.out / "model", read_json(config.out / "model" / "config.json")
    options = text_options(read_json(model / "tokenizer.json"))
    print(
        f"{model} is a {found.architecture}: {shape['num_hidden_layers']} layers of {shape['hidden_size']}, "
        f"{shape['vocab_size']:,} words, {'un' if options['do_lower_case'] else ''}cased"
    )
    if found.left_out:
        print(f"left out: {', '.join(found.left_out)}")
    if found.missing:
        print(f"it has no {', '.join(found.missing)}: pretraining will begin with new weights for that")
    flags = "" if options["do_lower_case"] else " --no-do-lower-case"
    if options["strip_accents"] != options["do_lower_case"]:
        flags += f" --strip-accents {options['strip_accents']}"
    print(f"to go on, bertloom preprocess … --vocab {model / 'vocab.txt'}{flags}")
    print(f"    and then bertloom pretrain {config.out / 'config.toml'} --data … --out … --num-steps …")


def import_model(config: ImportConfig) -> Imported:
    """Writes the run folder; ValueError if the directory holds no BERT that is like ours, or not its vocabulary."""
    from model.encoders import names_of
    from model.heads import PretrainingModel
    from model.hub.initial_weights import MAY_DIFFER, copy_weights
    from model.hub.pretrained import open_pretrained
    from model.hub.weights import to_hugging_face, write_pretrained

    if not (config.hf / "config.json").exists():
        what = "there is no such folder" if not config.hf.is_dir() else "it has no config.json"
        raise ValueError(
            f"{config.hf} is no directory in transformers' form: {what}; models are not fetched by their name"
        )
    with whole_folder(config.out) as folder:
        pretrained = open_pretrained(config.hf)
        model = PretrainingModel(pretrained.config)
        missing = copy_weights(model, pretrained)
        theirs = to_hugging_face(model.state_dict(), pretrained.config)
        weights = {name: tensor for name, tensor in theirs.items() if name in pretrained.weights}
        names = names_of(pretrained.config)
        form = "Model" if "mlm" in missing else "ForMaskedLM" if missing else "ForPreTraining"
        found = Imported(
            architecture=names.prefix + form,
            missing=missing,
            left_out=sorted(n for n in pretrained.weights if n not in weights and not n.endswith(names.copies)),
        )
        write_pretrained(weights, pretrained.config, form, folder / "model", pretrained.tokenizer)
        shape = {name: value for name, value in pretrained.config.values().items() if name not in MAY_DIFFER}
        write_text(folder / "config.toml", tomli_w.dumps({"init_from": str(config.out.resolve()), "model": shape}))
    return found
