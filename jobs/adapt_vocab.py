"""`bertloom adapt-vocab`: a model whose vocabulary has the words that a domain needs.

    bertloom adapt-vocab MODEL --input 'text/*.jsonl' --num-words 1000 --out ADAPTED
    bertloom import --hf ADAPTED --out RUN

Reads the same inputs as `preprocess`, counts their words as the model's tokenizer separates them, and adds the words that
save most tokens. The vector of a new word is the mean of the vectors of its old pieces. All other words keep their
vectors. The same text gives the same model, with any number of workers. Writes a directory in transformers' form,

    ADAPTED/config.json, model.safetensors, tokenizer.json, vocab.txt, …
    ADAPTED/new_words.tsv    the new words: id, word, occurrences in the text, tokens saved there, old pieces

and prints what the new words do to the number of tokens of the text, and of --held-out.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from bertloom.counts import counted
from bertloom.messages import print_message
from bertloom.whole_files import whole_folder, write_text
from jobs.support.config import parse
from jobs.support.inputs import Like, check_inputs, read_inputs
from jobs.support.word_counting import count_words_of, say_rejects
from pipeline.inputs.documents import TextConfig
from pipeline.local.beam_import import import_beam
from pipeline.options import check_num_workers
from pipeline.tokenizer_models.growth import GrowthConfig

if TYPE_CHECKING:
    from model.hub.pretrained import Pretrained
    from pipeline.stages.word_counts import Tally
    from pipeline.stages.word_cuts import WordCut
    from pipeline.tokenizer_models.growth import Growth

say = partial(print_message, "adapt-vocab")

SHOWN = 20
"""Number of new words that are printed."""


@dataclass(frozen=True, kw_only=True)
class AdaptVocabConfig:
    """Give a model's vocabulary the words that a text needs."""

    model: Annotated[Path, tyro.conf.Positional]
    """Run folder, or a directory in transformers' form."""
    out: Path
    """Directory to write: a new or empty one."""
    input: tuple[str, ...] = ()
    """Files, folders, quoted globs or @LIST, as for `preprocess`."""
    inputs: str | None = None
    """A TOML file of more inputs, each with its own flags for reading, as for `preprocess`."""
    like: Like = None
    """A well-known corpus, such as c4 or wikiextractor, as for `preprocess`."""
    held_out: tuple[str, ...] = ()
    """Other texts of the same domain, to measure what the new words save there."""
    growth: Annotated[GrowthConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=GrowthConfig)
    text: Annotated[TextConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=TextConfig)
    num_workers: int = 1
    """Number of worker processes on this machine."""

    def __post_init__(self) -> None:
        check_inputs(self.input, self.inputs)
        check_num_workers(self.num_workers)


def main(argv: Sequence[str]) -> None:
    config = parse(AdaptVocabConfig, argv, prog="bertloom adapt-vocab")
    import_beam(connectors=False)
    adapt_vocab(config)


def adapt_vocab(config: AdaptVocabConfig) -> Growth:
    """Write the model with the new words, print what they do, and return the tokenizer with them."""
    from bertloom.tokenizer_files import parse_tokenizer
    from model.hub.growth import grow_model
    from model.hub.pretrained import open_pretrained
    from model.hub.tokenizer import TextTokenizer
    from model.hub.weights import write_pretrained
    from pipeline.stages.word_cuts import cut_of
    from pipeline.tokenizer_models.registry import model_of

    with whole_folder(config.out) as folder:
        pretrained = open_pretrained(config.model)
        old = pretrained.tokenizer.file
        kind, cut = model_of(old.content, str(config.model)), cut_of(old.content)
        counts, tally = _count(config, cut, config.input, config.inputs)
        held_out, _ = _count(config, cut, config.held_out, None) if config.held_out else ({}, None)
        growth = kind.grow(old.content, counts, config.growth)
        new = parse_tokenizer(json.dumps(growth.content).encode(), str(config.model), old.special.names)
        pieces = {number: candidate.pieces for number, candidate in growth.words.items()}
        grown = grow_model(pretrained, TextTokenizer(new), pieces)
        write_pretrained(
            grown.weights,
            grown.config,
            grown.form,
            folder,
            grown.tokenizer,
            grown.max_seq_length,
            grown.vectors,
            **grown.configuration,
        )
        write_text(folder / "new_words.tsv", _table(growth, pretrained.tokenizer.words, kind.readable))
    _print_growth(config, growth, grown, kind.readable)
    print(f"  from       {counted(tally.documents, 'document')}, {tally.bytes / 1e6:,.1f} MB of text")
    _print_tokens(old.content, new.content, {"text": counts, "held out": held_out}, old.special.unk)
    print(f"  next       bertloom import --hf {shlex.quote(str(config.out))} --out RUN")
    return growth


