"""`bertloom corpora`: the well-known corpora that --like reads.

    bertloom corpora
    bertloom corpora c4

Prints a line for each corpus, or all that is known of one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from jobs.support.config import parse

FIELDS = ("title", "link", "languages", "size", "licence", "shape", "note")


@dataclass(frozen=True, kw_only=True)
class CorporaConfig:
    """Print the well-known corpora that --like NAME of `preprocess` and `build-vocab` reads."""

    name: Annotated[str | None, tyro.conf.Positional] = None
    """Print all that is known of this corpus."""
    markdown: bool = False
    """Print the list as a page in Markdown: docs/corpora.md."""


def main(argv: Sequence[str]) -> None:
    config = parse(CorporaConfig, argv, prog="bertloom corpora")
    from pipeline.inputs.corpora import corpora, corpus_named

    if config.name:
        corpus = corpus_named(config.name)
        for field in FIELDS:
            if value := getattr(corpus, field):
                print(f"{field:<11}{value}")
        print(f"{'flags':<11}{corpus.flags or '(the defaults)'}")
    elif config.markdown:
        print(corpora_page(), end="")
    else:
        width = max(map(len, corpora()))
        for corpus in corpora().values():
            print(f"{corpus.name:<{width}}  {corpus.title}; {corpus.languages}")
        print("\nbertloom corpora NAME prints the link, licence, size, shape and flags of one of them.")


def corpora_page() -> str:
    """Return docs/corpora.md."""
    from pipeline.inputs.corpora import corpora

    lines = [INTRODUCTION]
    for corpus in corpora().values():
        lines += [
            f"## {corpus.name}",
            "",
            f"[{corpus.title}]({corpus.link})",
            "",
            f"- Languages: {corpus.languages}",
            f"- Size: {corpus.size}",
            f"- Licence: {corpus.licence}",
            f"- Shape: {corpus.shape}",
            *([f"- Note: {corpus.note}"] if corpus.note else []),
            f"- Flags: `{corpus.flags}`" if corpus.flags else "- Flags: none, the defaults read it",
            "",
        ]
    return "\n".join(lines)


INTRODUCTION = "\n".join(
    [
        "# Well-known corpora",
        "",
        "`--like NAME` sets the flags for one of these corpora in `bertloom preview`, `bertloom preprocess` and "
        "`bertloom build-vocab`. Other flags override these. bertloom does not download corpora: follow the "
        "link, read the licence, and download the files.",
        "",
        "```bash",
        "bertloom preview --like c4 c4/en/c4-train.00000-of-01024.json.gz",
        "bertloom build-vocab --like c4 --input c4/en/ --sample 100000 --vocab-size 30000 --out vocab.txt",
        "bertloom preprocess --like c4 --input c4/en/ --vocab vocab.txt --out DATASET --num-workers 16",
        "```",
        "",
        "Look at the preview first. Corpora change, and copies differ. The preview shows the first documents and says what "
        "looks wrong.",
        "",
        "Sizes are rounded. Licences are given as the authors state them, and cover what the authors own. To add a corpus, "
        "add a table to `pipeline/inputs/corpora.toml` and run `bertloom corpora --markdown > docs/corpora.md`.",
        "",
    ]
)
