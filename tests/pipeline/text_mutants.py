"""Texts to tokenize, cut into sentences, clean, count and compare, see `tests/mutants.py`. A mutant is a file of texts.

python -m tests.pipeline.text_mutants wordpiece 1000 7
"""

import json
import random
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from bertloom.tokenizer_files import parse_tokenizer
from pipeline.options import compose
from pipeline.stages.word_cuts import WordCut, cut_of
from pipeline.text.cleaning import CleanConfig, clean
from pipeline.text.gutenberg import Licence
from pipeline.text.icu import load_sentence_finder
from pipeline.text.minhash import Banding
from pipeline.text.records import Document, PassedOver, Reject, join_lines, paragraphs, whole_or_pieces
from pipeline.text.sketches import sketch
from pipeline.text.word_runs import runs_of
from pipeline.text.words import find_words
from pipeline.tokenizer import DocumentTokenizer, TokenizeConfig, make_document_tokenizer
from pipeline.tokenizer_vocabulary import TokenizerVocabulary
from pipeline.vocabulary import make_tokenizer
from tests.bertloom.tokenizer_kinds import CONTENTS, NAMES
from tests.mutants import Target, Use, main
from tests.pipeline import twins
from tests.pipeline.small_text import ODD_PIECES, VOCABULARY
from tests.pipeline.twins_of_exclusion import words_of

TEXTS = 50  # of a file
SAMPLE = Path(__file__).parent.parent.parent / "jobs/sample"
CASINGS = [(True, None), (True, False), (False, None), (False, True)]  # do_lower_case, strip_accents
MARKS = [
    *"。！？．…”’）」』，、；：.!?,;:()\"'“「…-_#*&<>[]{}",
    "Mr",
    "No",
    "e.g",
    "U.S",
    "I",
    "J",
    "5",
    "三",
    "中",
    "文",
    "\n",
    " ",
]
HTML = [
    "&amp;",
    "&#0;",
    "&#x110000;",
    "<b>",
    "</p>",
    "Ã©",
    "â€œ",
    "http://a.b/c",
    "lorem ipsum",
    "{",
    "javascript",
    "\r",
]
LOCALES = ["ja", "ru", "de-AT", "th", "fr", "el"]


@cache
def _real() -> str:
    return (SAMPLE / "en.jsonl").read_text("utf-8")[:200_000] + (SAMPLE / "zh.txt").read_text("utf-8")[:100_000]


def text_of(draw: random.Random) -> str:
    """Return a text of pieces of real text, of characters that hurt, and of any characters."""
    parts = []
    for _ in range(draw.choice((0, 1, 2, 4, 8, 16))):
        kind = draw.randrange(6)
        if kind == 0:
            at = draw.randrange(len(_real()))
            parts.append(_real()[at : at + draw.randrange(1, 60)])
        elif kind <= 2:
            parts.append(draw.choice(ODD_PIECES))
        elif kind == 3:
            parts += draw.choices(MARKS, k=draw.randrange(1, 6))
        elif kind == 4:
            parts.append(draw.choice(HTML))
        else:
            most = draw.choice((0x7F, 0x7FF, 0x2FFF, 0xFFFF, sys.maxunicode))
            points = (draw.randrange(most + 1) for _ in range(draw.randrange(1, 12)))
            parts.append("".join(chr(point) for point in points if not 0xD800 <= point < 0xE000))
        if draw.random() < 0.05:
            parts.append(parts[-1] * draw.randrange(2, 80))
    return "".join(parts)


def write_texts(original: object, place: Path, draw: random.Random) -> Path:
    path = place.with_name(f"{place.name}.json")
    path.write_text(json.dumps([text_of(draw) for _ in range(TEXTS)]))
    return path


def check(found: object, expected: object, what: str, text: str) -> None:
    if found != expected:
        raise AssertionError(f"{what} of {text!r}: {found!r}, expected {expected!r}")


# ---- tokens


@cache
def wordpiece(lower: bool, strip: bool | None) -> tuple[DocumentTokenizer, Any]:
    """The tokenizer of documents, which remembers the texts before, and the library's."""
    config = TokenizeConfig(do_lower_case=lower, strip_accents=strip)
    return make_document_tokenizer(config, VOCABULARY), make_tokenizer(VOCABULARY, lower, strip)


@cache
def other_tokenizer(kind: str) -> tuple[DocumentTokenizer, Any]:
    vocabulary = TokenizerVocabulary.of(parse_tokenizer(json.dumps(CONTENTS[kind]).encode(), kind, NAMES.get(kind)))
    return make_document_tokenizer(TokenizeConfig(), vocabulary), vocabulary.tokenizer.load()


def use_tokenizer(tokenizer: DocumentTokenizer, library: Any, texts: Sequence[str], in_lines: bool) -> None:
    """Tokenize texts together. Each has the ids that the library gives it alone."""
    block = tokenizer([Document(text.encode(), i) for i, text in enumerate(texts)])
    ends = np.cumsum([0, *block.documents["num_tokens"]])
    check(int(ends[-1]), len(block.ids), "the number of tokens", "all texts")
    check(int(block.sentence_lengths.sum()), len(block.ids), "the tokens of the sentences", "all texts")
    for text, begin, end in zip(texts, ends, ends[1:], strict=False):
        expected = library.encode(text if in_lines else text.replace("\n", " "), add_special_tokens=False).ids
        check(block.ids[begin:end].tolist(), expected, "the ids", text)


