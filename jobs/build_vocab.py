"""`bertloom build-vocab`: text to a WordPiece vocabulary.

    bertloom build-vocab --input 'text/*.jsonl' --vocab-size 30000 --out vocab.txt

Reads the same inputs as `preprocess` and writes one file, one word a line: the special words, characters, pieces. The
same text gives the same file, for any number of workers.
"""

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from tempfile import TemporaryDirectory
from typing import Annotated

import apache_beam as beam
import tyro

from bertloom import storage
from jobs.support.config import parse
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import TextConfig
from pipeline.inputs.sources import Source
from pipeline.inputs.splitting import split_size, split_source
from pipeline.local.runner import for_people, pipeline_options, quiet_workers, run, worker_watch
from pipeline.options import flat
from pipeline.preprocess import balanced
from pipeline.stages.word_counts import CountWords, Tally, read_counts
from pipeline.vocabulary import (
    MAX_WORD_CHARACTERS,
    MIN_WORDS,
    Coverage,
    Vocabulary,
    measure_coverage,
    parse_vocabulary,
    train_vocabulary,
)


@dataclass(frozen=True, kw_only=True)
class BuildVocabConfig:
    """Makes a WordPiece vocabulary from text."""

    input: tuple[str, ...]
    """Files, folders, quoted globs or @LIST, as `preprocess` takes them."""
    vocab_size: int
    """Words to make, the five special ones among them. BERT: 30522 (English), 21128 (Chinese)."""
    out: str
    """The file to write: vocab.txt."""
    text: Annotated[TextConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=TextConfig)
    do_lower_case: bool = True
    """Lower-case the text: an uncased vocabulary. Give preprocess the same."""
    strip_accents: bool | None = None
    """Remove accents; None: where the text is lower-cased, as BERT does. Give preprocess the same."""
    min_frequency: int = 2
    """A piece is made only of pairs that occur so often."""
    character_coverage: float = 0.9995
    """The most frequent characters that make up this share of the text are kept; words with others become [UNK]."""
    chinese_frequency: int | None = None
    """Chinese characters that occur so often are kept, too, whatever their share: for text with little Chinese in it."""
    num_workers: int = 1
    """Processes on this machine."""
    overwrite: bool = False
    """Write over a file that holds another vocabulary."""

    def __post_init__(self) -> None:
        if self.vocab_size <= MIN_WORDS:
            raise ValueError(f"vocab_size={self.vocab_size}: expected more than {MIN_WORDS}, such as 30000")
        if self.min_frequency < 1:
            raise ValueError(f"min_frequency={self.min_frequency}: expected 1 or more")
        if self.chinese_frequency is not None and self.chinese_frequency < 1:
            raise ValueError(f"chinese_frequency={self.chinese_frequency}: expected 1 or more")
        if self.num_workers < 1:
            raise ValueError(f"num_workers={self.num_workers}: expected 1 or more")
        if not 0 < self.character_coverage <= 1:
            raise ValueError(f"character_coverage={self.character_coverage}: expected more than 0, at most 1")


def main(argv: Sequence[str]) -> None:
    build_vocab(parse(BuildVocabConfig, argv, prog="bertloom build-vocab"))


