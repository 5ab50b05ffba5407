"""Slow, obvious twins of sentence order prediction, single segments, whole-word and span masks. See twins_of_pairs.py."""

from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction

from tests.pipeline.twins import PAIRS, SURPLUS, bounded, bounded_low, chance, draw, fold
from tests.pipeline.twins_of_pairs import Pair, Text, draw_place

NO_PAIR = -1
FIRST_WORD_DRAW = 131_072
LENGTH_DRAW, EDGE_DRAW, WINDOW_DRAW = 131_072, 262_144, 262_146


def cut_long(texts: list[Text], is_head: list[bool], longest: int, most: int) -> list[Text]:
    """The documents with each sentence of more than `longest` tokens cut into pieces of at most `most`, at word starts."""

    def pieces(start: int, end: int) -> list[tuple[int, int]]:
        if end - start <= most:
            return [(start, end)]
        number = -(-(end - start) // most)
        wanted = start + -(-(end - start) // number)
        cut = max((at for at in range(start + 1, wanted + 1) if is_head[at]), default=wanted)
        return [(start, cut), *pieces(cut, end)]

    def cut(text: Text) -> Text:
        cuts = [pieces(a, b) if b - a > longest else [(a, b)] for a, b in text.sentences]
        return Text(text.id, text.source_key, [piece for each in cuts for piece in each], text.edges)

    return [cut(text) for text in texts]


def target_of(key: int, room: int, short_seq_prob: float) -> int:
    number = draw(key, 0)
    return 2 + bounded_low(number, room - 1) if chance(number, short_seq_prob) else room


def tokens_of(sentences: list[tuple[int, int]]) -> int:
    return sum(end - start for start, end in sentences)


# ---------------------------------------------------------------------------------------------------- pairs


@dataclass
class SwapChunk:
    """Some sentences of a document that sentence order prediction would halve."""

    document: int
    sentence: int
    key: int
    start: int
    stop: int
    places: list[int]
    """Borders of sentences at which it may be halved into whole sentences."""


def swap_chunks(
    text: Text, number: int, room: int, key: tuple[int, ...], short_seq_prob: float, marked: set[int]
) -> tuple[list[SwapChunk], int]:
    """The chunks of one document, and how many are single sentences instead."""
    left = list(range(len(text.sentences)))
    backward = chance(draw(fold(*key, text.id), 0), 0.5)
    chunks, alone = [], 0
    while left:
        at = left[-1] if backward else left[0]
        own = fold(*key, text.id, at)
        target = target_of(own, room, short_seq_prob)
        size = 1
        while size < len(left):
            more = left[-size - 1 :] if backward else left[: size + 1]
            if size >= 2 and tokens_of([text.sentences[i] for i in more]) > target:
                break
            size += 1
        chunk = left[-size:] if backward else left[:size]
        left = left[:-size] if backward else left[size:]
        if size == 1:
            alone += 1
            continue
        start, stop = text.sentences[chunk[0]][0], text.sentences[chunk[-1]][1]
        places = sorted(edge for edge in text.edges if start < edge < stop and edge in marked)
        whole = start in text.edges and stop in marked
        chunks.append(SwapChunk(number, chunk[0], own, start, stop, places if whole else []))
    return chunks, alone


def whole_halves(chunks: list[SwapChunk]) -> list[tuple[SwapChunk, int]]:
    """The chunks that are halved into whole sentences, each with its middle."""
    found = []
    left = sorted((chunk for chunk in chunks if chunk.places), key=lambda chunk: draw(chunk.key, 34))
    for j, bins in enumerate((64, 64, 32, 32, 16, 16, 8, 8)):
        middles = [chunk.places[bounded(draw(chunk.key, 35 + j), len(chunk.places))] for chunk in left]
        halves = [(middle - chunk.start, chunk.stop - middle) for chunk, middle in zip(left, middles)]
        lengths = sorted(length for both in halves for length in both)
        kinds = []
        for one, two in halves:
            in_bins = sorted(bisect_left(lengths, length) * bins // len(lengths) for length in (one, two))
            kinds.append((in_bins, (one > two) - (one < two)))
        stay = []
        for i, (in_bins, longer) in enumerate(kinds):
            if kinds[:i].count(kinds[i]) < kinds.count((in_bins, -longer)):
                found.append((left[i], middles[i]))
            else:
                stay.append(left[i])
        left = stay
    return found


def halves_inside(text: Text, chunk: SwapChunk, is_head: list[bool]) -> tuple[int, int, int] | None:
    """Three places inside sentences: where the first half begins, where it ends and the second one begins, and ends."""
    inside = [at for at in range(chunk.start, chunk.stop + 1) if at < len(is_head) and is_head[at]]
    inside = [at for at in inside if not text.edges & {at - 2, at - 1, at, at + 1, at + 2}]
    if len(inside) < 3:
        return None
    allowed = [at in inside for at in range(chunk.stop + 1)]
    least = (inside[-1] - inside[0]) // 8
    place = draw_place(chunk.key, 2, inside[0] + least, inside[-1] - least, allowed, mirrored=True)
    return None if place is None else (inside[0], place, inside[-1])


def make_swapped(
    texts: list[Text],
    is_head: list[bool],
    marked: set[int],
    max_seq_length: int,
    copy: int,
    seed: int,
    short_seq_prob: float,
) -> tuple[list[Pair], dict[str, int]]:
    chunks: list[SwapChunk] = []
    without_second = 0
    for number, text in enumerate(texts):
        key = (seed, PAIRS, max_seq_length, copy)
        found, alone = swap_chunks(text, number, max_seq_length - 3, key, short_seq_prob, marked)
        chunks += found
        without_second += alone
    middles = {chunk.key: middle for chunk, middle in whole_halves(chunks)}
    pairs: list[Pair] = []
    for chunk in chunks:
        if chunk.key in middles:
            halved = (chunk.start, middles[chunk.key], chunk.stop)
        else:
            halved = halves_inside(texts[chunk.document], chunk, is_head)
        if halved is None:
            without_second += 1
            continue
        start, middle, stop = halved
        halves = [(start, middle), (middle, stop)]
        label = int(draw(chunk.key, 1) & 0xFFFFFFFF < 2**31)
        (a, a_end), (b, b_end) = reversed(halves) if label else halves
        pairs.append(Pair(a, a_end - a, b, b_end - b, label, chunk.document, chunk.document, chunk.sentence))
    sides = [[pair for pair in pairs if pair.label == label] for label in (0, 1)]
    more = max(sides, key=len)
    surplus = max(abs(len(sides[0]) - len(sides[1])) - 1, 0)
    key = (seed, SURPLUS, max_seq_length, copy)
    dropped = sorted(more, key=lambda pair: fold(*key, texts[pair.document_a].id, pair.sentence))[:surplus]
    kept = [pair for pair in pairs if not any(pair is other for other in dropped)]
    return kept, {"pairs-without-second": without_second, "pairs-dropped": surplus}


def make_runs(texts: list[Text], max_seq_length: int, copy: int, seed: int, short_seq_prob: float) -> list[Pair]:
    runs = []
    for number, text in enumerate(texts):
        i = 0
        while i < len(text.sentences):
            target = target_of(fold(seed, PAIRS, max_seq_length, copy, text.id, i), max_seq_length - 2, short_seq_prob)
            end = i + 1
            while end < len(text.sentences) and tokens_of(text.sentences[i : end + 1]) <= target:
                end += 1
            runs.append(Pair(text.sentences[i][0], tokens_of(text.sentences[i:end]), 0, 0, NO_PAIR, number, number, i))
            i = end
    return runs


# ---------------------------------------------------------------------------------------------------- whole words


def choose_words(key: int, pieces: list[int], count: int, max_predictions: int, pass_over: bool) -> list[int]:
    """The words of one example that are masked, of which pieces[i] is the number of tokens."""
    taken: set[int] = set()
    seen: set[int] = set()
    step = FIRST_WORD_DRAW
    left, masked = count, 0
    if not pass_over and left and pieces:
        # a window of `count` tokens on a circle of words begins at any token
        number = draw(key, step)
        token = bounded(number, sum(pieces))
        owner = [(word, i) for word, size in enumerate(pieces) for i in range(size)]
        word, before = owner[token]
        size = pieces[word]
        behind = min(size - before, left)
        around = max(left - (sum(pieces) - before), 0)
        left -= behind
        if bounded_low(number, size) < behind + around and size + left <= max_predictions:
            taken.add(word)
            masked += size
        seen.add(word)
        step += 1
    while left > 0 and len(seen) < len(pieces):
        number = draw(key, step)
        step += 1
        word = bounded(number, len(pieces))
        if word in seen:
            continue
        seen.add(word)
        size = pieces[word]
        if size <= left:
            taken.add(word)
            masked += size
            left -= size
        elif not pass_over:
            if bounded_low(number, size) < left and masked + size <= max_predictions:
                taken.add(word)
            break
    return sorted(taken)


def words_of(is_head: list[bool], b_start: int, length: int, across: bool) -> list[list[int]]:
    """The positions of each word of an example of `length` tokens whose B begins at `b_start`; `length` where there is none.

    across: a B that begins inside a word goes on with A's last one, as Google has it.
    """
    words: list[list[int]] = []
    for at in range(1, length - 1):
        if at == b_start - 1:
            continue
        if is_head[at] or at == 1 or (at == b_start and not across):
            words.append([at])
        else:
            words[-1].append(at)
    return words


def mask_words(
    input_ids: list[int],
    is_head: list[bool],
    b_start: int,
    key: int,
    count: int,
    max_predictions: int,
    mask_id: int,
    replacements: list[int],
    shares: tuple[float, float],
    google: bool,
) -> tuple[list[int], list[int], list[int]]:
    """(input ids with the masks applied, masked_lm_positions, masked_lm_ids) of one example."""
    words = words_of(is_head, b_start, len(input_ids), across=google)
    chosen = choose_words(key, [len(word) for word in words], count, max_predictions, google)
    groups = [words[i] for i in chosen]
    return apply(input_ids, groups, key, max_predictions, mask_id, replacements, shares, alone=google)


def apply(
    input_ids: list[int],
    groups: list[list[int]],
    key: int,
    max_predictions: int,
    mask_id: int,
    replacements: list[int],
    shares: tuple[float, float],
    alone: bool,
) -> tuple[list[int], list[int], list[int]]:
    """The same for the positions in these groups, all of a group with one decision, or each with its own if `alone`."""
    masked, rank, positions = list(input_ids), 0, []
    for group in groups:
        decided = draw(key, max_predictions + rank) >> 32
        for at in group:
            number = draw(key, max_predictions + rank)
            if alone:
                decided = number >> 32
            below = int(Fraction(str(shares[0])) * 2**32)
            if decided < below:
                masked[at] = mask_id
            elif decided < below + int(Fraction(str(shares[1])) * 2**32):
                masked[at] = replacements[bounded_low(number, len(replacements))]
            positions.append(at)
            rank += 1
    return masked, positions, [input_ids[at] for at in positions]


# ---------------------------------------------------------------------------------------------------- spans


def share_up_to(words: int) -> Fraction:
    """P(length <= words) of the geometric distribution with p = 0.2, cut off after 10 words."""
    shares = [Fraction(1, 5) * Fraction(4, 5) ** (k - 1) for k in range(1, 11)]
    return sum(shares[:words]) / sum(shares)


def cut_into_spans(segments: list[int], key: int) -> list[list[int]]:
    """The words of each span, where segments[i] is the number of words of segment i."""
    spans: list[list[int]] = []
    first = 0
    for size in segments:
        words = list(range(first, first + size))
        while words:
            number = draw(key, LENGTH_DRAW + len(spans)) >> 32
            length = next(k for k in range(1, 11) if number < int(share_up_to(k) * 2**32))
            spans.append(words[:length])
            words = words[length:]
        first += size
    return spans


def mask_spans(
    input_ids: list[int],
    is_head: list[bool],
    b_start: int,
    key: int,
    count: int,
    max_predictions: int,
    mask_id: int,
    replacements: list[int],
    shares: tuple[float, float],
) -> tuple[list[int], list[int], list[int]]:
    """(input ids with the masks applied, masked_lm_positions, masked_lm_ids) of one example."""
    words = words_of(is_head, b_start, len(input_ids), across=False)
    in_a = sum(word[0] < b_start for word in words)
    spans = cut_into_spans([in_a, len(words) - in_a], key)

    tokens = [(at, i) for i, span in enumerate(spans) for word in span for at in words[word]]
    begin, first = tokens[bounded(draw(key, WINDOW_DRAW), len(tokens))]
    order, step = [first], WINDOW_DRAW + 1
    while len(order) < len(spans):
        number = bounded(draw(key, step), len(spans))
        step += 1
        if number not in order:
            order.append(number)
    circle = [at for i in order for word in spans[i] for at in words[word]]
    offset = circle.index(begin)
    window = set((circle + circle)[offset : offset + count])

    taken = [number for number, word in enumerate(words) if set(word) <= window]
    torn = [number for number, word in enumerate(words) if set(word) & window and not set(word) <= window]
    for edge, number in enumerate(torn):
        size = len(words[number])
        lucky = bounded(draw(key, EDGE_DRAW + edge), size) < len(set(words[number]) & window)
        if lucky and sum(len(words[i]) for i in taken) + size <= max_predictions:
            taken.append(number)
    groups = [[at for word in span if word in taken for at in words[word]] for span in spans]
    return apply(input_ids, groups, key, max_predictions, mask_id, replacements, shares, alone=False)
