"""What `bertloom compare` measures of each model: the loss of the held-out text, sizes and speed."""

import hashlib
import json
import math
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from bertloom.arrays import I64
from bertloom.json_files import read_json
from bertloom.whole_files import write_text
from jobs.support.held_out import Window
from model.heads import expected_tensors
from model.hub.pretrained import open_pretrained
from model.hub.tokenizer import TextTokenizer
from model.hub.weights import weights_files
from model.inference.embed import Embedder
from model.inference.predict import WordPredictor
from model.inference.word_losses import word_losses

Floats = NDArray[np.float64]

NATS_PER_BYTE = 8 * math.log(2)
"""The cost of a byte that is copied."""
WINDOWS_AT_ONCE = 64
NUM_RESAMPLES = 1000
LEAST_DOCUMENTS = 20
"""Number of documents from which they are resampled; below it, windows are."""
SPEED_WINDOWS, SPEED_ROUNDS = 32, 5
"""Number of windows whose vectors are computed, and how often."""


@dataclass(frozen=True, kw_only=True)
class ComparedModel:
    """A model of a comparison, without its weights."""

    name: str
    path: Path
    tokenizer: TextTokenizer
    max_seq_length: int
    """See `Pretrained`."""
    digest: str
    """Of its weights under transformers' names: the same for a run and its export."""
    num_parameters: int
    """Number of weights of the encoder, without heads."""
    num_bytes: int
    """Size of the files of its weights."""
    why_no_loss: str | None
    """Why it cannot predict masked words; None if it can."""


@dataclass(frozen=True, kw_only=True)
class TextLoss:
    """The loss of a model on the masked words of a text. Arrays are float64 (words,), in nats."""

    tokens: Floats
    """Of the tokens of each word."""
    counts: Floats
    """Of the number of its tokens."""
    spelling: Floats
    """Of the characters that the tokens do not determine."""

    @property
    def total(self) -> Floats:
        """The sum of the three."""
        return self.tokens + self.counts + self.spelling


