"""`bertloom build-vocab`: text to a WordPiece vocabulary.

    bertloom build-vocab --input 'text/*.jsonl' --vocab-size 30000 --out vocab.txt

Reads the same inputs as `preprocess` and writes one file with one word per line: the special words, then characters, then
pieces of words. The same text gives the same file, with any number of workers.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Annotated

import tyro

from bertloom import storage
from bertloom.counts import counted
from bertloom.messages import print_message
from bertloom.whole_files import output_file
from jobs.support.config import parse
from jobs.support.inputs import Like, check_inputs, read_inputs
from jobs.support.outputs import check_output
from jobs.support.word_counting import count_words_of, say_rejects, splits_of
from pipeline.inputs.documents import TextConfig
from pipeline.local.beam_import import import_beam
from pipeline.options import check_num_workers, flat

if TYPE_CHECKING:
    from pipeline.vocabulary import Vocabulary
    from pipeline.vocabulary_training import Coverage

say = partial(print_message, "build-vocab")


@dataclass(frozen=True, kw_only=True)
class BuildVocabConfig:
    """Make a WordPiece vocabulary from text."""

    vocab_size: int
    """Number of words to make, including the five special ones. BERT used 30522 for English and 21128 for Chinese."""
    out: str
    """The vocabulary file to write."""
    input: tuple[str, ...] = ()
    """Files, folders, quoted globs or @LIST, as for `preprocess`."""
    inputs: str | None = None
    """A TOML file of more inputs, each with its own flags for reading, as for `preprocess`."""
    like: Like = None
    """A well-known corpus, such as c4 or wikiextractor, as for `preprocess`."""
    text: Annotated[TextConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=TextConfig)
    do_lower_case: bool = True
    """Lower-case the text, for an uncased vocabulary. Use the same value in `preprocess`."""
    strip_accents: bool | None = None
    """Remove accents. By default they are removed when the text is lower-cased, as in BERT. Use False for languages in which
    accents distinguish words, such as Japanese, Korean, Hindi or Vietnamese. Use the same value in `preprocess`."""
    min_frequency: int = 2
    """Number of times that a pair of pieces must occur to be merged."""
    character_coverage: float = 0.9995
    """Share of the text that the characters in the vocabulary make up. Words with other, rarer characters become [UNK]. The
    default is that of SentencePiece for languages with many characters."""
    chinese_frequency: int | None = None
    """Also keep every Chinese character that occurs this many times: for text with little Chinese in it. By default
    --character-coverage alone decides."""
    num_workers: int = 1
    """Number of worker processes on this machine."""
    overwrite: bool = False
    """Replace --out if it holds another vocabulary."""

    def __post_init__(self) -> None:
        from pipeline.vocabulary import MIN_WORDS

        if self.vocab_size <= MIN_WORDS:
            raise ValueError(f"vocab_size={self.vocab_size}: expected more than {MIN_WORDS}, such as 30000")
        if self.min_frequency < 1:
            raise ValueError(f"min_frequency={self.min_frequency}: expected 1 or more")
        check_inputs(self.input, self.inputs)
        if self.chinese_frequency is not None and self.chinese_frequency < 1:
            raise ValueError(f"chinese_frequency={self.chinese_frequency}: expected 1 or more")
        check_num_workers(self.num_workers)
        if not 0 < self.character_coverage <= 1:
            raise ValueError(f"character_coverage={self.character_coverage}: expected more than 0, at most 1")


def main(argv: Sequence[str]) -> None:
    config = parse(BuildVocabConfig, argv, prog="bertloom build-vocab")
    import_beam(connectors=False)
    build_vocab(config)


def build_vocab(config: BuildVocabConfig) -> Vocabulary:
    """Make the vocabulary, write it, print what it covers, and return it."""
    from pipeline.accents import accent_warning
    from pipeline.inputs.discovery import find_sources
    from pipeline.stages.word_counts import BertWords
    from pipeline.vocabulary import MAX_WORD_CHARACTERS, parse_vocabulary
    from pipeline.vocabulary_training import measure_coverage, train_vocabulary

    notes: list[str] = []
    read = config.text.read
    sources = find_sources(config.input, notes, read, inputs=read_inputs(config.inputs, read))
    for note in notes:
        say(note)
    check_output(config.out, [source.path for source in sources])
    if warning := accent_warning(splits_of(sources), config.do_lower_case, config.strip_accents):
        say(warning)
    cut = BertWords(config.do_lower_case, config.strip_accents)
    counts, tally = count_words_of(sources, config.text, cut, config.num_workers, "build-vocab")
    not_used = say_rejects(tally, config.text, say)
    if all(len(word) > MAX_WORD_CHARACTERS for word in counts):
        raise ValueError(
            f"no text in {counted(len(sources), 'file')}{not_used}: expected documents with words of up to "
            f"{MAX_WORD_CHARACTERS} characters, see --help"
        )
    words = train_vocabulary(
        counts, config.vocab_size, config.min_frequency, config.character_coverage, config.chinese_frequency
    )
    vocabulary = parse_vocabulary("".join(f"{word}\n" for word in words).encode(), config.out)
    _write(config, vocabulary)

    print(f"{config.out}: {counted(len(words), 'word')}, sha256 {vocabulary.sha256}")
    if len(words) < config.vocab_size:
        print(f"  fewer than the {config.vocab_size:,} requested: no more pairs occur {config.min_frequency} times")
    print(f"  from       {counted(tally.documents, 'document')}, {tally.bytes / 1e6:,.1f} MB of text{not_used}")
    _print_coverage(measure_coverage(vocabulary, counts))
    print(f"  next       {_next_command(config)}")
    return vocabulary


def _print_coverage(scripts: dict[str, Coverage]) -> None:
    """Print how many tokens the words of each script have."""
    from pipeline.vocabulary_training import Coverage

    parts = list(scripts.values())
    total = Coverage(*(sum(getattr(part, field.name) for part in parts) for field in fields(Coverage)))
    print(f"  length     {total.num_tokens / total.num_words:.2f} tokens per word")
    print(f"  [UNK]      {100 * total.num_unknown / total.num_tokens:.3f} % of tokens")
    print(f"  {'by script':22}{'words':>14}{'share':>9}{'tokens per word':>17}{'[UNK]':>10}")
    for name, part in scripts.items():
        print(
            f"    {name:20}{part.num_words:>14,}{part.num_words / total.num_words:>9.2%}"
            f"{part.num_tokens / part.num_words:>17.2f}{part.num_unknown / part.num_tokens:>10.3%}"
        )


def _write(config: BuildVocabConfig, vocabulary: Vocabulary) -> None:
    is_local = storage.is_local(config.out)
    is_file = storage.exists(config.out) and (not is_local or os.path.isfile(config.out))
    if is_file and not config.overwrite and storage.read(config.out) != vocabulary.text:
        raise ValueError(
            f"{config.out} already exists with other content and was not changed: choose another --out, or add "
            f"--overwrite"
        )
    if not is_local:
        storage.write_whole(config.out, [vocabulary.text])
        return
    if os.path.dirname(config.out):
        storage.make_folder(os.path.dirname(config.out))
    with output_file(config.out) as file:
        file.write(vocabulary.text)


def _next_command(config: BuildVocabConfig) -> str:
    """Return a shell command for `bertloom preprocess` with the same options for reading text."""
    from pipeline.inputs.corpora import corpus_named

    casing = [] if config.do_lower_case else ["--no-do-lower-case"]
    accents = [] if config.strip_accents is None else ["--strip-accents", str(config.strip_accents)]
    reading: list[str] = []
    like = {} if config.like is None else dict(corpus_named(config.like).options)
    defaults = flat(TextConfig()) | like
    for name, value in flat(config.text).items():
        if value != defaults[name]:
            values = value if isinstance(value, tuple) else [] if value is True else [value]
            reading += [f"--{name.replace('_', '-')}", *map(str, values)]
    inputs = ["--input", *config.input] if config.input else []
    for flag, path in (("--inputs", config.inputs), ("--like", config.like)):
        inputs += [flag, path] if path else []
    words = [*inputs, *reading, "--vocab", config.out, *casing, *accents, "--out", "DATASET"]
    return f"bertloom preprocess {shlex.join(words)}"