def _count(
    config: AdaptVocabConfig, cut: WordCut, patterns: Sequence[str], inputs: str | None
) -> tuple[dict[str, int], Tally]:
    """Return (word -> count, what was read); ValueError if there is no text."""
    from pipeline.inputs.discovery import find_sources

    notes: list[str] = []
    read = config.text.read
    listed = read_inputs(inputs, config.text, patterns)
    sources = find_sources(patterns, notes, read, inputs=listed.inputs)
    for note in [*notes, *listed.ignored]:
        say(note)
    counts, tally = count_words_of(sources, config.text, cut, config.num_workers, "adapt-vocab", listed.cleaning)
    not_used = say_rejects(tally, config.text, say)
    if not counts:
        raise ValueError(f"no text in {counted(len(sources), 'file')}{not_used}: expected documents, see --help")
    return counts, tally


def _table(growth: Growth, words: Sequence[str], readable: Callable[[str], str]) -> str:
    """Return the content of new_words.tsv."""
    lines = ["id\tword\toccurrences\tsaved\told_pieces"]
    for number, found in growth.words.items():
        pieces = " ".join(readable(words[piece]).strip() for piece in found.pieces)
        lines.append(f"{number}\t{readable(found.word).strip()}\t{found.count}\t{found.saved}\t{pieces}")
    return "\n".join(lines) + "\n"


def _print_growth(config: AdaptVocabConfig, growth: Growth, grown: Pretrained, readable: Callable[[str], str]) -> None:
    size, replaced = grown.tokenizer.vocab_size, len(growth.replaced)
    vectors = "" if grown.config.vocab_size == size else f", and {grown.config.vocab_size:,} vectors"
    new = counted(len(growth.words), "new word")
    print(f"{config.out}: a {grown.architecture} with {new}, {counted(size, 'word')} in all{vectors}")
    print(
        f"  places     {replaced:,} in the place of [unusedN] words, {len(growth.words) - replaced:,} after the others"
    )
    best = sorted(growth.words.values(), key=lambda found: -found.saved)
    more = "" if len(best) <= SHOWN else f" … (all are in {config.out / 'new_words.tsv'})"
    print(f"  words      {' '.join(readable(found.word).strip() for found in best[:SHOWN])}{more}")


def _print_tokens(
    before: Mapping[str, Any], after: Mapping[str, Any], texts: Mapping[str, Mapping[str, int]], unk: int | None
) -> None:
    """Print how many tokens each text has with both tokenizers, and how many of them are [UNK]."""
    from pipeline.tokenizer_models.growth import count_tokens

    print(f"  {'tokens':10}{'before':>14}{'after':>14}{'fewer':>9}{'[UNK] before':>15}{'after':>10}")
    for name, counts in texts.items():
        if counts:
            old, new = (count_tokens(content, counts, unk) for content in (before, after))
            unknown = [f"{found.num_unknown / found.num_tokens:.3%}" for found in (old, new)]
            fewer = f"{1 - new.num_tokens / old.num_tokens:.2%}"
            print(f"    {name:8}{old.num_tokens:>14,}{new.num_tokens:>14,}{fewer:>9}{unknown[0]:>15}{unknown[1]:>10}")
