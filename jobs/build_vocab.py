"""`bertloom build-vocab`: text to a vocabulary or a tokenizer.

    bertloom build-vocab --input 'text/*.jsonl' --vocab-size 30000 --out vocab.txt
    bertloom build-vocab --input 'text/*.jsonl' --vocab-size 50368 --model bpe --out tokenizer.json

Reads the same inputs as `preprocess` and writes one file. WordPiece has a vocab.txt with one word per line: the special
words, then characters, then pieces of words. The other models have a tokenizer.json of the library `tokenizers`. The same
text gives the same file, with any number of workers.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Annotated

import tyro
from typing_extensions import Doc

from bertloom import storage
from bertloom.counts import counted
from bertloom.extras import require
from bertloom.messages import print_message
from bertloom.whole_files import output_file
from jobs.support.config import parse
from jobs.support.inputs import Like, check_inputs, read_inputs
from jobs.support.outputs import check_output
from jobs.support.word_counting import count_words_of, say_rejects, splits_of
from pipeline.inputs.documents import TextConfig
from pipeline.local.beam_import import import_beam
from pipeline.options import check_num_workers, flat
from pipeline.tokenizer_models.registry import MODELS, ModelName
from pipeline.tokenizer_models.training import Coverage, TrainingConfig

say = partial(print_message, "build-vocab")


@dataclass(frozen=True, kw_only=True)
class BuildVocabConfig:
    """Make a vocabulary or a tokenizer from text."""

    vocab_size: int
    """Number of words to make, including the five special ones. BERT used 30522 for English and 21128 for Chinese, and
    ModernBERT 50368."""
    out: str
    """The file to write: a vocab.txt for wordpiece, and for the other models a name that ends in .json."""
    model: Annotated[
        ModelName, Doc("Model of the tokenizer. " + "; ".join(f"{m.name}: {m.summary}" for m in MODELS.values()) + ".")
    ] = "wordpiece"
    input: tuple[str, ...] = ()
    """Files, folders, quoted globs or @LIST, as for `preprocess`."""
    inputs: str | None = None
    """A TOML file of more inputs, each with its own flags for reading, as for `preprocess`."""
    like: Like = None
    """A well-known corpus, such as c4 or wikiextractor, as for `preprocess`."""
    text: Annotated[TextConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=TextConfig)
    do_lower_case: bool | None = None
    """Lower-case the text, for an uncased vocabulary. By default wordpiece lower-cases, as in the first BERT, and the other
    models do not. Use the same value in `preprocess` with a vocab.txt."""
    strip_accents: bool | None = None
    """Remove accents. By default they are removed when the text is lower-cased, as in BERT. Use False for languages in which
    accents distinguish words, such as Japanese, Korean, Hindi or Vietnamese. Use the same value in `preprocess` with a
    vocab.txt."""
    min_frequency: int | None = None
    """Number of times that a pair of pieces must occur to be merged. The default is 2. Not for unigram."""
    character_coverage: float | None = None
    """Share of the text that the characters in the vocabulary make up. Words with other, rarer characters become [UNK]. The
    default, 0.9995, is SentencePiece's for languages with many characters. Not for bpe."""
    chinese_frequency: int | None = None
    """Also keep every Chinese character that occurs this many times: for text with little Chinese in it. By default
    --character-coverage alone decides. Not for bpe."""
    num_workers: int = 1
    """Number of worker processes on this machine."""
    overwrite: bool = False
    """Replace --out if it holds another vocabulary."""

    def __post_init__(self) -> None:
        model = MODELS[self.model]
        if self.vocab_size < model.fewest:
            raise ValueError(f"vocab_size={self.vocab_size}: expected more than {model.fewest - 1}, such as 30000")
        for name, reason in model.not_for_it.items():
            if getattr(self, name) is not None:
                flag = f"--{name.replace('_', '-')}"
                raise ValueError(f"{flag} is not for --model {self.model}: {reason}; leave it out")
        if self.out.endswith(".json") != model.file.endswith(".json"):
            raise ValueError(f"--out {self.out}: --model {self.model} makes a {model.file}: give a name that ends so")
        for name in ("min_frequency", "chinese_frequency"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name}={value}: expected 1 or more")
        check_inputs(self.input, self.inputs)
        check_num_workers(self.num_workers)
        if self.character_coverage is not None and not 0 < self.character_coverage <= 1:
            raise ValueError(f"character_coverage={self.character_coverage}: expected more than 0, at most 1")

    @property
    def training(self) -> TrainingConfig:
        """The options of the training, with the model's defaults."""
        is_lower = not MODELS[self.model].is_cased if self.do_lower_case is None else self.do_lower_case
        given = {name: getattr(self, name) for name in ("min_frequency", "character_coverage", "chinese_frequency")}
        return TrainingConfig(
            vocab_size=self.vocab_size,
            do_lower_case=is_lower,
            strip_accents=self.strip_accents,
            **{name: value for name, value in given.items() if value is not None},
        )


