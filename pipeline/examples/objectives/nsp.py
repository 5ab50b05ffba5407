"""Sentence pairs for next sentence prediction, as array arithmetic over the sentences of a bucket.

A chunk of sentences is filled up to the target length; its first sentences are A. Where the pair is "next", the rest of
the chunk is B; where it is "random", B comes from another source and the rest goes back to begin the next chunk (Devlin
et al. 2018, appendix A.2, as in google-research/bert). What differs from Google's script, and why:

- the target length is drawn for each example, not once a document: short examples are then 10 %, not up to 38 %;
- a chunk takes at least two sentences, and never leaves a last one alone: only a document of a single sentence makes a
  pair that is random by force;
- random and next pairs are equal in number within one: Google's are 50 to 70 % random;
- a random B never shares a source with A, begins at a uniformly drawn sentence, and is as long as the true B would have
  been; it also ends at a sentence's end just where the true B would have. Neither length nor ending tells the label;
- what is too long loses B's end, down to a quarter of the room, then A's front, at word starts: no word is cut;
- a sentence longer than the room is cut into pieces of at most half of it; Google loses what does not fit.

Every possible chunk is worked out for every sentence at once; only the walk from chunk to chunk is a loop, of a few list
look-ups an example.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bertloom.draws import GOLDEN, PAIRS, SURPLUS, U64, bounded, bounded_low, chance, draw, fold, mix, threshold
from pipeline.tokens import TokenBlock

NEXT, RANDOM = 0, 1
TRIES = 128  # draws of a random B before the best of them is taken; with 32 one in four ends where no true one would
MIN_TARGET = 2
EXACT, ENOUGH, OTHER = range(3)  # what is wished of a random B, and less of it where no try gave that


@dataclass(frozen=True, slots=True)
class Sentences:
    """The sentences of a bucket as one length sees them, long ones cut. They lie end to end in the bucket's ids."""

    ids: NDArray
    """uint16 or uint32 (tokens,)."""
    head: NDArray[np.bool_]
    """Does a word begin at this token: bool (tokens,)."""
    edges: NDArray[np.int64]
    """First token of each sentence, and the number of tokens: (sentences + 1,)."""
    document: NDArray[np.int64]
    """Document of each sentence: (sentences,)."""
    first: NDArray[np.int64]
    """First sentence of each document, and the number of sentences: (documents + 1,)."""
    ids_of_documents: U64
    source_keys: U64
    """Of each document: (documents,)."""
    is_edge: NDArray[np.bool_]
    """Does a sentence begin, or the last one end, at this token: bool (tokens + 1,)."""
    full_end: NDArray[np.int64]
    """First sentence at or behind a full room of tokens from each sentence's start: (sentences,)."""

    @property
    def ordinal(self) -> NDArray[np.int64]:
        """Number of each sentence in its document."""
        return np.arange(len(self.document)) - self.first[self.document]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Examples as ranges of the bucket's ids, before masking. All arrays (examples,)."""

    a_start: NDArray[np.int64]
    a_length: NDArray[np.int64]
    b_start: NDArray[np.int64]
    b_length: NDArray[np.int64]
    label: NDArray[np.int8]
    document_a: NDArray[np.int64]
    document_b: NDArray[np.int64]
    """Index of the document in the bucket."""
    sentence: NDArray[np.int64]
    """Ordinal in its document of the sentence with which the chunk began: with A's document, the example's name."""

    def take(self, index: NDArray | slice) -> "Pairs":
        return Pairs(*(getattr(self, name)[index] for name in self.__slots__))

    def __len__(self) -> int:
        return len(self.label)


