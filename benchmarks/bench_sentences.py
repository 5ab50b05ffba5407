"""Measure how well the sentence rule and other splitters find the ends that annotators marked: precision, recall and F1.

    python benchmarks/bench_sentences.py FOLDER

FOLDER holds .jsonl files of {"text": …, "ends": [character offset after each sentence]} whose names begin with the two
letters of the language, made for example from UD English-EWT and UD Chinese-GSDSimp. The end of a text always counts.
syntok and blingfire take part if they are installed. Writes no file.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from pipeline.text.sentences import sentence_starts, unit_marks
from pipeline.text.wordpiece import WordPiece
from pipeline.vocabulary import SPECIAL_WORDS, Vocabulary, make_tokenizer

Find = Callable[[str], set[int]]
REGEX = re.compile(r"(?:[.!?…]+[\"'”’)\]]*(?=\s)|[。！？]+[”’」』）]*|\n)\s*")


def regex_ends(text: str) -> set[int]:
    return {len(text[: match.end()].rstrip()) for match in REGEX.finditer(text)} | {len(text)}


class Rule:
    """The rule of pipeline/text/sentences.py, with offsets in characters."""

    def __init__(self):
        words = Vocabulary((*SPECIAL_WORDS, "a"))
        self.wordpiece = WordPiece(make_tokenizer(words, True, None), do_lower_case=True, vocab_size=len(words.words))
        self.marks = np.zeros(0, np.uint8)

    def __call__(self, text: str) -> set[int]:
        block = text.replace("\r", " ").encode() + b"\n"
        units, new = self.wordpiece.units(block)
        self.marks = np.concatenate([self.marks, np.array([unit_marks(unit) for unit in new], np.uint8)])
        begins = sentence_starts(np.frombuffer(block, np.uint8), units.starts, units.lengths, self.marks[units.codes])
        starts = units.starts[begins][1:]
        return {len(block[:start].decode().rstrip()) for start in starts.tolist()} | {len(text)}


def gold_ends(row: dict) -> set[int]:
    return {len(row["text"][:end].rstrip()) for end in row["ends"]} - {len(row["text"].rstrip())} | {len(row["text"])}


def spans_to_ends(text: str, ends: Iterable[int]) -> set[int]:
    return {len(text[:end].rstrip()) for end in ends if end} | {len(text)}


def icu_ends(language: str) -> Find:
    from pipeline.text.icu import load_sentence_finder

    find = load_sentence_finder(f"icu:{language}")
    return lambda text: spans_to_ends(text, (len(text.encode()[:at].decode()) for at in find(text.encode()).tolist()))


def blingfire_ends(language: str) -> Find:
    from blingfire import text_to_sentences_and_offsets

    return lambda text: spans_to_ends(text, (end for _, end in text_to_sentences_and_offsets(text)[1]))


def syntok_ends(language: str) -> Find:
    from syntok import segmenter

    def find(text: str) -> set[int]:
        sentences = (sentence for paragraph in segmenter.analyze(text) for sentence in paragraph)
        return spans_to_ends(text, (sentence[-1].offset + len(sentence[-1].value) for sentence in sentences))

    return find


FINDERS = {
    "this rule": lambda language: Rule(),
    "plain regex": lambda language: regex_ends,
    "ICU": icu_ends,
    "syntok": syntok_ends,
    "blingfire": blingfire_ends,
}


def main(folder: str) -> None:
    print(f"{'':14}{'':12}{'sentences':>10}{'P':>8}{'R':>8}{'F1':>8}")
    for path in sorted(Path(folder).glob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        gold = [gold_ends(row) for row in rows]
        for name, load in FINDERS.items():
            try:
                find = load(path.stem[:2])
            except ImportError as error:
                print(f"{path.stem:14}{name:12}not installed: {error.name}")
                continue
            found = [find(row["text"]) for row in rows]
            right = sum(len(f & g) for f, g in zip(found, gold))
            precision, recall = right / sum(map(len, found)), right / sum(map(len, gold))
            f1 = 2 * precision * recall / (precision + recall)
            print(f"{path.stem:14}{name:12}{sum(map(len, gold)):10,}{precision:8.3f}{recall:8.3f}{f1:8.3f}")


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main(sys.argv[1])
    else:
        print(__doc__.strip())
