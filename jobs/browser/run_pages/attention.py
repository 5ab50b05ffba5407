"""The attention of a model: from each token of a text to each other, in one layer, of one head or the mean of all heads.

The weights are drawn twice, as SVG: as lines between two columns of tokens, and as a matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from unicodedata import east_asian_width
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from jobs.browser.model_input import ModelInput, input_of
from jobs.browser.models import LoadedModel
from jobs.browser.pages import model_of, number_of, render
from jobs.browser.section import Section

MAX_TOKENS = 128
"""Number of tokens of the longest text. The page has a megabyte then."""
TEXTS = {
    False: ("The animal did not cross the street because it was tired.", "It went home."),
    True: ("小狗没有过马路，因为它太累了。", "它回家睡觉了。"),
}
"""Whether the vocabulary is Chinese -> the pair of a page without a text."""
LEAST_OF_ALL = 0.04
"""Smallest weight that gets a line while no token is chosen, unless it is one of the strongest of its token. A token has
at most 25 such lines."""
LEAST_OF_ONE = 0.005
"""Smallest weight that gets a line from the chosen token."""
NUM_SHADES = 20
"""Number of different shades of the matrix."""
LABEL_WIDTH = 15
"""Length of the longest label of a token, in narrow characters."""
MAX_LINKS = 24
"""Number of layers or heads in a row of links; if there are more, those near the chosen one."""
NUM_STRONGEST = 3
"""Number of tokens that always get a line from a token, and that the table lists for it, while none is chosen."""

Weights = NDArray[np.float32]


@dataclass(frozen=True)
class Line:
    """A line of the drawing."""

    query: int
    key: int
    opacity: float
    """Its weight in proportion to the largest of the drawing, so that even attention is visible, too."""


@dataclass(frozen=True)
class Shade:
    """The cells of a matrix that have the same shade."""

    opacity: float
    path: str
    """Data of an SVG path, in which a cell is 1 wide and 1 high."""


def show_attention(request: Request) -> Response:
    """Draw the attention of a layer in an example of a data set, or in the texts of the address."""
    model, is_loading = request.app.state.models.get(model_of(request).path)
    if model is None:
        return render(request, "model_loading.html.j2", title=ATTENTION.title)
    shape, query = model.encoder.config.shape, request.query_params
    example = query.get("example", "")
    first, second = TEXTS[model.is_chinese]
    text = query.get("text", first)
    second = query.get("second", "" if "text" in query else second) if shape.reads_pairs else ""
    given = {
        "model": model,
        "is_loading": is_loading,
        "example": example,
        "text": text,
        "second": second,
        "reads_pairs": shape.reads_pairs,
    }
    try:
        read = input_of(request, model, text, second, MAX_TOKENS)
        layer = number_of(request, "layer", (shape.num_hidden_layers + 1) // 2, 1, shape.num_hidden_layers)
        head = number_of(request, "head", 0, 0, shape.num_attention_heads)
        token = number_of(request, "token", -1, 0, len(read.ids) - 1)
        weights = weights_of(model, read, layer, head)
    except ValueError as error:
        return render(request, "attention.html.j2", 400, **given, error=str(error))
    now: dict[str, str | int] = {"example": example} if example else {"text": text, "second": second}
    now |= {"layer": layer, "head": head} | ({"token": token} if token >= 0 else {})

    def link(**changes: int | None) -> str:
        """Return the address of this page with other values; None takes one away."""
        return "?" + urlencode({name: value for name, value in (now | changes).items() if value is not None})

    return render(
        request,
        "attention.html.j2",
        **given,
        error="",
        read=read,
        labels=[shortened(word, LABEL_WIDTH) for word in read.words],
        layer=layer,
        layers=numbers_around(layer, shape.num_hidden_layers),
        head=head,
        heads=numbers_around(max(head, 1), shape.num_attention_heads),
        token=token if token >= 0 else None,
        link=link,
        weights=weights.tolist(),
        lines=lines_of(weights, token),
        shades=shades_of(weights),
        strongest=strongest_of(weights),
        largest=float(weights.max()),
        least=LEAST_OF_ONE,
    )


def weights_of(model: LoadedModel, read: ModelInput, layer: int, head: int) -> Weights:
    """Return the weights of a layer, (tokens, tokens): of a head, from 1, or the mean of all heads if it is 0."""
    from model.inference.attention_weights import attention_weights
    from model.packing import pack_sequences

    batch = pack_sequences(read.ids, np.array([len(read.ids)]), np.array([read.segment_b_start]))
    with model.lock:
        found = attention_weights(model.encoder, batch, [layer - 1])[0]  # (heads, tokens, tokens)
    weights: Weights = (found[head - 1] if head else found.mean(0)).numpy()
    return weights


def lines_of(weights: Weights, token: int) -> list[Line]:
    """Return the lines from the chosen token; from all tokens if it is -1. Weak ones are left out."""
    if token < 0:
        is_shown = weights >= LEAST_OF_ALL
        np.put_along_axis(is_shown, strongest_keys(weights), True, axis=1)
        queries, keys = np.nonzero(is_shown)
    else:
        keys = np.flatnonzero(weights[token] >= LEAST_OF_ONE)
        queries = np.full(len(keys), token)
    shown = weights[queries, keys] / weights[queries, keys].max()
    return [Line(*place) for place in zip(queries.tolist(), keys.tolist(), shown.tolist())]


def shades_of(weights: Weights) -> list[Shade]:
    """Return the cells of a matrix by shade, the largest weight darkest. The faintest ones are left out."""
    levels = np.rint(weights / weights.max() * NUM_SHADES).astype(int)
    shades = []
    for level in range(1, NUM_SHADES + 1):
        cells = np.argwhere(levels == level).tolist()
        if cells:
            path = "".join(f"M{key} {query}h1v1h-1z" for query, key in cells)
            shades.append(Shade(level / NUM_SHADES, path))
    return shades


def strongest_of(weights: Weights) -> list[list[tuple[int, float]]]:
    """Return for each token those that it attends to most, and their weights."""
    return [
        [(key, float(weights[query, key])) for key in keys]
        for query, keys in enumerate(strongest_keys(weights).tolist())
    ]


def strongest_keys(weights: Weights) -> NDArray[np.int64]:
    """Return for each token those that it attends to most, (tokens, NUM_STRONGEST) or fewer."""
    return np.argsort(-weights, axis=1, kind="stable")[:, :NUM_STRONGEST]


def numbers_around(chosen: int, count: int) -> range:
    """Return the numbers from 1 to count, or MAX_LINKS of them around the chosen one.

    >>> numbers_around(3, 12), numbers_around(50, 1000), numbers_around(1000, 1000)
    (range(1, 13), range(38, 62), range(977, 1001))
    """
    first = min(max(chosen - MAX_LINKS // 2, 1), max(count - MAX_LINKS + 1, 1))
    return range(first, min(first + MAX_LINKS, count + 1))


def shortened(word: str, width: int) -> str:
    """Return a word, cut to a width in narrow characters. A Chinese character has a width of two.

    >>> shortened("short", 6), shortened("a long word", 6), shortened("北京大学", 6)
    ('short', 'a lon…', '北京…')
    """
    ends = np.cumsum([2 if east_asian_width(character) in "WF" else 1 for character in word])
    if not len(word) or ends[-1] <= width:
        return word
    return word[: int(np.searchsorted(ends, width - 1, side="right"))] + "…"


ATTENTION = Section(name="attention", title="Attention", of="rm", routes=[("attention", show_attention)])