def split_sentences(
    block: TokenBlock, continuation: NDArray[np.bool_], max_seq_length: int, kind: str = "nsp"
) -> Sentences:
    """The sentences of a bucket, those longer than the room cut at word starts.

    continuation: is this word of the vocabulary a `##` piece, bool (words,). kind: for `nsp` and `sop` pieces are at most
    half the room, so that a pair of them fits; `sop`, which cuts no segment, does so with all that are longer than that;
    for `none`, single segments, they are at most the room; `google` leaves sentences whole.
    """
    room = max_seq_length - (2 if kind == "none" else 3)
    most = room if kind == "none" else room // 2
    head = ~continuation[block.ids]
    if block.inside_words is not None:
        head &= ~block.inside_words
    edges = np.concatenate([[0], np.cumsum(block.sentence_lengths, dtype=np.int64)])
    document = np.repeat(np.arange(len(block.documents)), block.documents["num_sentences"])
    limit = most if kind == "sop" else room
    long = np.flatnonzero((block.sentence_lengths > limit) & (kind != "google"))
    if len(long):
        cuts = [_cut(head, int(edges[i]), int(edges[i + 1]), most) for i in long]
        where = np.repeat(long, [len(cut) for cut in cuts])
        flat = np.fromiter((at for cut in cuts for at in cut), np.int64, len(where))
        document = np.insert(document, where, document[where])
        edges = np.insert(edges, where + 1, flat)
    counts = np.bincount(document, minlength=len(block.documents))
    first = np.concatenate([[0], np.cumsum(counts)])
    is_edge = np.zeros(len(block.ids) + 1, bool)
    is_edge[edges] = True
    full_end = np.searchsorted(edges, edges[:-1] + room)
    rows = block.documents
    return Sentences(
        block.ids, head, edges, document, first, rows["id"].copy(), rows["source_key"].copy(), is_edge, full_end
    )


