"""The models of runs: each is loaded in a thread when a page first needs it, and again when there is a newer checkpoint.

They run on the CPU, so that a training on a GPU is not disturbed.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from model.runs.state import checkpoints_in, run_settings
from pipeline.text.scripts import script_of

if TYPE_CHECKING:  # torch is loaded with the first model
    from model.encoder import Encoder
    from model.hub.tokenizer import TextTokenizer
    from model.inference.predict import WordPredictor

MAX_LOADED = 3
"""Number of models that stay in memory."""
PATIENCE_SECONDS = 0.5
"""How long a page waits for a model before it shows that it is being loaded."""
SAMPLE = 2000
"""Number of tokens that decide the language of a vocabulary."""
CHINESE_SHARE = 0.25
"""Smallest share of a Chinese vocabulary's tokens that begin with a Chinese character. bert-base-chinese has 0.69,
bert-base-uncased 0.02."""


class BrowsedModel:
    """The folder of a model that is not a run: an exported or imported one, or a single checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.location = str(path)
        self.name = path.resolve().name


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model in memory."""

    checkpoint: str
    """Name of the checkpoint that was the newest when it was loaded; empty for a model without checkpoints."""
    path: Path
    """Folder of its weights."""
    architecture: str
    """Name of its class in transformers."""
    tokenizer: TextTokenizer
    encoder: Encoder
    predictor: WordPredictor | None
    """None if it has no head for masked words."""
    is_chinese: bool
    """Whether its vocabulary is Chinese."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held by the thread that computes with it."""

    @property
    def step(self) -> int | None:
        """The step of its checkpoint; None if it is not a checkpoint."""
        return next((step for step, path in checkpoints_in(self.path.parent) if path == self.path), None)


class Models:
    """The models of folders, by path; the least recently used are dropped."""

    def __init__(self) -> None:
        self._models: OrderedDict[Path, LoadedModel] = OrderedDict()
        self._loading: dict[Path, Future[LoadedModel]] = {}
        self._lock = threading.Lock()

    def get(self, path: Path) -> tuple[LoadedModel | None, bool]:
        """Return (the model of a folder, whether a newer one is being loaded). While the first one is loaded, it is None.

        Raises:
            ValueError: the folder has no model.
        """
        newest = newest_checkpoint(path)
        with self._lock:
            model = self._models.get(path)
            if model and model.checkpoint == newest:
                self._models.move_to_end(path)
                return model, False
            future = self._loading.get(path)
            if future is None:
                future = self._loading[path] = start_loading(path, newest)
        wait([future], PATIENCE_SECONDS)
        if not future.done():
            return model, True
        with self._lock:
            if self._loading.get(path) is future:  # else another request was here first
                del self._loading[path]
                if not future.exception():
                    self._models[path] = future.result()
                    self._models.move_to_end(path)
                    while len(self._models) > MAX_LOADED:
                        self._models.popitem(last=False)
        return future.result(), False


def newest_checkpoint(path: Path) -> str:
    """Return the name of a pretraining run's newest checkpoint; empty for another folder of a model."""
    found = checkpoints_in(path / "checkpoints")
    return max(found)[1].name if found and "task" not in run_settings(path) else ""


def start_loading(path: Path, checkpoint: str) -> Future[LoadedModel]:
    """Load a model in a thread. The end of the process does not wait for it."""
    future = Future[LoadedModel]()

    def run() -> None:
        try:
            future.set_result(load(path, checkpoint))
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, name="model", daemon=True).start()
    return future


def load(path: Path, checkpoint: str) -> LoadedModel:
    """Load the model of a folder from this checkpoint. If it is damaged or just removed: from the newest intact one."""
    from model.hub.pretrained import open_pretrained
    from model.inference.embed import Embedder
    from model.inference.predict import WordPredictor

    try:
        pretrained = open_pretrained(path / "checkpoints" / checkpoint if checkpoint else path)
    except (ValueError, OSError):
        if not checkpoint:
            raise
        pretrained = open_pretrained(path)
    predictor = WordPredictor(pretrained, "cpu") if pretrained.predicts_words else None
    return LoadedModel(
        checkpoint=checkpoint,
        path=pretrained.path,
        architecture=pretrained.architecture,
        tokenizer=pretrained.tokenizer,
        encoder=predictor.encoder if predictor else Embedder(pretrained, device="cpu").encoder,
        predictor=predictor,
        is_chinese=is_chinese(pretrained.tokenizer),
    )


def is_chinese(tokenizer: TextTokenizer) -> bool:
    """Return whether the vocabulary of a model is Chinese."""
    sample = range(0, tokenizer.vocab_size, max(1, tokenizer.vocab_size // SAMPLE))
    scripts = [script_of(tokenizer.shown(number)) for number in sample]
    return scripts.count("Chinese characters") > CHINESE_SHARE * len(scripts)
