"""Write a model as a directory that Hugging Face transformers reads.

    bertloom export --checkpoint RUN --out DIRECTORY
    bertloom export --checkpoint RUN --out DIRECTORY --step 20000

RUN is a finished run of `bertloom pretrain` or `finetune`, or a folder written by `bertloom import`. --step chooses one of
the checkpoints of a pretraining run, which need not be finished. Writes

    DIRECTORY/config.json, model.safetensors                 the model
    DIRECTORY/tokenizer.json, tokenizer_config.json, special_tokens_map.json; vocab.txt of a BERT's tokenizer
    DIRECTORY/modules.json, 1_Pooling, …                     of a model for vectors: what sentence-transformers reads
    DIRECTORY/README.md                                      the model card: data, settings, metrics
    DIRECTORY/model.onnx                                     with --onnx: the model for onnxruntime, on padded batches

The directory appears only when it is complete.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bertloom.whole_files import whole_folder, write_text
from jobs.support.config import parse

if TYPE_CHECKING:
    from model.hub.pretrained import Pretrained

logger = logging.getLogger("bertloom")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write a model as a directory that Hugging Face transformers reads."""

    checkpoint: Path
    """Run folder, or one of its checkpoints, RUN/checkpoints/step-00001000."""
    out: Path
    """Directory to write: a new or empty one."""
    step: int | None = None
    """Step of the checkpoint of a pretraining run. The default is the last one of a finished run."""
    onnx: bool = False
    """Also write model.onnx of a pretrained model, and check that onnxruntime computes the same as torch."""


def main(argv: Sequence[str]) -> None:
    config = parse(ExportConfig, argv, prog="bertloom export")
    model = export(config)
    print(f"{config.out} holds the {model.architecture} of {model.path}, with its tokenizer and a model card")


def export(config: ExportConfig) -> Pretrained:
    """Write the directory and return the model in it; ValueError if there is no model to write."""
    from jobs.support.model_card import pretraining_card, run_card
    from model.encoders import names_of
    from model.heads import PretrainingModel
    from model.hub.initial_weights import copy_weights
    from model.hub.onnx_export import write_onnx
    from model.hub.pretrained import open_pretrained
    from model.hub.weights import write_pretrained
    from model.runs.state import TrainingState, read_state

    if (config.checkpoint / "config.json").exists():
        raise ValueError(f"{config.checkpoint} is already in transformers' form: use or copy it as it is")
    path = config.checkpoint if config.step is None else checkpoint_of(config.checkpoint, config.step)
    with whole_folder(config.out) as folder:
        pretrained = open_pretrained(path)
        state = read_state(pretrained.path, TrainingState) if (pretrained.path / "state.json").exists() else None
        if state and path == config.checkpoint != pretrained.path and not state.is_finished:
            raise ValueError(
                f"{path} is not finished (step {state.step:,}): start `bertloom pretrain` again with its flags, or export "
                f"the model as it is now with --step {state.step}"
            )
        if state:
            if not (pretrained.path.parent.parent / "metrics.jsonl").exists():
                logger.warning("%s has no metrics.jsonl: the model card has no metrics", pretrained.path.parent.parent)
            card = pretraining_card(pretrained, state, config.out.resolve().name)
        else:
            card = run_card(pretrained, config.out.resolve().name)
        write_pretrained(
            pretrained.weights,
            pretrained.config,
            pretrained.form,
            folder,
            pretrained.tokenizer,
            pretrained.max_seq_length,
            pretrained.vectors,
            **pretrained.configuration,
        )
        write_text(folder / "README.md", card)
        if config.onnx:
            model = PretrainingModel(pretrained.config)
            heads = names_of(pretrained.config).heads.get(pretrained.form, {})
            if missing := [name for name in copy_weights(model, pretrained) if name == "mlm" or name in heads]:
                raise ValueError(f"{pretrained.path} has no {', '.join(missing)}: --onnx is for pretrained models")
            write_onnx(model, folder / "model.onnx", has_pairs="nsp.classifier" in heads)
    return pretrained


def checkpoint_of(run: Path, step: int) -> Path:
    """Return the path of the checkpoint of a step; ValueError if the run has none."""
    from model.runs.state import checkpoint_path, checkpoints_in

    path = checkpoint_path(run / "checkpoints", step)
    if not path.is_dir():
        kept = sorted(number for number, _ in checkpoints_in(run / "checkpoints"))
        found = f"its steps are {', '.join(f'{number:,}' for number in kept)}" if kept else "it has none"
        raise ValueError(f"{run} has no checkpoint of step {step:,}: {found}")
    return path
