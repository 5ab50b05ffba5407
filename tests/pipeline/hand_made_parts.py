"""A token part of one file, written from hand-made arrays."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.inputs.formats.registry import format_named
from pipeline.part_sources import PartFile, files_table
from pipeline.text.records import Reject
from pipeline.tokens import PartRecord, TokenBlock, write_part


def part_of_file(
    path: Path | str,
    source: str,
    blocks: Sequence[TokenBlock],
    rejects: Sequence[Reject] = (),
    *,
    form: str = "txt",
    dtype: Any = np.uint16,
    **fields: Any,
) -> PartRecord:
    """Write a part that holds all of the file `source`, and return its footer."""
    path = Path(path)
    fields = {"name": path.name, "source": source, "start": 0, "start_piece": 0, "end": 9, "end_piece": 0, **fields}
    fields |= {"num_files": 1, "next_file": 1, "last": True, "text_bytes": 9}
    rows = [block.documents[block.documents["num_tokens"] > 0] for block in blocks]
    file = PartFile(
        name=source,
        format=form,
        num_documents=sum(map(len, rows)),
        num_sentences=sum(int(some["num_sentences"].sum()) for some in rows),
        num_tokens=sum(int(some["num_tokens"].sum()) for some in rows),
        text_bytes=9,
        num_rejected=len(rejects),
        is_damaged=False,
    )
    is_text = format_named(form).has_layouts
    fields["num_text_documents"] = file.num_documents if is_text else 0
    named = [(source, reject) for reject in rejects]
    return write_part(str(path), fields, blocks, named, np.dtype(dtype), files_table([file]))