def look_at(name: str, path: Path) -> ComparedModel:
    """Open a model, and return what is known without running it; ValueError if there is none."""
    pretrained = open_pretrained(path)
    tensors = expected_tensors(pretrained.config)
    why = None if pretrained.predicts_words else f"a {pretrained.architecture}, which has no head for masked words"
    return ComparedModel(
        name=name,
        path=path,
        tokenizer=pretrained.tokenizer,
        max_seq_length=pretrained.max_seq_length,
        digest=weights_digest(pretrained.weights),
        num_parameters=sum(tensor.numel() for key, tensor in tensors.items() if key.startswith("encoder.")),
        num_bytes=sum(file.stat().st_size for file in weights_files(pretrained.path)),
        why_no_loss=why,
    )


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Return the sha256 of named tensors."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(f"{name} {tuple(weights[name].shape)}\n".encode())
        digest.update(weights[name].contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


# ---- the loss


def token_losses(model: ComparedModel, number: int, windows: Sequence[Window], file: Path, device: str) -> Floats:
    """Return the losses of the tokens of all masked words; they are kept in a file for a restart."""
    content = hashlib.sha256(model.digest.encode())
    masked = [window.masked(number) for window in windows]
    for window in masked:
        for array in window:
            content.update(np.ascontiguousarray(array).tobytes() + b"|")
    if (found := kept(file, content.hexdigest())) is not None:
        return np.array(found, np.float64)
    predictor = WordPredictor(open_pretrained(model.path), device)
    losses = list[Floats]()
    with tqdm(total=len(masked), desc=model.name, unit=" windows", disable=None) as bar:
        for begin in range(0, len(masked), WINDOWS_AT_ONCE):
            losses += word_losses(predictor, masked[begin : begin + WINDOWS_AT_ONCE])
            bar.update(min(WINDOWS_AT_ONCE, len(masked) - begin))
    keep(file, content.hexdigest(), (values := np.concatenate(losses)).tolist())
    return values


def text_loss(model: ComparedModel, number: int, windows: Sequence[Window], tokens: Floats) -> TextLoss:
    """Return the loss of all masked words, with what the tokens leave open.

    The number of tokens of a word costs the negative logarithm of its share among all words, because the masks show it. A
    character costs that of its share among the characters that the tokenizer does not distinguish, such as "p" and "P", at
    the beginning of words and inside them separately. A character under [UNK], or one that the tokenizer removes, is
    copied at 8 bits per byte.
    """
    lengths = [window.tokens[number].ends - window.tokens[number].begins for window in windows]
    shares = np.bincount(np.concatenate(lengths)) / sum(map(len, lengths))
    counts = [-np.log(shares[length[window.is_masked]]) for length, window in zip(lengths, windows)]
    spelling = spelling_losses(windows, number, model.tokenizer)
    return TextLoss(tokens=tokens, counts=np.concatenate(counts), spelling=spelling)


def spelling_losses(windows: Sequence[Window], number: int, tokenizer: TextTokenizer) -> Floats:
    """Return the loss of the characters of each masked word, given its tokens: float64 (words,), in nats."""
    plain = plain_characters(tokenizer)
    words: list[list[tuple[tuple[str, bool], str]]] = []  # a word's characters; the key "" means that one is copied
    is_masked: list[bool] = []
    for window in windows:
        known = known_characters(window, number, tokenizer)
        for begin, end in window.units.tolist():
            places = [place for place in range(begin, end) if not window.text[place].isspace()]
            texts = [plain(window.text[place]) if place in known else "" for place in places]
            words.append([((text, place == begin), window.text[place]) for text, place in zip(texts, places)])
        is_masked += window.is_masked.tolist()
    forms = defaultdict[tuple[str, bool], Counter[str]](Counter)
    for word in words:
        for key, character in word:
            forms[key][character] += 1

    @cache
    def loss(key: tuple[str, bool], character: str) -> float:
        if not key[0]:
            return NATS_PER_BYTE * len(character.encode())
        return -math.log(forms[key][character] / forms[key].total())

    return np.array([sum(loss(*pair) for pair in word) for word, masked in zip(words, is_masked) if masked], np.float64)


def plain_characters(tokenizer: TextTokenizer) -> Callable[[str], str]:
    """Return a function from a character to what the tokenizer's normaliser makes of it; "" if that removes it."""
    normalizer = tokenizer.tokenizer.normalizer

    @cache
    def plain(character: str) -> str:
        text = character if normalizer is None else normalizer.normalize_str(character)
        return "".join(text.replace("▁", "").split())  # white space around Chinese characters, Metaspace

    return plain


def known_characters(window: Window, number: int, tokenizer: TextTokenizer) -> set[int]:
    """Return the places of the characters that have a token other than [UNK]."""
    ids, offsets, *_ = window.tokens[number]
    return {place for begin, end in offsets[ids != tokenizer.unk_id].tolist() for place in range(begin, end)}


def words_of_masks(windows: Sequence[Window]) -> tuple[I64, I64, I64]:
    """Return the bytes of each masked word, the number of its document, and that of its window: int64 (words,).

    Documents and windows with masked words are counted from 0.
    """
    sizes, documents, numbers = list[int](), list[int](), list[int]()
    for number, window in enumerate(windows):
        words = [word for word, masked in zip(window.words, window.is_masked) if masked]
        sizes += [len(word.encode()) for word in words]
        documents += [window.document] * len(words)
        numbers += [number] * len(words)
    groups = [np.unique(np.array(one, np.uint64), return_inverse=True)[1] for one in (documents, numbers)]
    return np.array(sizes, np.int64), groups[0].astype(np.int64), groups[1].astype(np.int64)


def deviation_of_mean(losses: Floats, sizes: I64, groups: I64) -> float:
    """Return the standard deviation of sum(losses) / sum(sizes) when groups of words are drawn again (the bootstrap).

    losses: of each word; for the uncertainty of a difference, the differences of two models.
    groups: the document of each word, 0, 1, … without gaps.
    """
    loss, size = np.bincount(groups, losses), np.bincount(groups, sizes)
    draws = np.random.default_rng(0)
    found = []
    for _ in range(NUM_RESAMPLES):
        chosen = draws.integers(len(loss), size=len(loss))
        found.append(loss[chosen].sum() / size[chosen].sum())
    return float(np.std(found))


# ---- speed


def measure_speed(models: Sequence[ComparedModel], windows: Sequence[Window], file: Path, device: str) -> list[Any]:
    """Return texts and tokens per second of each model for vectors of windows: medians; the models take turns."""
    some = windows[:SPEED_WINDOWS]
    texts = [window.text[window.units[0, 0] : window.units[-1, 1]] for window in some]
    key = hashlib.sha256(json.dumps([[model.digest for model in models], texts, device]).encode()).hexdigest()
    if (found := kept(file, key)) is not None:
        return list(found)
    embedders = [Embedder(open_pretrained(model.path), device=device) for model in models]
    seconds: list[list[float]] = [[] for _ in models]
    for _ in range(SPEED_ROUNDS + 1):  # the first one warms up
        for taken, embedder in zip(seconds, embedders):
            begin = time.perf_counter()
            embedder.embed(texts)
            taken.append(time.perf_counter() - begin)
    rates = []
    for taken, embedder in zip(seconds, embedders):
        room = embedder.max_seq_length - 2
        num_tokens = sum(min(len(ids), room) + 2 for ids in embedder.tokenizer.ids(texts))
        median = statistics.median(taken[1:])
        rates.append({"texts_per_second": len(texts) / median, "tokens_per_second": num_tokens / median})
    keep(file, key, rates)
    return rates


# ---- files of finished work


def kept(file: Path, key: str) -> Any:
    """Return what a file holds, or None if it is not the result of the same work."""
    try:
        content = read_json(file)
    except (OSError, ValueError):
        return None
    return content.get("result") if content.get("key") == key else None


def keep(file: Path, key: str, result: Any) -> None:
    """Write the result of some work, with a key that identifies the work."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps({"key": key, "result": result}) + "\n")


def is_same(first: ComparedModel, second: ComparedModel) -> bool:
    """Return whether two models are one: the same weights, and tokenizers that cut texts alike."""
    return first.digest == second.digest and cutting(first.tokenizer) == cutting(second.tokenizer)


def cutting(tokenizer: TextTokenizer) -> list[Any]:
    """Return the parts of a tokenizer that decide the tokens of a text."""
    content = json.loads(tokenizer.tokenizer.to_str())
    return [content.get(name) for name in ("normalizer", "pre_tokenizer", "model", "added_tokens")]