def main(argv: Sequence[str]) -> None:
    config = parse(BuildVocabConfig, argv, prog="bertloom build-vocab")
    import_beam(connectors=False)
    build_vocab(config)


def build_vocab(config: BuildVocabConfig) -> tuple[str | None, ...]:
    """Make the tokenizer, write it, print what it covers, and return its words in the order of their ids."""
    from pipeline.accents import accent_warning
    from pipeline.inputs.discovery import find_sources
    from pipeline.stages.word_cuts import cut_of
    from pipeline.tokenizer_models.training import measure_coverage

    notes: list[str] = []
    read, model, training = config.text.read, MODELS[config.model], config.training
    listed = read_inputs(config.inputs, config.text, config.input)
    sources = find_sources(config.input, notes, read, inputs=listed.inputs)
    for note in [*notes, *listed.ignored]:
        say(note)
    check_output(config.out, [source.path for source in sources])
    require(f"--model {config.model}", *model.packages)
    if warning := accent_warning(splits_of(sources), training.do_lower_case, training.strip_accents):
        say(warning)
    cut = cut_of(model.parts(training))
    counts, tally = count_words_of(sources, config.text, cut, config.num_workers, "build-vocab", listed.cleaning)
    not_used = say_rejects(tally, config.text, say)
    if all(len(word) > cut.longest for word in counts):
        raise ValueError(
            f"no text in {counted(len(sources), 'file')}{not_used}: expected documents with words of up to "
            f"{cut.longest} characters, see --help"
        )
    tokenizer = model.train(counts, training)
    content = model.content(tokenizer)
    _write(config, content)

    num_words, digest = len(tokenizer.tokens), hashlib.sha256(content).hexdigest()
    print(f"{config.out}: {counted(num_words, 'word')}, sha256 {digest}")
    if num_words < config.vocab_size:
        print(f"  fewer than the {config.vocab_size:,} requested: {model.why_fewer.format(training.min_frequency)}")
    print(f"  from       {counted(tally.documents, 'document')}, {tally.bytes / 1e6:,.1f} MB of text{not_used}")
    _print_coverage(measure_coverage(tokenizer, counts, model.readable))
    print(f"  next       {_next_command(config)}")
    return tokenizer.tokens


def _print_coverage(scripts: dict[str, Coverage]) -> None:
    """Print how many tokens the words of each script have."""
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


def _write(config: BuildVocabConfig, content: bytes) -> None:
    is_local = storage.is_local(config.out)
    is_file = storage.exists(config.out) and (not is_local or os.path.isfile(config.out))
    if is_file and not config.overwrite and storage.read(config.out) != content:
        raise ValueError(
            f"{config.out} already exists with other content and was not changed: choose another --out, or add "
            f"--overwrite"
        )
    if not is_local:
        storage.write_whole(config.out, [content])
        return
    if os.path.dirname(config.out):
        storage.make_folder(os.path.dirname(config.out))
    with output_file(config.out) as file:
        file.write(content)


def _next_command(config: BuildVocabConfig) -> str:
    """Return a shell command for `bertloom preprocess` with the same options for reading text."""
    from pipeline.inputs.corpora import corpus_named

    is_uncased = config.training.do_lower_case
    is_complete = config.out.endswith(".json")  # it holds both options
    casing = [] if is_uncased or is_complete else ["--no-do-lower-case"]
    accents = [] if config.strip_accents is None or is_complete else ["--strip-accents", str(config.strip_accents)]
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
