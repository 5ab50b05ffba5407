"""Masks of spans: runs of whole words, of geometric length (Joshi et al. 2020, SpanBERT, 3.1: p = 0.2, at most 10 words).

Every segment is cut into spans from its start. Their lengths are drawn from a table, and the last one ends with the
segment. The spans of an example form a circle in random order, and a window with as many tokens as masks are wanted is
placed on it, from a uniformly drawn token. What is inside is masked. So every word has the same chance, also the first one
of a segment: SpanBERT draws a length and then a place for it, and masks that word a quarter as often as others. Where an
edge of the window cuts a span, its words in the window are masked. Where it cuts a word, that word is masked with
probability (its tokens inside) / (its tokens). So an example has its number of masks on average, within
max_predictions_per_seq.
"""

import numpy as np
from numpy.typing import NDArray

from bertloom.arrays import I64, U64, Bools
from bertloom.draws import bounded, draw
from pipeline.examples.masking.scheme import SCHEME_DRAWS, Chosen, MaskingScheme, Unmasked
from pipeline.examples.masking.whole_words import ROOM
from pipeline.examples.masking.words import choose_tokens, find_words

MAX_WORDS = 10
LENGTHS = np.array(
    [962321996, 1732179594, 2348065672, 2840774534, 3234941624, 3550275296, 3802542233, 4004355783, 4165806623],
    np.uint64,
)
"""floor(2^32 · P(length <= k)) for k = 1 ... 9, P(length = k) in the ratio of 0.2 · 0.8^(k - 1): 3.8 words on average."""
LENGTH_DRAW, EDGE_DRAW = SCHEME_DRAWS, 1 << 18
WINDOW_DRAW = EDGE_DRAW + 2


def choose_spans(
    keys: U64, first_word: I64, b_word: I64, edges: I64, counts: I64, max_predictions: int
) -> tuple[Bools, I64]:
    """Return (which words are masked: bool (words,); span of each word: (words,)).

    Args:
        keys: of each example (n,).
        first_word: first word of each example, and the number of words (n + 1,).
        b_word: first word of B, or the end of the example (n,).
        edges: first token of each word, and the number of tokens (words + 1,).
        counts: masks wanted in each example, at most its tokens (n,).
    """
    span_word, first_span = cut_into_spans(keys, first_word, b_word)
    before = _window(keys, first_span, edges[span_word], counts)
    pieces, covered = np.diff(edges), np.diff(before[edges])
    taken = covered == pieces

    torn = np.flatnonzero((covered > 0) & ~taken)  # one at each edge of a window, or one word at both
    row = np.searchsorted(first_word, torn, side="right") - 1
    masked = counts.copy()
    np.subtract.at(masked, row, covered[torn])
    second = np.zeros(len(torn), bool)
    second[1:] = row[1:] == row[:-1]
    for edge, some in enumerate((~second, second)):
        word, example = torn[some], row[some]
        lucky = bounded(draw(keys[example], EDGE_DRAW + edge), pieces[word]) < covered[word]
        lucky &= masked[example] + pieces[word] <= max_predictions
        taken[word] = lucky
        masked[example] += pieces[word] * lucky
    return taken, np.repeat(np.arange(len(span_word) - 1), np.diff(span_word))


def cut_into_spans(keys: U64, first_word: I64, b_word: I64) -> tuple[I64, I64]:
    """Return (first word of each span, and the number of words (spans + 1,); first span of each example, and their number).

    Span j of an example, counted from A's first, takes draw LENGTH_DRAW + j of its key.
    """
    begins = np.zeros(first_word[-1] + 1, bool)
    begins[-1] = True
    rows = np.flatnonzero(first_word[:-1] < first_word[1:])
    at, middle, end = first_word[rows], b_word[rows], first_word[rows + 1]
    keys = keys[rows]
    step = LENGTH_DRAW
    while len(at):
        begins[at] = True
        length = 1 + np.searchsorted(LENGTHS, draw(keys, step) >> np.uint64(32), side="right")
        at = np.minimum(at + length, np.where(at < middle, middle, end))
        left = at < end
        keys, at, middle, end = keys[left], at[left], middle[left], end[left]
        step += 1
    span_word = np.flatnonzero(begins)
    return span_word, np.searchsorted(span_word, first_word)


def _window(keys: U64, first_span: I64, edges: I64, counts: I64) -> NDArray[np.int32]:
    """Return how many tokens before each one are in the windows of counts[i] tokens: (tokens + 1,).

    Draw WINDOW_DRAW of an example's key chooses the token where the window begins, draw WINDOW_DRAW + j the next span of
    the circle; one that was drawn before is passed over. When all were drawn, the window ends at the front of the first.
    edges: first token of each span, and the number of tokens (spans + 1,).
    """
    change = np.zeros(edges[-1] + 1, np.int8)  # 1 where the window begins, -1 after its end
    seen = np.zeros(len(edges) - 1, bool)
    left, unseen = counts.copy(), np.diff(first_span)
    rows = np.flatnonzero((left > 0) & (unseen > 0))

    def cover(rows: I64, span: I64, start: I64, fresh: Bools | bool = True) -> None:
        stop = np.minimum(edges[span + 1], start + left[rows])
        change[start] += fresh
        change[stop] -= fresh
        left[rows] -= (stop - start) * fresh
        unseen[rows] -= fresh
        seen[span] = True

    begin, end = edges[first_span[rows]], edges[first_span[rows + 1]]
    token = begin + bounded(draw(keys[rows], WINDOW_DRAW), end - begin)
    first = np.zeros(len(counts), np.int64)
    first[rows] = span = np.searchsorted(edges, token, side="right") - 1
    cover(rows, span, token)
    step = WINDOW_DRAW + 1
    while len(rows := rows[(left[rows] > 0) & (unseen[rows] > 0)]):
        number = first_span[rows + 1] - first_span[rows]
        span = first_span[rows] + bounded(draw(keys[rows], step), number)
        cover(rows, span, edges[span], ~seen[span])
        step += 1
    rows = np.flatnonzero(left)
    cover(rows, first[rows], edges[first[rows]])
    before = np.zeros(len(change), np.int32)
    np.cumsum(np.cumsum(change[:-1], dtype=np.int8), dtype=np.int32, out=before[1:])
    return before


def choose(examples: Unmasked) -> Chosen:
    """Choose spans of whole words. All tokens of a span share the decision of its first mask."""
    words = find_words(examples)
    b_word = np.searchsorted(words.edges[:-1], words.first_token[:-1] + examples.a_length)
    is_masked, span = choose_spans(
        examples.keys, words.first_word, b_word, words.edges, examples.counts, examples.max_predictions
    )
    return choose_tokens(words, is_masked, span)


SPANS = MaskingScheme(
    name="span",
    option="mask_spans",
    summary="spans of whole words",
    can_be_redrawn=False,
    whole_words=True,
    extra_predictions=ROOM,
    choose=choose,
)
