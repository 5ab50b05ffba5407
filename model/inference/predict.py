"""Predictions of a model in three lines.

    import bertloom
    model = bertloom.load("tuned")
    model.predict(["A film to see twice.", "Two hours of my life."])

`load` takes what `--model` takes. A fine-tuned model has `predict`, a pretrained one `fill`. docs/finetuning.md shows
what they return.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from torch import nn

from model.encoders import build_encoder
from model.heads import MaskedLanguageModelHead
from model.hub.pretrained import Pretrained, open_pretrained
from model.hub.weights import from_hugging_face, load_weights
from model.mixed_precision import in_precision
from model.packing import pack_sequences
from model.step import choose_device, choose_precision
from model.tasks.registry import task_of
from model.tasks.rows import read_rows
from model.tasks.training import predict_all
from model.tasks.values import BadRow

BATCH_SIZE = 32
"""Maximum number of items in memory together; fewer if texts are long."""


def load(path: str | os.PathLike[str], device: str = "auto") -> "TaskPredictor | WordPredictor":
    """Return the model at a path, ready to use: a TaskPredictor if it was fine-tuned, else a WordPredictor.

    Args:
        path: a run of `bertloom finetune` or `pretrain`, a checkpoint of `pretrain`, or a directory in transformers' format.
        device: cpu, cuda, cuda:1, … auto is cuda if available, otherwise cpu.

    Raises:
        ValueError: the path has no model, bertloom has no encoder for it, or this machine does not have the device.

    Examples:
        >>> bertloom.load("banking").predict(["I was charged twice!"], top_k=1)
        [{'label': 'transaction_charged_twice', 'probabilities': {'transaction_charged_twice': 0.95722}}]
        >>> bertloom.load("run").fill("Paris is the [MASK] of France.", top_k=2)  # for each mask [(word, probability), ...]
    """
    pretrained = open_pretrained(path)
    if pretrained.predicts_words:
        return WordPredictor(pretrained, device)
    return TaskPredictor(pretrained, device)


class TaskPredictor:
    """A fine-tuned model, as `load` returns it."""

    def __init__(self, pretrained: Pretrained, device: str = "auto") -> None:
        """
        Args:
            pretrained: an opened model (`model.hub.pretrained.open_pretrained`).
            device: see `load`.

        Raises:
            ValueError: the model was not fine-tuned.
        """
        self.task = task_of(pretrained)
        self.tokenizer = pretrained.tokenizer
        self.device = choose_device(device)
        self.model = self.task.build_model(pretrained.config)
        state = from_hugging_face(pretrained.weights, pretrained.config, self.model.form)
        load_weights(self.model, state, str(pretrained.path))
        precision = choose_precision("auto", self.device, pretrained.config.shape)
        in_precision(self.model.to(self.device).eval(), precision)

    def predict(self, rows: Iterable[Any], top_k: int = 5) -> list[dict[str, Any]]:
        """Return the answer to each row, in their order. docs/finetuning.md lists what an answer holds for each task.

        A text that is longer than the model is read in windows, or two texts are cut, as in fine-tuning.

        Args:
            rows: strings; pairs of strings for two texts, or a question and its context; a context, a list of endings, and
                perhaps a question between them; lists of words for tags; or dictionaries with the columns of a file.
            top_k: number of classes whose probabilities are returned, the most likely first.

        Raises:
            ValueError: a row cannot be read, or `rows` is itself a row.
        """
        if isinstance(rows, (str, dict)):
            raise ValueError(f"rows is {rows!r:.60}, expected a list of rows: give [{rows!r:.60}]")
        records = ((f"row {number}", self._record(row)) for number, row in enumerate(rows, 1))
        found = []
        for place, row in read_rows(Path("rows"), records, self.task.forms(False), self.task.parse, {}):
            if isinstance(row, BadRow):
                raise ValueError(f"{place}: {row}")
            found.append(row)
        return self.answer(found, top_k)

    def answer(self, rows: Sequence[Any], top_k: int = 5) -> list[dict[str, Any]]:
        """Return the answers to rows that the task has parsed. `predict` takes plain values."""
        if not rows:
            return []
        data = self.task.tokenize(rows, self.tokenizer)
        if data.has_two_segments and not self.model.config.shape.reads_pairs:
            raise ValueError(
                f"the model has one token type, but rows of {self.task.name} have two texts: use another model"
            )
        logits, _ = predict_all(self.model, data, BATCH_SIZE)
        answers = self.task.answer(rows, data, logits, top_k)
        return [({} if row.id is None else {"id": row.id}) | answer for row, answer in zip(rows, answers)]

    def _record(self, row: Any) -> dict[str, Any] | BadRow:
        if isinstance(row, dict):
            return row
        if isinstance(row, str):
            return {"text": row}
        if isinstance(row, (tuple, list)):
            forms = [[name for name in form if name != "text"] for form in self.task.forms(False)]
            if ["tokens"] in forms:
                return {"tokens": list(row)}
            for names in filter(None, forms):
                if len(names) == len(row):
                    return dict(zip(names, row))
        return BadRow(f"{row!r:.60} is no row of {self.task.name}")


class WordPredictor:
    """A pretrained model that fills in masked words, as `load` returns it."""

    def __init__(self, pretrained: Pretrained, device: str = "auto") -> None:
        """
        Args:
            pretrained: an opened model (`model.hub.pretrained.open_pretrained`).
            device: see `load`.

        Raises:
            ValueError: the model has no head for masked words.
        """
        if not pretrained.predicts_words:
            raise ValueError(
                f"{pretrained.path} cannot fill in words, it is a {pretrained.architecture}: give the pretrained model"
            )
        self.tokenizer = pretrained.tokenizer
        self.config = pretrained.config
        self.device = choose_device(device)
        self.encoder = build_encoder(self.config)
        self.mlm = MaskedLanguageModelHead(self.encoder)
        both = nn.ModuleDict({"encoder": self.encoder, "mlm": self.mlm})
        state = from_hugging_face(pretrained.weights, self.config, "ForMaskedLM")
        load_weights(both, state, str(pretrained.path))
        precision = choose_precision("auto", self.device, self.config.shape)
        in_precision(both.to(self.device).eval(), precision)

    def fill(self, text: str, top_k: int = 5) -> list[list[tuple[str, float]]]:
        """Return for each [MASK] in a text its `top_k` most likely words and their probabilities, the most likely first.

        A mask is written as the tokenizer names it: `[MASK]`, or `<mask>` in RoBERTa's.

        Raises:
            ValueError: the text has no mask, or more tokens than the model reads.
        """
        found = self.tokenizer.ids_with_masks(text)
        if self.tokenizer.mask_id not in found:
            name = self.tokenizer.file.special.names["mask_token"]
            raise ValueError(f"there is no {name} in {text!r:.60}: write one where a word is to be found")
        ids = np.concatenate([[self.tokenizer.cls_id], found, [self.tokenizer.sep_id]])
        if len(ids) > self.config.shape.max_position_embeddings:
            raise ValueError(
                f"the text has {len(ids)} tokens, the model reads {self.config.shape.max_position_embeddings}"
            )
        places = np.flatnonzero(ids == self.tokenizer.mask_id)
        return [self._best(probabilities, top_k) for probabilities in self.probabilities(ids, places)]

    @torch.inference_mode()
    def probabilities(self, ids: np.ndarray, places: np.ndarray, segment_b_start: int | None = None) -> np.ndarray:
        """Return the probabilities of the words at some places of a sequence, float64 (places, words).

        Args:
            ids: integers (tokens,), with special tokens, at most max_position_embeddings.
            places: int64 (places,), indices into them.
            segment_b_start: index of B's first token; None if there is no B.
        """
        start = len(ids) if segment_b_start is None else segment_b_start
        batch = pack_sequences(ids, np.array([len(ids)]), np.array([start])).to(self.device)
        hidden = self.encoder(batch)  # (T, C)
        logits = self.mlm(hidden[torch.from_numpy(places).to(self.device)], self.encoder.word_embeddings)
        words = logits.float().cpu().numpy()[:, : self.tokenizer.vocab_size]
        probabilities: np.ndarray = softmax(words.astype(np.float64), axis=1)
        return probabilities

    def _best(self, probabilities: np.ndarray, top_k: int) -> list[tuple[str, float]]:
        best = np.argsort(-probabilities, kind="stable")[:top_k]
        return [(self.tokenizer.shown(int(number)), round(float(probabilities[number]), 6)) for number in best]