def build_vocab(config: BuildVocabConfig) -> Vocabulary:
    """Makes the vocabulary, writes it, says what it covers, and gives it back."""
    notes: list[str] = []
    sources = find_sources(config.input, notes, config.text.read.encoding)
    for note in notes:
        _say(note)
    counts, tally = _count(config, sources)
    for reason, (_, _, what) in sorted(tally.first.items()):
        _say(f"rejected: {reason}: {what}")
    turned_away = "".join(f", {n:,} {reason}" for reason, n in sorted(tally.turned_away.items()))
    if all(len(word) > MAX_WORD_CHARACTERS for word in counts):
        raise ValueError(
            f"no text in {len(sources)} files{turned_away}: expected documents with words of up to {MAX_WORD_CHARACTERS} "
            f"characters, see --help"
        )
    words = train_vocabulary(
        counts, config.vocab_size, config.min_frequency, config.character_coverage, config.chinese_frequency
    )
    vocabulary = parse_vocabulary("".join(f"{word}\n" for word in words).encode(), config.out)
    _write(config, vocabulary)

    print(f"{config.out}: {len(words):,} words, sha256 {vocabulary.sha256}")
    if len(words) < config.vocab_size:
        print(f"  fewer than the {config.vocab_size:,} asked for: no more pairs occur {config.min_frequency} times")
    print(f"  from       {tally.documents:,} documents, {tally.bytes / 1e6:,.1f} MB of text{turned_away}")
    _print_coverage(measure_coverage(vocabulary, counts))
    print(f"  next       {_next_command(config)}")
    return vocabulary


def _count(config: BuildVocabConfig, sources: list[Source]) -> tuple[dict[str, int], Tally]:
    total = sum(source.size for source in sources)
    splits = [split for source in sources for split in split_source(source, split_size(total), config.text.read)]
    with TemporaryDirectory(prefix="bertloom-") as folder, worker_watch("build-vocab", "Nothing is kept: start"):
        count = CountWords(folder, config.text, config.do_lower_case, config.strip_accents)
        balanced_splits = balanced(splits, config.num_workers)
        try:
            with quiet_workers(os.path.join(folder, "beam.log")):
                run(
                    pipeline_options(config.num_workers, ()),
                    lambda pipeline: pipeline | "splits" >> beam.Create(balanced_splits) | "count" >> count,
                )
        except Exception as error:
            raise for_people(error) from error
        return read_counts(folder)


def _print_coverage(scripts: dict[str, Coverage]) -> None:
    """How the words of each script are cut."""
    parts = list(scripts.values())
    total = Coverage(*(sum(getattr(part, field.name) for part in parts) for field in fields(Coverage)))
    print(f"  cut into   {total.num_tokens / total.num_words:.2f} tokens a word")
    print(f"  [UNK]      {100 * total.num_unknown / total.num_tokens:.3f} % of tokens")
    print(f"  {'by script':22}{'words':>14}{'share':>9}{'tokens a word':>15}{'[UNK]':>10}")
    for name, part in scripts.items():
        print(
            f"    {name:20}{part.num_words:>14,}{part.num_words / total.num_words:>9.2%}"
            f"{part.num_tokens / part.num_words:>15.2f}{part.num_unknown / part.num_tokens:>10.3%}"
        )


def _say(text: str) -> None:
    print(f"bertloom build-vocab: {text}", file=sys.stderr)


def _write(config: BuildVocabConfig, vocabulary: Vocabulary) -> None:
    if storage.exists(config.out) and not config.overwrite and storage.read(config.out) != vocabulary.text:
        raise ValueError(
            f"{config.out}: holds something else already, and was left as it is: "
            f"choose another --out, or add --overwrite"
        )
    if storage.is_local(config.out) and os.path.dirname(config.out):
        storage.make_folder(os.path.dirname(config.out))
    storage.write_whole(config.out, [vocabulary.text])


def _next_command(config: BuildVocabConfig) -> str:
    """`bertloom preprocess` with the options that decide what words there are, for a shell."""
    casing = [] if config.do_lower_case else ["--no-do-lower-case"]
    accents = [] if config.strip_accents is None else ["--strip-accents", str(config.strip_accents)]
    reading: list[str] = []
    defaults = flat(TextConfig())
    for name, value in flat(config.text).items():
        if value != defaults[name]:
            values = value if isinstance(value, tuple) else [] if value is True else [value]
            reading += [f"--{name.replace('_', '-')}", *map(str, values)]
    words = ["--input", *config.input, *reading, "--vocab", config.out, *casing, *accents, "--out", "DATASET"]
    return f"bertloom preprocess {shlex.join(words)}"
