"""Documents for the comparison with Google's script, and examples of both sides in one form to measure."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertloom.members import read_shard
from bertloom.shards import ShardName
from pipeline.examples.configuration import ExamplesConfig
from pipeline.examples.shards import write_shard
from pipeline.tokens import DOCUMENT, TokenBlock
from pipeline.vocabulary import SPECIAL_WORDS, Vocabulary
from tests.pipeline.google_twin import Example

Document = list[list[str]]
VOCABULARY = Vocabulary(
    (
        "[PAD]",
        *(f"[unused{i}]" for i in range(55)),
        *SPECIAL_WORDS[1:],
        *(f"w{i}" for i in range(160)),
        *(f"##p{i}" for i in range(80)),
    )
)
NOT_WORDS = [i for i in range(len(VOCABULARY.words)) if i not in set(VOCABULARY.ordinary.tolist())]  # a fifth of all


def make_sentence(r: random.Random) -> list[str]:
    """Words of one to six pieces; 3 to 70 pieces, most often about 15."""
    size, words = min(70, 3 + int(r.expovariate(1 / 14))), []
    while len(words) < size:
        words.append(f"w{r.randrange(160)}")
        words += [f"##p{r.randrange(80)}" for _ in range(r.choices([0, 1, 2, 3, 5], [75, 12, 7, 4, 2])[0])]
    return words


def make_documents(number: int, seed: int) -> list[Document]:
    """Half of them of one to four sentences, some of them of one alone; a tenth long."""
    r = random.Random(seed)
    documents = []
    for i in range(number):
        few, some, many = r.choice([1, 2, 3, 4]), 5 + int(r.expovariate(1 / 8)), r.randint(40, 80)
        size = few if i % 10 < 5 else some if i % 10 < 9 else many
        documents.append([make_sentence(r) for _ in range(size)])
    return documents


def make_block(documents: list[Document], source_keys: list[int] | None = None) -> TokenBlock:
    """The same documents for the kernels, with the ids 0, 1, 2, …"""
    ids = [VOCABULARY.ids[word] for document in documents for sentence in document for word in sentence]
    rows = np.zeros(len(documents), DOCUMENT)
    rows["id"] = np.arange(len(documents))
    rows["source_key"] = rows["id"] if source_keys is None else source_keys
    rows["num_sentences"] = [len(document) for document in documents]
    rows["num_tokens"] = [sum(map(len, document)) for document in documents]
    lengths = np.array([len(sentence) for document in documents for sentence in document], np.uint32)
    return TokenBlock(np.array(ids, np.uint16), lengths, rows)


@dataclass
class Row:
    """An example of either side."""

    ids: list[int]
    """With the masks applied."""
    plain: list[int]
    b_start: int
    positions: list[int]
    label: int
    document_a: int = -1
    token_a: int = -1
    document_b: int = -1
    token_b: int = -1

    @property
    def a(self) -> int:
        return self.b_start - 2

    @property
    def b(self) -> int:
        return len(self.ids) - self.b_start - 1


def rows_of_twin(examples: Iterator[Example]) -> list[Row]:
    rows, known = [], VOCABULARY.ids
    for example in examples:
        ids = [known[word] for word in example.tokens]
        plain = list(ids)
        for at, word in zip(example.positions, example.labels):
            plain[at] = known[word]
        rows.append(Row(ids, plain, example.b_start, example.positions, int(example.is_random)))
    return rows


def rows_of_copy(block: TokenBlock, folder: Path, copy: int = 0, **options: Any) -> list[Row]:
    """One copy of the bucket by way of a shard, so that all that a job does to examples is in it."""
    config = ExamplesConfig(**options)
    length = config.max_seq_length[0]
    sentences = config.sentences(block, VOCABULARY.kinds, length)
    pairs, _ = config.make_pairs(sentences, length, copy)
    name = ShardName(split="train", max_seq_length=length, copy=copy, number=0)
    row = write_shard(str(folder), name, sentences, pairs, config.seed, config.masking(length, VOCABULARY))
    columns = read_shard(str(folder / row["path"])).to_pydict()
    rows = []
    for ids, b, positions, truths, label, *origin in zip(*columns.values()):
        plain = list(ids)
        for at, truth in zip(positions, truths):
            plain[at] = truth
        rows.append(Row(ids, plain, b, positions, label, *origin))
    return rows
