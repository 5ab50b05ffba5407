"""Predictions of masked words: type a sentence, or take an example of a data set, and see what the model expects."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from jobs.browser.model_input import ModelInput, input_of, words_of
from jobs.browser.models import LoadedModel
from jobs.browser.pages import model_of, render
from jobs.browser.section import Section

if TYPE_CHECKING:
    from model.hub.tokenizer import TextTokenizer

MAX_TOKENS = 512
"""Number of tokens of the longest text."""
MAX_MASKS = 20
"""Number of masks whose predictions are shown."""
NUM_WORDS = 10
"""Number of words that are shown of each prediction."""
EXAMPLES = {False: "The {mask} of France is a large {mask}.", True: "中国的首都是{mask}京，那里有很多大{mask}。"}
"""Whether the vocabulary is Chinese -> the text of a page without one."""


@dataclass(frozen=True)
class Guess:
    """A word that a model expects."""

    word: str
    probability: float
    is_true: bool
    rank: int
    """1 for the most likely word."""


@dataclass(frozen=True)
class Prediction:
    """What a model expects at a mask."""

    place: int
    there: str
    """What the model reads there."""
    truth: str | None
    """What the text has there; None if it is unknown."""
    guesses: list[Guess]
    """The most likely ones; then the true word, if it is not among them."""


def show_fill_mask(request: Request) -> Response:
    """Show what the model predicts at the masks of an example of a data set, or of the text of the address."""
    model, is_loading = request.app.state.models.get(model_of(request).path)
    if model is None:
        return render(request, "model_loading.html.j2", title=FILL_MASK.title)
    given: dict[str, Any] = {"model": model, "is_loading": is_loading}
    if model.predictor is None:
        return render(request, "fill_mask_without_head.html.j2", **given)
    mask = model.tokenizer.file.special.names["mask_token"]
    text = request.query_params.get("text", EXAMPLES[model.is_chinese].format(mask=mask))
    given |= {"mask": mask, "text": text, "example": request.query_params.get("example", "")}
    try:
        read = input_of(request, model, text, "", MAX_TOKENS)
        chosen = chosen_masks(request, read)
    except ValueError as error:
        return render(request, "fill_mask.html.j2", 400, **given, error=str(error))
    shown, masked = with_masks(read, chosen, model.tokenizer)
    return render(
        request,
        "fill_mask.html.j2",
        **given,
        error="",
        read=shown,
        chosen=sorted(chosen),
        masked=masked,
        predictions=predictions_of(model, shown, masked[:MAX_MASKS]),
    )


def chosen_masks(request: Request, read: ModelInput) -> set[int]:
    """Return the places that an address names an odd number of times. They get a mask, or lose it.

    The button of a token adds its place to those of the address, so that a second choice undoes the first.
    """
    counts = Counter(request.query_params.getlist("mask"))
    places = {str(place): place for place in range(len(read.ids)) if place not in read.special_places}
    if wrong := [value for value in counts if value not in places]:
        raise ValueError(f"mask={wrong[0][:80]}: expected the place of a token of the text, 1 to {len(read.ids) - 2}")
    return {places[value] for value, count in counts.items() if count % 2}


def with_masks(read: ModelInput, chosen: set[int], tokenizer: TextTokenizer) -> tuple[ModelInput, list[int]]:
    """Return a sequence with the masks of the chosen tokens added or removed, and the places of all masks."""
    ids, truths = read.ids.copy(), dict(read.truths)
    masked = {int(place) for place in np.flatnonzero(ids == tokenizer.mask_id)} | truths.keys()
    for place in chosen:
        if place in truths:
            ids[place] = truths.pop(place)
            masked.remove(place)
        elif place not in masked:
            truths[place] = int(ids[place])
            ids[place] = tokenizer.mask_id
            masked.add(place)
    return replace(read, ids=ids, truths=truths, words=words_of(tokenizer, ids)), sorted(masked)


def predictions_of(model: LoadedModel, read: ModelInput, places: list[int]) -> list[Prediction]:
    """Return what a model expects at some places."""
    if not places:
        return []
    assert model.predictor
    with model.lock:
        probabilities = model.predictor.probabilities(
            read.ids, np.array(places), read.segment_b_start
        )  # (places, words)
    return [
        Prediction(
            place=place,
            there=read.words[place],
            truth=words_of(model.tokenizer, np.array([read.truths[place]]))[0] if place in read.truths else None,
            guesses=guesses_of(model.tokenizer, own, read.truths.get(place)),
        )
        for place, own in zip(places, probabilities)
    ]


def guesses_of(tokenizer: TextTokenizer, probabilities: NDArray[np.float64], truth: int | None) -> list[Guess]:
    """Return the most likely words at a place; then the true one, if it is not among them. probabilities: (words,)."""
    best = np.argsort(-probabilities, kind="stable")[:NUM_WORDS].tolist()
    if truth is not None and truth not in best:
        best.append(truth)
    words = words_of(tokenizer, np.array(best))
    return [
        Guess(
            word, float(probabilities[number]), number == truth, 1 + int((probabilities > probabilities[number]).sum())
        )
        for word, number in zip(words, best)
    ]


FILL_MASK = Section(name="fill-mask", title="Masked words", of="rm", routes=[("fill-mask", show_fill_mask)])
