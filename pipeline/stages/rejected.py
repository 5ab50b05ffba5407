"""The rejects of a job's token parts: the file that lists them, and their summary for an error."""

import gzip
import json
from collections import Counter
from collections.abc import Iterator, Sequence

from bertloom import storage
from bertloom.counts import counted
from pipeline.inputs.formats.registry import position_unit
from pipeline.inputs.rejects import advice
from pipeline.inputs.sources import ReadConfig, source_of
from pipeline.part_sources import read_files
from pipeline.places import Places
from pipeline.tokens import PartRecord, read_rejects

REJECTS = "rejects/rejects.jsonl.gz"
"""The list of rejects in a data set."""
SHOWN_REASONS = 2
SHOWN_CHARACTERS = 100  # of the text of a reject


def rejects_of(parts: Sequence[PartRecord], folder: str) -> Iterator[bytes]:
    """Yield the rejects of parts in a folder as gzip members. Concatenated gzip members are one gzip file."""
    for part in parts:
        if part.rejected:
            yield read_rejects(storage.join(folder, part.name), part)


def explain_rejects(parts: Sequence[PartRecord], places: Places, config: ReadConfig | None) -> str:
    """Write the rejects of a job that cannot go on to its output. Return a summary, or "" if there are none.

    The summary has the first reject of each of the two most frequent reasons, and what to do.

    Args:
        config: how all files are read; None: the tables of --inputs may read them in several ways.
    """
    reasons = Counter[str]()
    for part in parts:
        reasons.update(part.rejected)
    if not reasons:
        return ""
    path = storage.join(places.dataset, *REJECTS.split("/"))
    storage.make_folder(path.rpartition("/")[0])
    storage.write_whole(path, rejects_of(parts, places.parts))
    texts = {reason: f"{number:,} {reason}" for reason, number in reasons.most_common()}
    waiting = set(list(texts)[:SHOWN_REASONS])
    for part in parts:
        for line in gzip.decompress(b"".join(rejects_of([part], places.parts))).splitlines():
            reject = json.loads(line)
            reason = reject["reason"]
            if reason in waiting:
                waiting.remove(reason)
                shown = " ".join(f"{reject['detail']} {reject['text'][:SHOWN_CHARACTERS]}".split())
                formats = {file.name: file.format for file in read_files(places.parts, part)}
                source = source_of(reject["source"], formats) or part.source
                unit = position_unit(source, formats[source], reject["source"])
                texts[reason] += f", the first in {reject['source']} at {unit} {reject['position']}"
                texts[reason] += "".join(f": {more}" for more in (shown, advice(reason, config)) if more)
        if not waiting:
            break
    num_records = reasons.total() + sum(part.num_documents for part in parts)
    return f"{reasons.total():,} of {counted(num_records, 'record')} rejected ({'; '.join(texts.values())}); see {path}"
