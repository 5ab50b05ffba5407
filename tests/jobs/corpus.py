"""A small seeded corpus, English-like and Chinese, its vocabulary, and a job over them in one call."""

import bz2
import gzip
import hashlib
import json
import random
from pathlib import Path
from typing import Any

from jobs.preprocess import PreprocessConfig, preprocess
from pipeline.options import compose

CONSONANTS, VOWELS = "bcdfghklmnprstvw", "aeiou"
CHINESE = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳云腾致雨露结为霜金生丽水玉出昆冈"
PUNCTUATION = ".,?!;:'\"()[]-，。？！；：“”《》"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]", "[unused1]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def _words() -> list[str]:
    draw = random.Random(7)
    return [
        "".join(draw.choice(CONSONANTS) + draw.choice(VOWELS) for _ in range(draw.randint(1, 4))) for _ in range(300)
    ]


WORDS = _words()


def vocabulary_words() -> list[str]:
    """Every word of the corpus can be spelled; two thirds of the words are one piece."""
    known = sorted({*WORDS[:200], *(word[:3] for word in WORDS)} - set(LETTERS))
    pieces = sorted({f"##{word[3:]}" for word in WORDS if len(word) > 4})
    letters = [*LETTERS, *(f"##{letter}" for letter in LETTERS)]
    return [*SPECIAL, *dict.fromkeys([*letters, *PUNCTUATION, *CHINESE, *known, *pieces])]


def write_vocabulary(path: Path) -> Path:
    path.write_text("".join(f"{word}\n" for word in vocabulary_words()), encoding="utf-8")
    return path


def documents(number: int, seed: int = 1, chinese: float = 0.3) -> list[list[str]]:
    """Documents as lists of paragraphs; this share of them is Chinese."""
    draw = random.Random(seed)
    return [_document(draw, draw.random() < chinese) for _ in range(number)]


def _document(draw: random.Random, chinese: bool) -> list[str]:
    sentence = _chinese_sentence if chinese else _english_sentence
    space = "" if chinese else " "
    return [space.join(sentence(draw) for _ in range(draw.randint(2, 6))) for _ in range(draw.randint(1, 3))]


def _english_sentence(draw: random.Random) -> str:
    words = [draw.choice(WORDS) for _ in range(draw.randint(4, 14))]
    if draw.random() < 0.3:
        words[1] += ","
    return " ".join(words).capitalize() + draw.choice(".....?!")


def _chinese_sentence(draw: random.Random) -> str:
    text = "".join(draw.choice(CHINESE) for _ in range(draw.randint(5, 24)))
    return (text[:4] + "，" + text[4:] if draw.random() < 0.5 else text) + draw.choice("。。。？！")


def as_txt(texts: list[list[str]]) -> bytes:
    return "\n\n".join("\n".join(paragraphs) for paragraphs in texts).encode() + b"\n"


def as_jsonl(texts: list[list[str]]) -> bytes:
    """The same documents: in JSON Lines a blank line parts paragraphs."""
    rows = [{"id": str(i), "text": "\n\n".join(paragraphs)} for i, paragraphs in enumerate(texts)]
    return "".join(json.dumps(row, ensure_ascii=i % 2 == 0) + "\n" for i, row in enumerate(rows)).encode()


def write(path: Path, texts: list[list[str]]) -> Path:
    """The documents in the form that the file's name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = as_jsonl(texts) if ".jsonl" in path.name else as_txt(texts)
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)
    elif path.suffix == ".bz2":
        data = bz2.compress(data)
    path.write_bytes(data)
    return path


def run_job(source: Path | str | list[Path], out: Path, vocab: Path, **options: Any) -> dict[str, Any]:
    """Preprocess in this process, two lengths and two copies and a tenth held out unless the options say otherwise."""
    config: dict[str, Any] = {"max_seq_length": (32, 64), "dupe_factor": 2, "validation_fraction": 0.1, **options}
    config |= {name: str(value) for name, value in config.items() if isinstance(value, Path)}
    inputs = tuple(map(str, source)) if isinstance(source, list) else (str(source),)
    return preprocess(compose(PreprocessConfig, input=inputs, vocab=str(vocab), out=str(out), **config))


def digests(dataset: Path, *tops: str) -> dict[str, str]:
    """sha256 of every file of a data set, or of those whose path begins with one of `tops`."""
    found = {}
    for path in sorted(dataset.rglob("*")):
        name = path.relative_to(dataset).as_posix()
        if path.is_file() and (not tops or name.startswith(tops)):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def shard_digests(dataset: Path) -> dict[str, str]:
    """What must not depend on how the input is cut, named or packed, nor on the number of workers."""
    found = digests(dataset, "train/", "validation/", "shards.parquet", "vocab.txt", "tokenizer.json")
    assert any(name.endswith(".tar") for name in found)
    return found
