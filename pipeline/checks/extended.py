"""Check that a data set has no document of the data sets that it extends."""

from collections.abc import Iterator, Sequence

import numpy as np

from bertloom.arrays import U64
from bertloom.manifest import read_dataset
from pipeline.dataset import parse_documents, read_listed


def check_extended(dataset: str, others: Sequence[str]) -> Iterator[str | None]:
    """Yield a sentence for each fault, and None after each page of documents/ that was read."""
    if not others:
        return
    manifest, _ = read_dataset(dataset)
    rows = {row["sha256"]: row for row in manifest.get("extends", ())}
    own = [ids_of(dataset, name, manifest["documents"]) for name in manifest["documents"]]
    known = np.unique(np.concatenate([np.zeros(0, np.uint64), *own]))
    for other in others:
        listed, _ = read_dataset(other)
        if listed["sha256"] not in rows:
            yield f"manifest.json: does not list {other} among the data sets that it extends"
        for name in listed["documents"]:
            both = known[np.isin(known, ids_of(other, name, listed["documents"]))]
            if len(both):
                yield f"{name} of {other}: holds {len(both)} documents of {dataset}, such as {both[0]:016x}"
            yield None


def ids_of(dataset: str, name: str, listed: dict[str, str]) -> U64:
    """Return the ids of a page of documents/."""
    ids: U64 = parse_documents(read_listed(dataset, name, listed), name)["id"].to_numpy()
    return ids
