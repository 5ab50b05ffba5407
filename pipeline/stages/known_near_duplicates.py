"""The stage of known near duplicates: part records -> the same part records, and a file of what resembles known documents.

    list   : all parts       -> their list, a file; the pages of sketches/ of the data sets that the job extends
    page   : page            -> its bands by hash, and its least hashes by id, in two files
    pair   : range of hashes -> the new documents that share a band with one of a page; a file of pairs
    verify : range of ids    -> the pairs of this range, read from every file of pairs, that are alike; a file
    join   : all ranges      -> one file, which the plan, weave and manifest stages read

A new document is left out when it is alike to one that an earlier data set holds. Unlike among new documents, the smaller
id does not matter. The stage of near duplicates, which runs before, has written the band hashes of the new documents.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray

from bertloom import storage
from bertloom.arrays import U64
from bertloom.sealed_files import is_sealed, read_sealed, write_sealed
from pipeline.dataset import read_listed
from pipeline.extended import Extended, damaged, read_data_sets
from pipeline.job import JobConfig
from pipeline.places import Places
from pipeline.stages.counters import increment
from pipeline.stages.document_sketches import BAND, LeastHashes, parse_sketches, write_for_search
from pipeline.stages.known_documents import read_known
from pipeline.stages.part_lists import Range, all_ranges, gather, read_part_list, work_round, write_part_list
from pipeline.stages.similar_documents import (
    DOCUMENT_TOKENS,
    MAX_COMPARED,
    MAX_HELD_TOKENS,
    NEAR_DUPLICATE,
    SKETCH,
    Search,
    num_hash_ranges,
    read_near_duplicates,
)
from pipeline.stages.sorted_rows import read_distinct_rows, read_rows, write_rows
from pipeline.stages.transform import transform
from pipeline.stages.work_log import log_begin, log_piece
from pipeline.text.minhash import is_alike, shingles
from pipeline.text.sketches import short_hashes, similarity_to_sketch
from pipeline.tokens import PartRecord, read_documents_table, read_range

VERSION = 1  # raise it with any change in what is found, or in the layout of a file

PAIR = np.dtype([("id", "<u8"), ("known", "<u8"), ("part", "<u4"), ("page", "<u4")])
KNOWN_NEAR = np.dtype([*NEAR_DUPLICATE.descr, ("data_set", "<u4"), ("is_exact", "?")])
"""As NEAR_DUPLICATE; `resembles` is a document of the data set of this number."""


@dataclass(frozen=True)
class Page:
    """A page of sketches/. name: "" for none, where no data set has any."""

    data_set: int
    name: str
    list: str
    """Path of the list of all parts."""


def pages_of(data_sets: Sequence[Extended]) -> list[tuple[int, str]]:
    """Return (number of the data set, name) of all pages of sketches, in order."""
    return [(number, name) for number, one in enumerate(data_sets) for name in sorted(one.sketches)]


def find_pairs(new: Sequence[NDArray[np.void]], known: Sequence[NDArray[np.void]]) -> NDArray[np.void]:
    """Return PAIR rows, by new id, of the new and known documents that share a band.

    In a band of many known documents each new one is compared with the MAX_COMPARED of smallest id.

    Args:
        new: SKETCH rows of each part, in one range of hashes.
        known: BAND rows of each page, in the same range.
    """
    kept = np.concatenate([np.zeros(0, BAND), *known])
    page_of = np.repeat(np.arange(len(known), dtype=np.uint32), [len(rows) for rows in known])
    order = np.lexsort((page_of, kept["id"], kept["hash"]))
    kept, page_of = kept[order], page_of[order]
    found = [np.zeros(0, PAIR)]
    for part, rows in enumerate(new):
        first = np.searchsorted(kept["hash"], rows["hash"], side="left")
        end = np.searchsorted(kept["hash"], rows["hash"], side="right")
        for i in range(MAX_COMPARED):
            some = np.flatnonzero(first + i < end)
            pairs = np.empty(len(some), PAIR)
            at = first[some] + i
            pairs["id"], pairs["part"] = rows["id"][some], part
            pairs["known"], pairs["page"] = kept["id"][at], page_of[at]
            found.append(pairs)
    return np.unique(np.concatenate(found))


def verify_pairs(
    pairs: NDArray[np.void],
    parts: Sequence[PartRecord],
    folder: str,
    pages: Sequence[tuple[int, str]],
    min_similarity: float,
) -> NDArray[np.void]:
    """Return KNOWN_NEAR rows, by id: the new documents that are alike to a known one, each with the first such.

    Args:
        pairs: by new id.
        folder: of the parts.
        pages: (number of the data set, path of the least hashes) of each page.
    """
    found = [np.zeros(0, KNOWN_NEAR)]
    held = np.cumsum(_num_tokens(pairs, parts, folder) + DOCUMENT_TOKENS)
    for batch in np.split(pairs, np.flatnonzero(np.diff(held // MAX_HELD_TOKENS)) + 1):
        found.append(_verify_batch(batch, parts, folder, pages, min_similarity))
    rows = np.concatenate(found)
    return rows[np.unique(rows["id"], return_index=True)[1]]  # a document may be in several parts


def _verify_batch(
    pairs: NDArray[np.void],
    parts: Sequence[PartRecord],
    folder: str,
    pages: Sequence[tuple[int, str]],
    min_similarity: float,
) -> NDArray[np.void]:
    least: dict[tuple[int, int], tuple[NDArray[np.uint32], int]] = {}
    for page in np.unique(pairs["page"]).tolist():
        of_page = LeastHashes(pages[page][1]).of(np.unique(pairs["known"][pairs["page"] == page]).tolist())
        least |= {(page, number): hashes for number, hashes in of_page.items()}
    found: list[tuple[Any, ...]] = []
    for part in np.unique(pairs["part"]).tolist():
        of_part = pairs[pairs["part"] == part]
        wanted = np.unique(of_part["id"])
        path = storage.join(folder, parts[part].name)
        block = read_range(path, parts[part], 0, 1 << 64, lambda ids, wanted=wanted: np.isin(ids, wanted))  # type: ignore[misc]
        values, counts = shingles(block.ids, block.documents["num_tokens"])
        documents: dict[int, tuple[np.void, NDArray[np.uint32]]] = {}
        for row, hashes in zip(block.documents, np.split(values, np.cumsum(counts)[:-1]), strict=False):
            if int(row["id"]) not in documents:
                documents[int(row["id"])] = row, short_hashes(hashes)
        done: set[int] = set()
        for pair in of_part:  # by id, then by the known one
            number, known = int(pair["id"]), int(pair["known"])
            if number in done:
                continue
            row, own = documents[number]
            shared, either, is_exact = similarity_to_sketch(own, *least[int(pair["page"]), known])
            if is_alike(shared, either, min_similarity):
                done.add(number)
                place = (part, row["file"], row["piece"], row["position"])
                found.append((number, known, *place, shared, either, pages[pair["page"]][0], is_exact))
    return np.array(found, KNOWN_NEAR)


def _num_tokens(pairs: NDArray[np.void], parts: Sequence[PartRecord], folder: str) -> NDArray[np.int64]:
    """Return the length of the new document of each pair."""
    num_tokens = np.zeros(len(pairs), np.int64)
    for i in np.unique(pairs["part"]).tolist():
        rows = read_documents_table(storage.join(folder, parts[i].name), parts[i])
        in_part = pairs["part"] == i
        num_tokens[in_part] = rows["num_tokens"][np.searchsorted(rows["id"], pairs["id"][in_part])]
    return num_tokens


@transform
class FindKnownNearDuplicates(beam.PTransform[Any, Any]):
    """PartRecords -> the same PartRecords, when the file of known near duplicates is written."""

    job: JobConfig
    places: Places

    def expand(self, parts: Any) -> Any:
        pages = work_round(parts, "parts", self.list_parts, "pages", self.page)
        pairs = work_round(pages, "pages", self.cut_ranges, "hashes", self.pair)
        verified = work_round(pairs, "pairs", self.ranges_of_ids, "ids", self.verify)
        return gather(verified, "verified", self.join)

    @property
    def search(self) -> Search:
        """The search for near duplicates among the new documents."""
        return Search.of(self.job, self.places)

    def list_parts(self, parts: Iterable[PartRecord]) -> list[Page]:
        path, _ = write_part_list(parts, self._path)
        pages = pages_of(self._data_sets())
        log_begin(self.places.work_log, "read sketches", len(pages))
        return [Page(number, name, path) for number, name in pages or [(0, "")]]

    def page(self, page: Page) -> str:
        if not page.name:
            return page.list
        paths = self._page(page.data_set, page.name)
        if is_new := not all(map(is_sealed, paths)):
            data_set = self._data_sets()[page.data_set]
            try:
                content = read_listed(data_set.location, page.name, data_set.sketches)
                ids, sketches = parse_sketches(content, page.name, self.search.min_similarity)
            except (OSError, ValueError) as error:
                raise damaged(data_set, error) from error
            write_for_search(ids, sketches, *paths)
        increment("read sketches", pages_in=1, pages_reused=int(not is_new))
        log_piece(self.places.work_log, "read sketches", paths[0], is_new=is_new)
        return page.list

    def cut_ranges(self, paths: Iterable[str]) -> list[Range]:
        path = next(iter(paths))
        number = num_hash_ranges(read_part_list(path), self.search.min_similarity)
        log_begin(self.places.work_log, "pair known", number)
        return all_ranges(number, path)

    def pair(self, hashes: Range) -> Range:
        path = self._pairs(hashes)
        if is_new := not is_sealed(path):
            new = [read_rows(self.search.sketch(part), SKETCH, *hashes.edges) for part in read_part_list(hashes.list)]
            pages = [self._page(number, name)[0] for number, name in pages_of(self._data_sets())]
            pairs = find_pairs(new, [read_rows(page, BAND, *hashes.edges) for page in pages])
            write_rows(path, pairs, "id")
            increment("pair known", pairs_out=len(pairs))
        increment("pair known", ranges_in=1, ranges_reused=int(not is_new))
        log_piece(self.places.work_log, "pair known", path, is_new=is_new)
        return hashes

    def ranges_of_ids(self, hashes: Iterable[Range]) -> list[Range]:
        ranges = list(hashes)
        log_begin(self.places.work_log, "verify known", len(ranges))
        return ranges

    def verify(self, ids: Range) -> Range:
        path = self._verified(ids)
        if is_new := not is_sealed(path):
            pairs = read_distinct_rows(map(self._pairs, all_ranges(ids.count, ids.list)), PAIR, *ids.edges)
            pages = [(number, self._page(number, name)[1]) for number, name in pages_of(self._data_sets())]
            parts, similarity = read_part_list(ids.list), self.search.min_similarity
            found = verify_pairs(pairs, parts, self.places.parts, pages, similarity) if len(pairs) else pairs
            write_sealed(path, [found.tobytes()])
            increment("verify known", pairs_in=len(pairs))
        increment("verify known", ranges_in=1, ranges_reused=int(not is_new))
        log_piece(self.places.work_log, "verify known", path, is_new=is_new)
        return ids

    def join(self, ranges: Iterable[Range]) -> list[PartRecord]:
        ordered = sorted(ranges, key=lambda ids: ids.number)
        found = np.frombuffer(b"".join(read_sealed(self._verified(ids)) for ids in ordered), KNOWN_NEAR)
        known = read_known(self.places, self.job)
        assert known is not None
        found = found[~known.among(found["part"], found["id"])]
        found = found[~np.isin(found["id"], read_near_duplicates(self.places.near_duplicates)["id"])]
        write_sealed(self.places.known_near_duplicates, [found.tobytes()])
        increment("verify known", near_duplicates_found=len(found))
        return read_part_list(ordered[0].list)

    def _data_sets(self) -> list[Extended]:
        return read_data_sets(self.places.extended)

    def _page(self, data_set: int, name: str) -> tuple[str, str]:
        """Return the paths of a page's bands and of its least hashes."""
        sha256 = self._data_sets()[data_set].sketches[name]
        return self._path("bands", sha256), self._path("least", sha256)

    def _pairs(self, hashes: Range) -> str:
        return self._path("near pairs", self.job.extends, hashes.number, hashes.count, hashes.list)

    def _verified(self, ids: Range) -> str:
        return self._path("near verified", self.job.extends, ids.number, ids.count, ids.list)

    def _path(self, *key: object) -> str:
        own = [VERSION, self.job.examples.near_duplicates, *key]
        return storage.join(self.places.known, hashlib.sha256(json.dumps(own).encode()).hexdigest()[:24])


def read_known_near_duplicates(places: Places, job: JobConfig) -> NDArray[np.void]:
    """Return the KNOWN_NEAR rows that the stage found, by id; none if the job does not search for them."""
    if not job.extends or job.examples.near_duplicates is None:
        return np.zeros(0, KNOWN_NEAR)
    return np.frombuffer(read_sealed(places.known_near_duplicates), KNOWN_NEAR)


def near_duplicate_ids(places: Places, job: JobConfig) -> U64 | None:
    """Return the ids of all documents that are left out because they resemble another one; None without the search."""
    if job.examples.near_duplicates is None:
        return None
    ids = read_near_duplicates(places.near_duplicates)["id"]
    return np.concatenate([ids, read_known_near_duplicates(places, job)["id"]])