def use_wordpiece(texts: Sequence[str], draw: random.Random) -> None:
    use_tokenizer(*wordpiece(*draw.choice(CASINGS)), texts, True)


def use_other(kinds: Sequence[str], texts: Sequence[str], draw: random.Random) -> None:
    use_tokenizer(*other_tokenizer(draw.choice(kinds)), texts, False)


# ---- sentences, cleaning, words


def use_sentences(texts: Sequence[str], draw: random.Random) -> None:
    """Cut a text into sentences by the rule and compare with the twin; cut all texts by ICU."""
    tokenizer, library = wordpiece(*draw.choice(CASINGS))
    for text in texts[:10]:
        block = tokenizer._cut([text.encode()])
        units = twins.cut_units(text, library)
        begins = np.isin(block.units.starts[: len(units)], block.borders).tolist()
        check(begins[1:], twins.sentence_starts(units)[1:], "the sentences", text)
    find = load_sentence_finder(f"icu:{draw.choice(LOCALES)}")
    content = "\n".join(texts).encode()
    borders = find(content) if find else np.zeros(0, np.int64)
    assert (np.diff(borders) > 0).all() and set(borders.tolist()) <= set(range(len(content) + 1))
    for border in borders.tolist():
        content[border:].decode()  # no border is inside a character


CLEANING: dict[str, list[Any]] = {
    "fix_text": [True],
    "unicode_normalization": ["NFC", "NFKC"],
    "remove_control_characters": [True],
    "sample": [0.5],
    "min_characters": [1, 20],
    "max_characters": [30, 1000],
    "languages": [("en",), ("zh", "de")],
    "quality_filter": [("c4",), ("gopher",), ("c4", "gopher")],
}


def some_options(options: dict[str, list[Any]], draw: random.Random) -> dict[str, Any]:
    return {name: draw.choice(values) for name, values in options.items() if draw.random() < 0.4}


def use_cleaning(texts: Sequence[str], draw: random.Random) -> None:
    """Clean texts as readers give them, with any options: each is a document, a reject or passed over."""
    config = compose(CleanConfig, **some_options(CLEANING, draw))
    given = []
    for i, text in enumerate(texts):
        content, replaced = paragraphs(text)
        given += whole_or_pieces(content, i, replaced, line_breaks=draw.choice(("space", "paragraph", "auto")))
    hashes = np.sort(np.frombuffer(draw.randbytes(80), np.uint64)) if draw.random() < 0.3 else None
    keep = draw.random() < 0.3
    records = list(clean(given, config, hashes, keep))
    check([item.position for item in records], [item.position for item in given], "the documents", str(config))
    for item in records:
        if isinstance(item, Document):
            text = join_lines(item).text
            assert text.decode().strip() and b"\r" not in text
        else:
            assert isinstance(item, (Reject, PassedOver)) and item.reason
    for text in texts:
        Licence().strip_text(text)


@cache
def _cuts() -> dict[str, WordCut]:
    return {kind: cut_of(content) for kind, content in CONTENTS.items()}


def use_words(texts: Sequence[str], draw: random.Random) -> None:
    """Count words, find words and runs of them, and sketch the texts."""
    kind = draw.choice(sorted(_cuts()))
    counter = _cuts()[kind].counter()
    for text in texts:
        counter.add(text.encode())
    assert all(number > 0 for number in counter.take().values())
    words = find_words([text.encode() for text in texts])
    runs_of(words, np.arange(len(texts)))
    for text in texts[:5]:
        alone = find_words([text.encode()])
        check([alone.word(i) for i in range(len(alone.starts))], words_of(text), "the words", text)
    block = wordpiece(True, None)[0]([Document(text.encode(), i) for i, text in enumerate(texts)])
    sizes = block.documents["num_tokens"]
    sketch(block.ids, sizes[sizes > 0], Banding.of(draw.choice((0.5, 0.8, 0.95))))


def target(use: Callable[[Sequence[str], random.Random], None], number: int) -> Target:
    def uses(original: object, path: Path, draw: random.Random) -> list[Use]:
        return [partial(use, json.loads(path.read_text()), draw)]

    def prepare(folder: Path) -> None:
        """Use a text in many ways: what that imports and builds is then there in every child."""
        for i in range(40):
            use([_real()[:200]], random.Random(i))

    return Target(prepare, write_texts, uses, number, errors=(), inputs=TEXTS)


TARGETS = {
    "wordpiece": target(use_wordpiece, 200),
    "bpe": target(partial(use_other, ("roberta", "modernbert", "llama3", "gemma")), 200),
    "unigram": target(partial(use_other, ("xlm_roberta", "albert", "deberta")), 200),
    "sentences": target(use_sentences, 200),
    "cleaning": target(use_cleaning, 200),
    "words": target(use_words, 200),
}

if __name__ == "__main__":
    main(TARGETS)
