"""`bertloom build-vocab`: text to a WordPiece vocabulary.

    bertloom build-vocab --input 'text/*.jsonl' --vocab-size 30000 --out vocab.txt

Reads the same inputs as `preprocess` and writes one file, one word a line: the special words, characters, pieces. The
same text gives the same file.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from tqdm import tqdm

from jobs.config import parse
from pipeline import storage
from pipeline.documents import read_documents
from pipeline.formats import position_unit
from pipeline.inputs import ReadConfig, Source, find_sources
from pipeline.records import Document, Reject
from pipeline.splitting import split_source
from pipeline.vocabulary import (
    MIN_WORDS,
    Vocabulary,
    count_words,
    measure_coverage,
    parse_vocabulary,
    train_vocabulary,
)


@dataclass(frozen=True, kw_only=True)
class BuildVocabConfig(ReadConfig):
    """Makes a WordPiece vocabulary from text."""

    input: tuple[str, ...]
    """Files, folders, quoted globs or @LIST, as `preprocess` takes them."""
    vocab_size: int
    """Words to make, the five special ones among them. BERT: 30522 (English), 21128 (Chinese)."""
    out: str
    """The file to write: vocab.txt."""
    do_lower_case: bool = True
    """Lower-case the text: an uncased vocabulary. Give preprocess the same."""
    strip_accents: bool | None = None
    """Remove accents; None: where the text is lower-cased, as BERT does. Give preprocess the same."""
    min_frequency: int = 2
    """A piece is made only of pairs that occur so often."""
    character_coverage: float = 0.9995
    """The most frequent characters that make up this share of the text are kept; words with others become [UNK]."""
    overwrite: bool = False
    """Write over a file that holds another vocabulary."""

    def __post_init__(self) -> None:
        if self.vocab_size <= MIN_WORDS:
            raise ValueError(f"vocab_size={self.vocab_size}: expected more than {MIN_WORDS}, such as 30000")
        if self.min_frequency < 1:
            raise ValueError(f"min_frequency={self.min_frequency}: expected 1 or more")
        if not 0 < self.character_coverage <= 1:
            raise ValueError(f"character_coverage={self.character_coverage}: expected more than 0, at most 1")


def main(argv: Sequence[str]) -> None:
    build_vocab(parse(BuildVocabConfig, argv, prog="bertloom build-vocab"))


def build_vocab(config: BuildVocabConfig) -> Vocabulary:
    """Makes the vocabulary, writes it, says what it covers, and gives it back."""
    notes: list[str] = []
    sources = find_sources(config.input, notes)
    for note in notes:
        print(f"bertloom build-vocab: {note}", file=sys.stderr)
    seen: Counter[str] = Counter()
    counts = count_words(_texts(sources, config, seen), config.do_lower_case, config.strip_accents)
    rejects = {reason: n for reason, n in seen.items() if reason not in ("documents", "bytes")}
    turned_away = "".join(f", {n:,} {reason}" for reason, n in sorted(rejects.items()))
    if not counts:
        raise ValueError(f"no text in {len(sources)} files{turned_away}: expected documents with words, see --help")
    words = train_vocabulary(counts, config.vocab_size, config.min_frequency, config.character_coverage)
    vocabulary = parse_vocabulary("".join(f"{word}\n" for word in words).encode(), config.out)
    _write(config, vocabulary)

    num_words, num_tokens, num_unknown = measure_coverage(vocabulary, counts)
    print(f"{config.out}: {len(words):,} words, sha256 {vocabulary.sha256}")
    if len(words) < config.vocab_size:
        print(f"  fewer than the {config.vocab_size:,} asked for: no more pairs occur {config.min_frequency} times")
    print(f"  from       {seen['documents']:,} documents, {seen['bytes'] / 1e6:,.1f} MB of text{turned_away}")
    print(f"  cut into   {num_tokens / num_words:.2f} tokens a word")
    print(f"  [UNK]      {100 * num_unknown / num_tokens:.3f} % of tokens")
    print(f"  next       {_next_command(config)}")
    return vocabulary


def _texts(sources: Sequence[Source], config: ReadConfig, seen: Counter[str]) -> Iterator[bytes]:
    """All documents' text; counts documents, bytes and rejects by reason in `seen` and names the first of each kind."""
    with tqdm(unit="B", unit_scale=True, desc="reading", disable=None) as bar:
        for source in sources:
            for split in split_source(source, 1 << 26, config):
                for item in read_documents(split, config=config):
                    if isinstance(item, Document):
                        seen["documents"] += 1
                        seen["bytes"] += len(item.text)
                        bar.update(len(item.text))
                        yield item.text
                        continue
                    seen[item.reason] += 1
                    if seen[item.reason] == 1 and isinstance(item, Reject):
                        place = f"{source.path}, {position_unit(source.format)} {item.position}"
                        print(f"rejected: {item.reason}: {place}: {item.detail} {item.text[:100]}", file=sys.stderr)


def _write(config: BuildVocabConfig, vocabulary: Vocabulary) -> None:
    if storage.exists(config.out) and not config.overwrite and storage.read(config.out) != vocabulary.text:
        raise ValueError(f"{config.out}: holds something else already, and was left as it is: "
                         f"choose another --out, or add --overwrite")
    if storage.is_local(config.out) and os.path.dirname(config.out):
        storage.make_folder(os.path.dirname(config.out))
    storage.write_whole(config.out, [vocabulary.text])


def _next_command(config: BuildVocabConfig) -> str:
    casing = "" if config.do_lower_case else " --no-do-lower-case"
    accents = "" if config.strip_accents is None else f" --strip-accents {config.strip_accents}"
    values = [(field.name, getattr(config, field.name), field.default) for field in fields(ReadConfig)]
    reading = "".join(f" --{name.replace('_', '-')} {value}" for name, value, default in values if value != default)
    inputs = " ".join(f"'{pattern}'" if set(pattern) & set("*?[ ") else pattern for pattern in config.input)
    return f"bertloom preprocess --input {inputs}{reading} --vocab {config.out}{casing}{accents} --out DATASET"
