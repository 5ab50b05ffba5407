"""How well the sentence rule finds the ends that people marked: precision, recall and F1 against a plain regex.

    python benchmarks/bench_sentences.py FOLDER

FOLDER holds .jsonl files of {"text": …, "ends": [character offset behind each sentence]}; UD English-EWT and UD
Chinese-GSDSimp are good ones. The end of a text counts as an end, for both. Writes nothing.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from pipeline.sentences import sentence_starts, unit_marks
from pipeline.vocabulary import SPECIAL_WORDS, Vocabulary, make_tokenizer
from pipeline.wordpiece import WordPiece

REGEX = re.compile(r"(?:[.!?…]+[\"'”’)\]]*(?=\s)|[。！？]+[”’」』）]*|\n)\s*")


def regex_ends(text: str) -> set[int]:
    return {len(text[: match.end()].rstrip()) for match in REGEX.finditer(text)} | {len(text)}


class Rule:
    """The rule of pipeline/sentences.py, on characters."""

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


def main(folder: str) -> None:
    print(f"{'':20}{'sentences':>10}{'':4}{'rule':^24}{'regex':^24}")
    print(f"{'':34}{'P':^8}{'R':^8}{'F1':^8}{'P':^8}{'R':^8}{'F1':^8}")
    for path in sorted(Path(folder).glob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        gold = [gold_ends(row) for row in rows]
        scores = ""
        for find in (Rule(), regex_ends):
            found = [find(row["text"]) for row in rows]
            right = sum(len(f & g) for f, g in zip(found, gold))
            precision, recall = right / sum(map(len, found)), right / sum(map(len, gold))
            scores += "".join(f"{x:^8.3f}" for x in (precision, recall, 2 * precision * recall / (precision + recall)))
        print(f"{path.stem:20}{sum(map(len, gold)):10,}{'':4}{scores}")


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main(sys.argv[1])
    else:
        print(__doc__.strip())
