"""Check a BERT of transformers or google-research/bert, and write it as a run folder that `pretrain` can continue.

    bertloom import --hf bert-base-uncased --out RUN
    bertloom preprocess --input 'texts/*.txt' --vocab RUN/model --out DATASET
    bertloom pretrain RUN/config.toml --data DATASET --out MORE --num-steps 20000
    bertloom finetune --task classify --model RUN --train train.jsonl --dev dev.jsonl --out TUNED

The directory has config.json, model.safetensors or the older pytorch_model.bin, and tokenizer.json or vocab.txt. It may
also be one of google-research/bert, with bert_config.json, bert_model.ckpt.* and vocab.txt; TensorFlow is not needed.
Nothing is downloaded, and no code in the directory is run. Writes

    RUN/config.toml    a preset for `bertloom pretrain`: the shape of the model, the place of its weights, and a batch size
                       and learning rate for more training
    RUN/model/         the model in the current format of transformers, with unchanged weights

A model may lack the head for masked words or for next sentence prediction. Pretraining then starts with a new one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from bertloom.json_files import read_json
from bertloom.whole_files import whole_folder, write_text
from jobs.support.config import parse

CONTINUE = {"batch_size": 32, "learning_rate": 5e-5, "eval_every": 200, "num_eval_examples": 256, "save_every": 200}
"""Settings of the preset, as in google-research/bert's example of further pretraining, with evaluations that are short on a
CPU. The defaults of `pretrain` are for a new model on a GPU."""
COMMENT = """\
# Continues the pretraining of this model. The batch size and the learning rate suit some thousand steps on your own texts.
# Raise both for long training on a GPU (BERT used 256 and 1e-4).
"""


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Turn a BERT of Hugging Face transformers into a run folder that `pretrain` can continue."""

    hf: Path
    """Directory of the model, with config.json (or bert_config.json), the weights and the tokenizer."""
    out: Path
    """Run folder to write: a new or empty one."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """The result of an import."""

    architecture: str
    """The model's class in transformers: with both pretraining heads, with the one for masked words, or with none."""
    missing: list[str]
    """Pretraining heads without weights."""
    left_out: list[str]
    """Tensors that are not used in pretraining, such as the classifier of a task."""


def main(argv: Sequence[str]) -> None:
    config = parse(ImportConfig, argv, prog="bertloom import")
    from bertloom.tokenizer_files import read_tokenizer
    from model.hub.tokenizer import text_options

    found = import_model(config)
    model, shape = config.out / "model", read_json(config.out / "model" / "config.json")
    tokenizer = read_tokenizer(str(model))
    kind = tokenizer.content["model"]["type"]
    if tokenizer.is_bert:
        kind = "uncased" if text_options(tokenizer)["do_lower_case"] else "cased"
    print(
        f"{model} is a {found.architecture}: {shape['num_hidden_layers']} layers of {shape['hidden_size']}, "
        f"{shape['vocab_size']:,} words, {kind}"
    )
    if found.left_out:
        print(f"not imported: {', '.join(found.left_out)}")
    if found.missing:
        print(f"it has no {', '.join(found.missing)}: pretraining will start with new weights there")
    print(f"to continue: bertloom preprocess … --vocab {model}")
    print(f"    and then bertloom pretrain {config.out / 'config.toml'} --data … --out … --num-steps …")


def import_model(config: ImportConfig) -> Imported:
    """Write the run folder; ValueError if the directory has no BERT that bertloom can train, or not its vocabulary."""
    from model.encoders import names_of
    from model.heads import PretrainingModel
    from model.hub.initial_weights import copy_weights
    from model.hub.pretrained import configuration_file, open_pretrained
    from model.hub.weights import to_hugging_face, write_pretrained

    if not configuration_file(config.hf):
        what = "it has no config.json or bert_config.json" if config.hf.is_dir() else "the folder does not exist"
        raise ValueError(
            f"{config.hf} is not a model directory of transformers: {what}. Models are not downloaded: give a local folder"
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
        length, vectors = pretrained.max_seq_length, pretrained.vectors
        write_pretrained(weights, pretrained.config, form, folder / "model", pretrained.tokenizer, length, vectors)
        left_out = ("vocab_size", *pretrained.config.shape.training_fields)
        shape = {name: value for name, value in pretrained.config.values().items() if name not in left_out}
        write_text(
            folder / "config.toml",
            COMMENT + tomli_w.dumps({"init_from": str(config.out.resolve()), **CONTINUE, "model": shape}),
        )
    return found
