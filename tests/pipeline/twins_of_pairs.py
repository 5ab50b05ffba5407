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
    edges: frozenset[int]
    """Where a sentence of the text begins or ends; a cut is no edge."""

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
        return Text(text.id, text.source_key, [piece for each in cuts for piece in each], text.edges)

    return [cut(text) for text in texts]


@dataclass
class Chunk:
    """Some sentences of a document, in two parts: what an example is made of."""

    document: int
    sentence: int
    key: int
    middle: int
    """First sentence of the second part; `end` where there is none."""
    end: int
    label: int


def draw_place(
    key: int, first_draw: int, start: int, end: int, allowed: list[bool], mirrored: bool = False
) -> int | None:
    """A place between start and end that is allowed, and its mirror image too if so wanted, drawn until one is, 32 times."""
    for j in range(32 if end - start > 1 else 0):
        place = start + 1 + bounded(draw(key, first_draw + j), end - start - 1)
        if allowed[place] and (allowed[start + end - place] or not mirrored):
            return place
    return None


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
    return Chunk(number, i, key, middle, end, label=RANDOM if draw(key, 1) & 0xFFFFFFFF < 2**31 else NEXT)


def walk(texts: list[Text], max_seq_length: int, copy: int, seed: int, short_seq_prob: float) -> list[Chunk]:
    """The chunks of all documents, one after the other."""
    chunks = []
    for number, text in enumerate(texts):
        i = 0
        while i < len(text.sentences):
            prefix = (seed, PAIRS, max_seq_length, copy)
            chunk = chunk_at(text, number, i, max_seq_length - 3, prefix, short_seq_prob)
            chunks.append(chunk)
            i = chunk.end
            if chunk.label == RANDOM:
                i = chunk.middle  # the rest begins the next chunk, unless it is a single sentence
                if i == len(text.sentences) - 1:
                    i += 1
    return chunks


def balance(chunks: list[Chunk], texts: list[Text], key: tuple[int, ...]) -> list[Chunk]:
    """As many of one label as of the other, or one more: those with the least keys go."""
    by_label = [[chunk for chunk in chunks if chunk.label == label] for label in (NEXT, RANDOM)]
    more = max(by_label, key=len)
    surplus = abs(len(by_label[0]) - len(by_label[1])) - 1
    more.sort(key=lambda chunk: fold(*key, texts[chunk.document].id, chunk.sentence))
    dropped = more[: max(surplus, 0)]
    return [chunk for chunk in chunks if not any(chunk is other for other in dropped)]


@dataclass
class B:
    """The true B of a pair."""

    text: Text
    document: int
    key: int
    start: int
    wanted: int
    """Its length before its end was moved back to that of a word."""
    length: int

    is_free: bool
    """It ends with its last sentence, and not because the room is full."""

    @property
    def kind(self) -> tuple[bool, bool]:
        return self.start in self.text.edges, self.is_free


def back_to_word(start: int, end: int, is_head: list[bool]) -> int:
    return max((at for at in range(start + 1, end + 1) if at == len(is_head) or is_head[at]), default=end)


def random_b(texts: list[Text], bs: list[B], own: B, room: int, is_head: list[bool]) -> tuple[int, int, int, bool]:
    """(document, start, length, whether it is like the true one) of the B of a random pair."""
    like = sorted((b for b in bs if b.kind == own.kind), key=lambda b: (b.wanted, draw(b.key, 2)))
    rank = next(i for i, b in enumerate(like) if b is own)
    by_source = sorted(bs, key=lambda b: b.text.source_key)
    others = [b for b in by_source if b.text.source_key != own.text.source_key] or [own]
    for j in range(35, 35 + 128):
        if j < 35 + 64:
            reach = 8 << (j - 35) // 4
            near = like[max(0, rank - reach) : rank + reach + 1]
            other = near[bounded(draw(own.key, j), len(near))]
        else:
            other = others[bounded(draw(own.key, j), len(others))]
        length = other.length
        if not own.is_free:
            length = back_to_word(other.start, min(other.start + own.wanted, other.text.end), is_head) - other.start
        fits = (other.start + length in other.text.edges) == (own.start + own.length in own.text.edges)
        if own.is_free:
            fits = abs(length - own.length) <= own.length // 8
        if other.text.source_key != own.text.source_key and other.kind == own.kind and fits and length <= room:
            return other.document, other.start, length, True
    document, start = other.document, other.start
    if other is own:
        following = [(own.document + step) % len(texts) for step in range(1, len(texts))]
        document = next((d for d in following if texts[d].source_key != own.text.source_key), -1)
        if document < 0:
            raise ValueError("one source")
        start = texts[document].sentences[0][0]
    end = back_to_word(start, min(start + min(own.wanted, room), texts[document].end), is_head)
    return document, start, end - start, False


def make_pairs(
    texts: list[Text], is_head: list[bool], max_seq_length: int, copy: int, seed: int, short_seq_prob: float
) -> tuple[list[Pair], dict[str, int]]:
    """What the objective nsp makes of a bucket whose sentences are cut, example by example."""
    room = max_seq_length - 3
    least = max(1, room // 4)
    chunks, middles = [], {}
    walked = walk(texts, max_seq_length, copy, seed, short_seq_prob)
    for chunk in walked:
        start, end = texts[chunk.document].sentences[chunk.sentence]
        place: int | None = texts[chunk.document].sentences[chunk.middle - 1][1]
        if chunk.middle == chunk.end:
            place = draw_place(chunk.key, 3, start, end, is_head)
        if place is not None:
            middles[id(chunk)] = place
            chunks.append(chunk)
    kept = balance(chunks, texts, (seed, SURPLUS, max_seq_length, copy))
    bs, a_starts = [], []
    for chunk in kept:
        text, middle = texts[chunk.document], middles[id(chunk)]
        a_start = text.sentences[chunk.sentence][0]
        stop = text.sentences[chunk.end - 1][1]
        wanted = stop - middle
        while middle - a_start + wanted > room and wanted > least:
            wanted -= 1  # B loses its end first
        while middle - a_start + wanted > room:
            a_start += 1  # then A its front
        a_starts.append(min((at for at in range(a_start, middle) if is_head[at]), default=a_start))
        length = back_to_word(middle, middle + wanted, is_head) - middle
        is_free = middle + wanted == stop and stop in text.edges
        bs.append(B(text, chunk.document, chunk.key, middle, wanted, length, is_free))
    pairs, unmatched = [], 0
    for chunk, a_start, own in zip(kept, a_starts, bs):
        document, b_start, b_length = own.document, own.start, own.length
        if chunk.label == RANDOM:
            room_of_b = room - (own.start - a_start)
            document, b_start, b_length, alike = random_b(texts, bs, own, room_of_b, is_head)
            unmatched += not alike
        row = (a_start, own.start - a_start, b_start, b_length, chunk.label, chunk.document, document, chunk.sentence)
        pairs.append(Pair(*row))
    counters = {
        "pairs-of-one-sentence": sum(chunk.middle == chunk.end for chunk in chunks),
        "pairs-without-second": len(walked) - len(chunks),
        "pairs-dropped": len(chunks) - len(kept),
        "pairs-unmatched-random-b": unmatched,
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
