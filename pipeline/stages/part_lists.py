"""Lists of all parts of a job, in files: a stage that needs all parts gives its elements the path of their list."""

import json
from collections.abc import Sequence
from functools import lru_cache

from bertloom.sealed_files import read_sealed, write_sealed
from pipeline.tokens import PartRecord


def write_part_list(path: str, parts: Sequence[PartRecord]) -> None:
    """Write a list. Its path must depend on its content, because readers keep it."""
    write_sealed(path, [json.dumps(list(map(vars, parts))).encode()])


@lru_cache(maxsize=2)
def read_part_list(path: str) -> list[PartRecord]:
    """Return the parts of a list. Cached: its path depends on its content."""
    return list(map(PartRecord.from_json, json.loads(read_sealed(path))))
