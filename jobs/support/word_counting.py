"""Count the words of text files with Beam, for the commands that make or extend a vocabulary."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pipeline.inputs.documents import TextConfig

if TYPE_CHECKING:
    from pipeline.inputs.sources import Source, Split
    from pipeline.stages.word_counts import Tally
    from pipeline.stages.word_cuts import WordCut
    from pipeline.text.cleaning import CleanConfig


def splits_of(sources: Sequence[Source]) -> list[Split]:
    """Return the ranges of files that are read together."""
    from pipeline.inputs.splitting import split_size, split_source

    size = split_size(sum(source.size for source in sources))
    return [split for source in sources for split in split_source(source, size)]


def count_words_of(
    sources: list[Source],
    text: TextConfig,
    cut: WordCut,
    num_workers: int,
    command: str,
    of_inputs: Sequence[CleanConfig] = (),
) -> tuple[dict[str, int], Tally]:
    """Return (word -> count, what was read). The counts do not depend on the number of workers.

    of_inputs: how the texts of each table of --inputs are cleaned.
    """
    from jobs.support.progress import JobProgress
    from pipeline.execution import Launcher, balanced, pipeline_options
    from pipeline.inputs.split_list import write_split_list
    from pipeline.inputs.splitting import group_splits, split_size
    from pipeline.stages.sampling import FindShare, counts_documents, read_shares
    from pipeline.stages.word_counts import CountWords, read_counts

    total_bytes = sum(source.size for source in sources)
    groups = group_splits(splits_of(sources), split_size(total_bytes))
    with TemporaryDirectory(prefix="bertloom-") as folder:
        work_log = os.path.join(folder, "work-log")
        run = Launcher(
            options=pipeline_options(num_workers, ()),
            splits=write_split_list(folder, sources, balanced(groups, num_workers)),
            command=command,
            how_to_continue="No work is kept. Start",
            log=os.path.join(folder, "beam.log"),
            progress=JobProgress(command, work_log, total_bytes),
        )
        clean, share = text.clean, os.path.join(folder, "sample.json")
        if counts_documents(clean, of_inputs):
            run(FindShare(clean, False, share, work_log, of_inputs=of_inputs))
            clean, of_inputs = read_shares(share, clean, of_inputs)
        run(CountWords(folder, clean, cut, work_log, of_inputs))
        return read_counts(folder)


def say_rejects(tally: Tally, text: TextConfig, say: Callable[[str], None]) -> str:
    """Print the first reject of each reason; return how many records were not used and why, to follow other counts."""
    from pipeline.inputs.rejects import advice

    for reason, (_, _, message) in sorted(tally.first.items()):
        say("; ".join(filter(None, [f"rejected: {reason}: {message}", advice(reason, text.read)])))
    return "".join(f", {number:,} {reason}" for reason, number in sorted(tally.not_used.items()))
