"""Slow, obvious twins of the kernels that make examples: pairs and masks, one example at a time. See twins.py."""

from dataclasses import dataclass
from fractions import Fraction

from tests.pipeline.twins import MASKS, PAIRS, SURPLUS, bounded, bounded_low, chance, draw, fold

NEXT, RANDOM = 0, 1


@dataclass
class Text:
    """A document of a bucket."""

    id: int
    source_key: int
    sentences: list[tuple[int, int]]
    """(first token, the token after the last) of each, in the bucket's ids."""

    @property
    def end(self) -> int:
        return self.sentences[-1][1]


@dataclass
class Pair:
    a_start: int
    a_length: int
    b_start: int
    b_length: int
    label: int
    document_a: int
    document_b: int
    sentence: int


def cut_sentences(texts: list[Text], is_head: list[bool], max_seq_length: int) -> list[Text]:
    """The documents with each sentence that is longer than the room cut into pieces of at most half of it."""
    room, most = max_seq_length - 3, (max_seq_length - 3) // 2

    def pieces(start: int, end: int) -> list[tuple[int, int]]:
        if end - start <= most:
            return [(start, end)]
        number = -(-(end - start) // most)
        wanted = start + -(-(end - start) // number)
        heads = [at for at in range(start + 1, wanted + 1) if is_head[at]]
        cut = max(heads, default=wanted)
        return [(start, cut), *pieces(cut, end)]

    def cut(text: Text) -> Text:
        cuts = [pieces(a, b) if b - a > room else [(a, b)] for a, b in text.sentences]
        return Text(text.id, text.source_key, [piece for each in cuts for piece in each])

    return [cut(text) for text in texts]


@dataclass
class Chunk:
    """Some sentences of a document, in two parts: what an example is made of."""

    document: int
    sentence: int
    target: int
    middle: int
    """First sentence of the second part; `end` where there is none."""
    end: int
    coin: bool
    """The coin said random."""
    label: int = NEXT


def chunk_at(text: Text, number: int, i: int, room: int, prefix: tuple[int, ...], short_seq_prob: float) -> Chunk:
    key = fold(*prefix, text.id, i)
    target = room
    if chance(draw(key, 0), short_seq_prob):
        target = 2 + bounded_low(draw(key, 0), room - 1)
    end, tokens = i, 0
    while end < len(text.sentences) and (tokens < target or end - i < 2):
        tokens += text.sentences[end][1] - text.sentences[end][0]
        end += 1
    if end == len(text.sentences) - 1:
        end += 1  # none is left alone
    middle = end
    if end - i > 1:
        middle = i + 1 + bounded(draw(key, 1), end - i - 1)
    return Chunk(number, i, target, middle, end, coin=draw(key, 1) & 0xFFFFFFFF < 2**31)


def walk(texts: list[Text], max_seq_length: int, copy: int, seed: int, short_seq_prob: float) -> list[Chunk]:
    """The chunks of all documents, one after the other, with their labels."""
    chunks, owed = [], 0
    for number, text in enumerate(texts):
        i = 0
        while i < len(text.sentences):
            prefix = (seed, PAIRS, max_seq_length, copy)
            chunk = chunk_at(text, number, i, max_seq_length - 3, prefix, short_seq_prob)
            if chunk.end - i == 1:
                chunk.label = RANDOM  # by force
                owed += 1
                i = chunk.end
            elif chunk.coin and owed <= 0:
                chunk.label = RANDOM
                i = chunk.middle  # the rest begins the next chunk, unless it is a single sentence
                if i == len(text.sentences) - 1:
                    i += 1
            else:
                if chunk.coin:
                    owed -= 2
                i = chunk.end
            chunks.append(chunk)
    return chunks


def balance(chunks: list[Chunk], texts: list[Text], key: tuple[int, ...]) -> list[Chunk]:
    """As many of one label as of the other, or one more: those with the least keys go."""
    by_label = [[chunk for chunk in chunks if chunk.label == label] for label in (NEXT, RANDOM)]
    more = max(by_label, key=len)
    surplus = abs(len(by_label[0]) - len(by_label[1])) - 1
    more.sort(key=lambda chunk: fold(*key, texts[chunk.document].id, chunk.sentence))
    dropped = more[: max(surplus, 0)]
    return [chunk for chunk in chunks if not any(chunk is other for other in dropped)]


def random_b(texts: list[Text], a: int, key: int, length: int, whole: bool) -> tuple[int, int]:
    """(document, sentence) with which a random B begins."""
    others = [(d, i) for d, text in enumerate(texts) if d != a for i in range(len(text.sentences))]
    best: dict[str, tuple[int, int]] = {}
    for j in range(128 if others else 0):
        d, i = others[bounded(draw(key, 2 + j), len(others))]
        if texts[d].source_key == texts[a].source_key:
            continue
        best.setdefault("of another source", (d, i))
        stop = texts[d].sentences[i][0] + length
        if stop > texts[d].end:
            continue
        best.setdefault("long enough", (d, i))
        if whole == any(end == stop for _, end in texts[d].sentences):
            return d, i
    for quality in ("long enough", "of another source"):
        if quality in best:
            return best[quality]
    for step in range(1, len(texts)):
        d = (a + step) % len(texts)
        if texts[d].source_key != texts[a].source_key and texts[d].sentences:
            return d, 0
    raise ValueError("one source")


def make_pairs(
    texts: list[Text], is_head: list[bool], max_seq_length: int, copy: int, seed: int, short_seq_prob: float
) -> tuple[list[Pair], dict[str, int]]:
    """What pipeline.pairs makes of a bucket whose sentences are cut, example by example."""
    room = max_seq_length - 3
    least = max(1, room // 4)
    chunks = walk(texts, max_seq_length, copy, seed, short_seq_prob)
    kept = balance(chunks, texts, (seed, SURPLUS, max_seq_length, copy))
    pairs, num_short = [], 0
    for chunk in kept:
        text = texts[chunk.document]
        start, middle = text.sentences[chunk.sentence][0], text.sentences[chunk.middle - 1][1]
        forced = chunk.middle == chunk.end
        b_length = text.sentences[chunk.end - 1][1] - middle
        if forced:
            b_length = max(chunk.target - (middle - start), least)
        whole = not forced
        while middle - start + b_length > room and b_length > least:
            b_length -= 1  # B loses its end first
            whole = False
        a_start = start
        while middle - a_start + b_length > room:
            a_start += 1  # then A its front
        heads = [at for at in range(a_start, middle) if is_head[at]]
        a_start = min(heads, default=a_start)

        document_b, b_start = chunk.document, middle
        if chunk.label == RANDOM:
            key = fold(seed, PAIRS, max_seq_length, copy, text.id, chunk.sentence)
            document_b, sentence = random_b(texts, chunk.document, key, b_length, whole)
            b_start = texts[document_b].sentences[sentence][0]
            left = texts[document_b].end - b_start
            num_short += left < b_length
            b_length = min(b_length, left)
        b_end = b_start + b_length
        ends = [at for at in range(b_start + 1, b_end + 1) if at == len(is_head) or is_head[at]]
        b_end = max(ends, default=b_end)
        pairs.append(
            Pair(
                a_start,
                middle - a_start,
                b_start,
                b_end - b_start,
                chunk.label,
                chunk.document,
                document_b,
                chunk.sentence,
            )
        )
    counters = {
        "pairs-forced-random": sum(chunk.middle == chunk.end for chunk in chunks),
        "pairs-dropped": len(chunks) - len(kept),
        "pairs-short-random-b": num_short,
    }
    return pairs, counters


# ---------------------------------------------------------------------------------------------------- masks


def num_masks(length: int, masked_lm_prob: float, max_predictions: int) -> int:
    """Of an example of this length, its three specials counted."""
    wanted = (length * Fraction(str(masked_lm_prob)) + Fraction(1, 2)).__floor__()
    return min(max(1, wanted), max_predictions, max(length - 3, 0))


def choose(key: int, size: int, count: int) -> list[int]:
    """`count` of the numbers 0 ... size - 1, by Floyd's algorithm."""
    taken: set[int] = set()
    for step in range(count):
        last = size - count + step
        number = bounded(draw(key, step), last + 1)
        taken.add(last if number in taken else number)
    return sorted(taken)


def mask(
    input_ids: list[int], b_start: int, key: int, count: int, max_predictions: int, mask_id: int, words: list[int]
) -> tuple[list[int], list[int], list[int]]:
    """(input ids with the masks applied, masked_lm_positions, masked_lm_ids) of one example."""
    specials = (0, b_start - 1, len(input_ids) - 1)
    free = [at for at in range(len(input_ids)) if at not in specials]
    positions = [free[number] for number in choose(key, len(free), count)]
    masked = list(input_ids)
    for rank, at in enumerate(positions):
        number = draw(key, max_predictions + rank)
        if number >> 32 < int(Fraction("0.8") * 2**32):
            masked[at] = mask_id
        elif number >> 32 < int(Fraction("0.8") * 2**32) + int(Fraction("0.1") * 2**32):
            masked[at] = words[bounded_low(number, len(words))]
    return masked, positions, [input_ids[at] for at in positions]


def mask_key(seed: int, max_seq_length: int, copy: int, document: int, sentence: int) -> int:
    return fold(seed, MASKS, max_seq_length, copy, document, sentence)
