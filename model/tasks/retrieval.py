"""Queries with their relevant texts, and the texts to be searched: read from a file of rows, or from a folder.

    FILE            rows with a query and its relevant text or list of texts, and perhaps texts that are not relevant; in any
                    form of `model/tasks/formats`. All texts of the file are searched.
    FOLDER          as in BEIR (Thakur et al. 2021): corpus.jsonl with the texts (`_id`, `text`, perhaps `title`),
                    queries.jsonl (`_id`, `text`), and qrels/test.tsv (`query-id`, `corpus-id`, `score`). Without qrels, a
                    line of queries.jsonl lists the ids of its relevant texts as `relevant`. The key `id` is read like `_id`.

The texts of a folder are read as a stream, so there may be more of them than fit in memory.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from model.tasks.columns import Column
from model.tasks.embed import ANCHOR, NEGATIVES, POSITIVE, texts_of
from model.tasks.formats.registry import read_records
from model.tasks.rows import Rejected, read_rows, read_task
from model.tasks.task import string_of, text_of
from model.tasks.values import BadRow, from_cell

RELEVANT = Column("relevant", "relevant", *POSITIVE.names)
FORMS = [(ANCHOR, RELEVANT, NEGATIVES), (ANCHOR, RELEVANT)]
ID = Column("id", "_id", "id")
TEXT = Column("text", "text")
TITLE = Column("title", "title")
RELEVANT_IDS = Column("relevant", "relevant")
QUERY_ID = Column("query-id", "query-id", "query_id")
TEXT_ID = Column("corpus-id", "corpus-id", "corpus_id")
GRADE = Column("score", "score")


class Query(NamedTuple):
    """A query of a file or a folder."""

    id: str
    text: str
    relevant: Mapping[str, float]
    """Grade above 0 of each relevant text, by its id."""


@dataclass
class Retrieval:
    """Queries, and the texts to be searched."""

    queries: list[Query]
    """Those with a relevant text."""
    texts: Iterator[tuple[str, str]]
    """Ids of all texts, and the texts. They can be read once."""
    num_unjudged: int = 0
    """Number of queries without a relevant text, which cannot be measured."""
    rejected: list[Rejected] = field(default_factory=list)
    """Unusable rows; those of the texts are added as they are read."""


def read_retrieval(path: Path, columns: Mapping[str, str], on_bad_row: str) -> Retrieval:
    """Return the queries and texts of a file or a folder.

    Args:
        columns, on_bad_row: see `read_task`.

    Raises:
        ValueError: there are none, or they cannot be used.
    """
    if not path.is_dir():
        return _of_file(path, columns, on_bad_row)
    if columns:
        raise ValueError(
            f"--columns {next(iter(columns))}=…: {path} is a folder, whose files have fixed columns: omit it"
        )
    queries_path, texts_path = (_file_of(path, name) for name in ("queries", "corpus"))
    grades_path = _grades_file(path)
    form = (ID, TEXT) if grades_path else (ID, TEXT, RELEVANT_IDS)
    queries, rejected = read_task(queries_path, [form], _parse_query, {}, on_bad_row)
    if grades_path:
        grades, bad = read_task(grades_path, [(QUERY_ID, TEXT_ID, GRADE)], _parse_grade, {}, on_bad_row)
        rejected += bad
        relevant: dict[str, dict[str, float]] = {query.id: {} for query in queries}
        for query_id, text_id, grade in grades:
            if query_id in relevant and grade > 0:
                relevant[query_id][text_id] = grade
        queries = [query._replace(relevant=relevant[query.id]) for query in queries]
    judged = [query for query in queries if query.relevant]
    found = Retrieval(queries=judged, texts=iter(()), num_unjudged=len(queries) - len(judged), rejected=rejected)
    found.texts = _texts_of(texts_path, on_bad_row, found.rejected)
    if not judged:
        raise ValueError(
            f"{path}: none of the {len(queries):,} queries has a relevant text: check {grades_path or 'relevant'}"
        )
    return found


def _of_file(path: Path, columns: Mapping[str, str], on_bad_row: str) -> Retrieval:
    rows, rejected = read_task(path, FORMS, _parse_row, columns, on_bad_row)
    relevant: dict[str, dict[str, float]] = {}
    texts: dict[str, None] = {}
    for anchor, positives, negatives in rows:
        relevant.setdefault(anchor, {}).update(dict.fromkeys(positives, 1.0))
        texts.update(dict.fromkeys((*positives, *negatives)))
    return Retrieval(
        queries=[Query(anchor, anchor, grades) for anchor, grades in relevant.items()],
        texts=((text, text) for text in texts),
        rejected=rejected,
    )


def _parse_row(place: str, values: Mapping[str, Any]) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    positives = texts_of(values["relevant"], "a relevant text")
    if not positives:
        raise BadRow("has no relevant text")
    return text_of(values["anchor"], "anchor"), positives, texts_of(values.get("negatives"), "a negative")


def _parse_query(place: str, values: Mapping[str, Any]) -> Query:
    listed = from_cell(values.get("relevant", []))
    ids = listed if isinstance(listed, list) else [listed]
    return Query(_id_of(values["id"]), text_of(values["text"], "text"), dict.fromkeys(map(_id_of, ids), 1.0))


def _parse_grade(place: str, values: Mapping[str, Any]) -> tuple[str, str, float]:
    try:
        grade = float(values["score"])
    except (TypeError, ValueError):
        raise BadRow(f"score is {values['score']!r:.40}, expected a number") from None
    return _id_of(values["query-id"]), _id_of(values["corpus-id"]), grade


def _parse_text(place: str, values: Mapping[str, Any]) -> tuple[str, str]:
    title = string_of(values.get("title") or "", "title")
    return _id_of(values["id"]), text_of(f"{title} {string_of(values['text'], 'text')}".strip(), "text")


def _texts_of(path: Path, on_bad_row: str, rejected: list[Rejected]) -> Iterator[tuple[str, str]]:
    """Yield the ids and texts of a file. Bad rows are added to `rejected`, or end it."""
    forms = [(ID, TITLE, TEXT), (ID, TEXT)]
    needed = {name for form in forms for purpose in form for name in purpose.names}
    for place, row in read_rows(path, read_records(path, needed), forms, _parse_text, {}):
        if isinstance(row, BadRow):
            if on_bad_row == "stop":
                raise ValueError(f"{path}: {place}: {row}: fix it, or skip such rows with --on-bad-row skip")
            rejected.append(Rejected(str(path), place, str(row)))
        else:
            yield row


def _id_of(value: Any) -> str:
    """Return an id as a string."""
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise BadRow(f"an id is {value!r:.40}, expected a string or a whole number")
    return str(value)


def _file_of(folder: Path, name: str) -> Path:
    for ending in (".jsonl", ".jsonl.gz"):
        if (path := folder / f"{name}{ending}").exists():
            return path
    raise ValueError(
        f"{folder} has no {name}.jsonl: expected BEIR's layout, corpus.jsonl, queries.jsonl and qrels/test.tsv"
    )


def _grades_file(folder: Path) -> Path | None:
    """Return the file of relevance: qrels/test.tsv, or the only one; None if there is none."""
    found = sorted((folder / "qrels").glob("*.tsv"))
    if len(found) > 1 and (folder / "qrels" / "test.tsv") not in found:
        names = ", ".join(path.name for path in found[:5])
        raise ValueError(f"{folder / 'qrels'} has {len(found)} files ({names}): leave one, or name one test.tsv")
    return found[0] if len(found) == 1 else folder / "qrels" / "test.tsv" if found else None