def _cut(head: NDArray[np.bool_], start: int, end: int, most: int) -> list[int]:
    """Where to cut tokens start ... end into pieces of nearly equal length and at most `most`, at word starts."""
    cuts = []
    while end - start > most:
        left = end - start
        at = start + -(-left // -(-left // most))
        word = at - int(np.argmax(head[at:start:-1])) if head[start + 1 : at + 1].any() else at
        cuts.append(word)
        start = word
    return cuts


def sentence_keys(s: Sentences, max_seq_length: int, copy: int, seed: int) -> U64:
    """The key of the chunk that begins at each sentence: (sentences,)."""
    keys = fold(seed, PAIRS, max_seq_length, copy, s.ids_of_documents)
    return mix((keys[s.document] ^ s.ordinal.astype(np.uint64)) + GOLDEN)


def target_lengths(keys: U64, room: int, short_seq_prob: float) -> NDArray[np.int64]:
    """Tokens to fill for each key: the room, or with probability `short_seq_prob` fewer, drawn uniformly."""
    draws = draw(keys, 0)
    target = np.full(len(keys), room)
    short = np.flatnonzero(chance(draws, short_seq_prob))
    target[short] = MIN_TARGET + bounded_low(draws[short], room - MIN_TARGET + 1)
    return target


def make_pairs(
    sentences: Sentences, max_seq_length: int, copy: int, seed: int, short_seq_prob: float
) -> tuple[Pairs, dict[str, int]]:
    """All pairs of one copy of a bucket in the order of its documents, and what was counted on the way."""
    s = sentences
    counters = {"pairs-forced-random": 0, "pairs-dropped": 0, "pairs-short-random-b": 0}
    n = len(s.document)
    if n == 0:
        return no_pairs(), counters
    room = max_seq_length - 3
    keys = sentence_keys(s, max_seq_length, copy, seed)

    # every chunk that could begin at each sentence
    target = target_lengths(keys, room, short_seq_prob)
    short = np.flatnonzero(target < room)
    here = np.arange(n)
    end = s.full_end.copy()
    end[short] = np.searchsorted(s.edges, s.edges[short] + target[short])
    last = s.first[s.document + 1]
    end = np.minimum(np.maximum(end, here + 2), last)
    end = np.where(last - end == 1, last, end)  # a single sentence left over would be random by force
    size = end - here
    draws = draw(keys, 1)
    a_end = here + 1 + bounded(draws, np.maximum(size - 1, 1))
    put_back = np.where(last - a_end == 1, last, a_end)  # so it is not put back, either
    coin = (draws & np.uint64(0xFFFFFFFF)) < np.uint64(threshold(0.5, 32))

    chosen, label = _walk(size, coin, put_back, end)
    counters["pairs-forced-random"] = int((size[chosen] == 1).sum())
    keep = without_surplus(s, chosen, label, (seed, SURPLUS, max_seq_length, copy))
    counters["pairs-dropped"] = len(chosen) - len(keep)
    chosen, label = chosen[keep], label[keep]

    # cut what is too long, in the same way whatever the label
    a_start, b_start = s.edges[chosen], s.edges[a_end[chosen]]
    a_length, b_length = b_start - a_start, s.edges[end[chosen]] - b_start
    forced = b_length == 0
    b_length[forced] = np.maximum(target[chosen[forced]] - a_length[forced], room // 4)
    a_start, b_length, b_cut = cut_to_room(s.head, a_start, b_start, b_length, room)
    a_length = b_start - a_start

    document_b = s.document[chosen].copy()
    random = np.flatnonzero(label == RANDOM)
    whole = (b_cut[random] == 0) & ~forced[random]
    start, length = _random_b(s, keys[chosen[random]], s.document[chosen[random]], b_length[random], whole)
    counters["pairs-short-random-b"] = int((length < b_length[random]).sum())
    b_start, b_length[random] = b_start.copy(), length
    b_start[random] = s.edges[start]
    document_b[random] = s.document[start]
    b_length = back_to_word(s.head, b_start, b_start + b_length) - b_start

    document_a = s.document[chosen]
    ordinal = chosen - s.first[document_a]
    return Pairs(a_start, a_length, b_start, b_length, label, document_a, document_b, ordinal), counters


def no_pairs() -> Pairs:
    none = np.zeros(0, np.int64)
    return Pairs(none, none, none, none, np.zeros(0, np.int8), none, none, none)


def cut_to_room(
    head: NDArray[np.bool_], a_start: NDArray, b_start: NDArray, b_length: NDArray, room: int
) -> tuple[NDArray, NDArray, NDArray]:
    """(a_start, b_length, tokens that B had to lose) of neighbours A and B that fit the room, the junction kept.

    B loses its end, down to a quarter of the room, then A its front, at a word start; B's end may still cut a word.
    """
    excess = np.maximum(b_start - a_start + b_length - room, 0)
    b_cut = np.minimum(excess, b_length - np.minimum(b_length, max(1, room // 4)))
    return _forward_to_word(head, a_start + (excess - b_cut), b_start), b_length - b_cut, b_cut


def _walk(size: NDArray, coin: NDArray, put_back: NDArray, end: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """From chunk to chunk: (first sentence of each, its label). put_back: where the next chunk begins after a random pair.

    A pair that is random by force tips the balance of the labels by one, a random pair made a next one by two: so every
    second forced one is repaid, by the next pair that its coin had made random.
    """
    n = len(size)
    forced = size == 1
    steps = (np.where(coin, put_back, end) * np.where(forced, -1, 1)).data  # below 0: a forced random pair
    ends = end.data
    chosen: list[int] = []
    repaid: list[int] = []  # coins said random, but a next pair was owed
    add = chosen.append
    at = debt = 0
    while at < n:
        add(at)
        step = steps[at]
        if step > 0:
            at = step
            continue
        at, debt = -step, debt + 1
        while debt > 0 and at < n:
            add(at)
            if steps[at] < 0:
                debt += 1
            elif coin[at]:
                debt -= 2
                repaid.append(at)
            at = ends[at]
    label = (coin | forced).astype(np.int8)
    label[repaid] = NEXT
    index = np.array(chosen, np.int64)
    return index, label[index]


def without_surplus(s: Sentences, chosen: NDArray, label: NDArray, key: tuple[int, ...]) -> NDArray[np.intp]:
    """Which pairs to keep so that both labels are equal in number within one; by keyed priority."""
    num_random = int(label.sum())
    more = RANDOM if num_random * 2 > len(label) else NEXT
    surplus = abs(len(label) - 2 * num_random) - 1
    if surplus <= 0:
        return np.arange(len(label))
    among = np.flatnonzero(label == more)
    sentence = chosen[among]
    document = s.document[sentence]
    priority = fold(*key, s.ids_of_documents[document], sentence - s.first[document])
    drop = among[np.argsort(priority, kind="stable")[:surplus]]
    return np.delete(np.arange(len(label)), drop)


def _random_b(
    s: Sentences, keys: U64, document_a: NDArray, length: NDArray, whole: NDArray
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(first sentence, length) of a random B for each pair.

    Up to TRIES sentences are drawn uniformly from the other documents; taken is the first one of another source with
    enough text behind it that has a sentence's end at just that length where the true B was `whole`, and none there
    where it was cut; else the first with enough text; else the first of another source, cut short.
    """
    found = np.full(len(keys), -1)
    own_size = s.first[document_a + 1] - s.first[document_a]
    for wish in (EXACT, ENOUGH, OTHER):
        open_ = np.flatnonzero((found < 0) & (own_size < len(s.document)))
        columns = keys, s.first[document_a], own_size, s.source_keys[document_a], length, whole
        asked = [column[open_] for column in columns]
        for j in range(TRIES):
            if len(open_) == 0:
                break
            key, own, size, source, tokens, ends = asked
            at = bounded(draw(key, 2 + j), len(s.document) - size)
            at += (at >= own) * size
            document = s.document[at]
            good = s.source_keys[document] != source
            stop = s.edges[at] + tokens
            if wish != OTHER:
                good &= stop <= s.edges[s.first[document + 1]]
            if wish == EXACT:
                good &= np.take(s.is_edge, stop, mode="clip") == ends
            found[open_[good]] = at[good]
            left = np.flatnonzero(~good)
            open_, asked = open_[left], [column[left] for column in asked]
    for i in np.flatnonzero(found < 0):  # every try met A's own source: walk on to the next other one
        found[i] = _next_other_source(s, int(document_a[i]))
    left = s.edges[s.first[s.document[found] + 1]] - s.edges[found]
    return found, np.minimum(length, left)


def _next_other_source(s: Sentences, document: int) -> int:
    n = len(s.source_keys)
    for step in range(1, n):
        other = (document + step) % n
        if s.source_keys[other] != s.source_keys[document] and s.first[other] < s.first[other + 1]:
            return int(s.first[other])
    raise ValueError(
        "next sentence prediction needs documents from two sources in every bucket, and here is one: "
        "give more documents, or a lower validation fraction"
    )


def _forward_to_word(head: NDArray[np.bool_], at: NDArray, limit: NDArray) -> NDArray:
    """The first word start at or behind `at`, below `limit`; `at` itself where there is none."""
    moved = at.copy()
    move = np.flatnonzero(~head[moved])
    while len(move):
        moved[move] += 1
        move = move[moved[move] < limit[move]]
        move = move[~head[moved[move]]]
    return np.where(moved < limit, moved, at)


def back_to_word(head: NDArray[np.bool_], start: NDArray, end: NDArray) -> NDArray:
    """The last word end at or before `end`, behind `start`; `end` itself where there is none."""
    moved = end.copy()
    move = np.flatnonzero(moved < len(head))
    move = move[~head[moved[move]]]
    while len(move):
        moved[move] -= 1
        move = move[moved[move] > start[move]]
        move = move[~head[moved[move]]]
    return np.where(moved > start, moved, end)
