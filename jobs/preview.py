"""Show what a job would read, before it runs.

    bertloom preview corpus/
    bertloom preview --like c4 c4/en/ --vocab vocab.txt --html preview.html

Reads the beginnings of a few files of each format, so it takes seconds for any corpus. Takes the flags of `preprocess` for
reading and cleaning, and writes nothing but the page of --html.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jobs.support.config import parse
from jobs.support.exclude import ExcludeConfig
from jobs.support.inputs import Like, check_inputs, read_inputs
from pipeline.examples.configuration import ExamplesConfig, ObjectiveName
from pipeline.tokenizer import TokenizeConfig, settled

if TYPE_CHECKING:
    from pipeline.vocabulary import Vocabulary

MOST_DOCUMENTS = 100


@dataclass(frozen=True, kw_only=True)
class PreviewConfig:
    """Show what a job would read: files, documents, sentences, languages, and what looks wrong."""

    input: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Files, folders, quoted globs or @LIST, as for `preprocess`."""
    inputs: str | None = None
    """A TOML file of more inputs, each with its own flags for reading, as for `preprocess`."""
    like: Like = None
    """A well-known corpus, such as c4 or wikiextractor. Sets the flags that read it. Other flags override these. See
    `bertloom corpora`."""
    vocab: str | None = None
    """A vocabulary, as for `preprocess`, to count the tokens that it does not know."""
    pairs: ObjectiveName = ExamplesConfig.pairs
    """Pair objective of the job, as for `preprocess`. With `none`, documents may be single sentences."""
    num_documents: int = 3
    """Number of documents shown of each format."""
    test_sets: Annotated[ExcludeConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=ExcludeConfig)
    html: str | None = None
    """Write the preview as a page to this file."""
    overwrite: bool = False
    """Replace the file of --html."""
    tokenize: Annotated[TokenizeConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=TokenizeConfig)

    def __post_init__(self) -> None:
        check_inputs(self.input, self.inputs)
        if not 1 <= self.num_documents <= MOST_DOCUMENTS:
            raise ValueError(f"--num-documents {self.num_documents}: expected 1 to {MOST_DOCUMENTS}")


def main(argv: Sequence[str]) -> None:
    config = parse(PreviewConfig, argv, prog="bertloom preview")
    from bertloom.whole_files import output_file
    from jobs.support.outputs import check_output
    from jobs.support.preview import preview_lines, preview_page

    if config.html:
        check_output(config.html, config.input, overwrite=config.overwrite, flag="--html")
    found = preview(config)
    print("\n".join(preview_lines(found)))
    if config.html:
        with output_file(config.html) as file:
            file.write(preview_page(found).encode())


def preview(config: PreviewConfig) -> dict[str, Any]:
    """Return everything that the command prints, as plain values."""
    from jobs.support.excluded_texts import read_excluded
    from jobs.support.preview import about
    from pipeline.accents import accent_warning
    from pipeline.checks.advice import advice
    from pipeline.checks.first_look import look_at
    from pipeline.inputs.discovery import find_sources
    from pipeline.inputs.sources import Split
    from pipeline.tokenizer import check_packages

    check_packages(config.tokenize)
    read, notes = config.tokenize.text.read, list[str]()
    vocabulary, tokenize, wrong = _vocabulary(config)
    excluded = read_excluded(config.test_sets, notes)
    listed = read_inputs(config.inputs, config.tokenize.text, config.input)
    sources = find_sources(config.input, notes, read, inputs=listed.inputs)
    notes += listed.ignored
    looks = look_at(sources, tokenize, vocabulary, config.num_documents, listed.named)
    splits = [Split(source, 0, None, source.size) for source in sources]
    own = vocabulary.casing if vocabulary else None
    casing = own or tokenize.casing
    wrong += filter(None, [accent_warning(splits, casing.lowers, casing.strip_accents, own is not None)])
    needs_pairs = ExamplesConfig(pairs=config.pairs).objective.predicts_label
    wrong += [found for look in looks for found in advice(look, tokenize, needs_pairs)]
    return {"notes": notes, "wrong": wrong, "formats": [about(look, excluded) for look in looks]}


def _vocabulary(config: PreviewConfig) -> tuple[Vocabulary | None, TokenizeConfig, list[str]]:
    """Return (the vocabulary, if there is one; the options with those that its files decide; what is wrong with them)."""
    from pipeline.vocabulary_files import read_vocabulary

    if config.vocab is None:
        return None, config.tokenize, []
    vocabulary = read_vocabulary(config.vocab)
    try:
        return vocabulary, settled(config.tokenize, vocabulary, config.vocab), []
    except ValueError as error:
        return vocabulary, config.tokenize, [str(error)]
