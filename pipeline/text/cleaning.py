"""The cleaning of texts, step by step, and the filters that reject texts.

Every step is optional, and the documents that it changes or rejects are counted. Repeated lines are left out after the
sample is taken. A text over MAX_DOCUMENT_BYTES is cleaned piece by piece. Steps that work on lines see the line breaks
within paragraphs (pipeline/text/records.py); a document's id and language are those of the text with joined lines.
"""

import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from hashlib import sha256
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Literal, Self

import numpy as np
from typing_extensions import Doc

from bertloom.arrays import U64
from bertloom.draws import SAMPLE, mix, threshold
from bertloom.extras import needed_by
from pipeline.options import REGISTERED
from pipeline.text.filters.registry import FILTERS, find_filters
from pipeline.text.language import check_languages, language_of
from pipeline.text.lines import lines_of, with_lines
from pipeline.text.records import (
    Document,
    PassedOver,
    Record,
    Reject,
    document_id,
    first_characters,
    join_lines,
    join_text_lines,
)

# The characters of a text of MAX_DOCUMENT_BYTES: at most, in ASCII, and at least, in characters of four bytes.
MOST_CHARACTERS, LEAST_CHARACTERS = 4_000_000, 1_000_000

MOST_SAMPLED = 10_000_000  # documents; their draws are held in memory

Step = Callable[[str], str]

if TYPE_CHECKING:
    FilterName = str
else:  # the choices that --help shows
    FilterName = Annotated[Literal[tuple(one.name for one in FILTERS)], REGISTERED]


@dataclass(frozen=True, kw_only=True)
class CleanConfig:
    """How texts are cleaned and which are rejected."""

    fix_text: bool = False
    """Repair wrongly decoded text (schÃ¶n becomes schön) and HTML entities, with ftfy."""
    unicode_normalization: Literal["NFC", "NFKC"] | None = None
    """Unicode normalization form. NFKC also converts full-width letters and punctuation to ordinary ones."""
    remove_control_characters: bool = False
    """Remove control and invisible format characters. BERT's tokenizer ignores them in any case."""
    sample: float = 1.0
    """Share of documents to use or, if it is above 1, the largest number of documents to use; then all input is read twice.
    A hash of the text decides which documents are used, so a larger sample includes a smaller one."""
    min_characters: int = 0
    """Reject texts with fewer characters."""
    max_characters: int | None = None
    """Reject texts with more characters."""
    languages: tuple[str, ...] = ()
    """Reject texts in other languages than these: ISO 639-1 codes such as en, zh, de. Default: all languages are used."""
    quality_filter: Annotated[
        tuple[FilterName, ...],
        Doc(
            "Quality filters. Each rejects texts, and some remove lines. "
            + " ".join(f"{one.name}: {one.summary}" for one in FILTERS)
        ),
    ] = ()

    def __post_init__(self) -> None:
        if not (0 < self.sample <= 1 or (1 < self.sample <= MOST_SAMPLED and self.sample == int(self.sample))):
            raise ValueError(
                f"--sample {self.sample}: expected a share above 0 and at most 1, or a number of documents up to "
                f"{MOST_SAMPLED:,}"
            )
        if not 0 <= self.min_characters <= LEAST_CHARACTERS:
            raise ValueError(f"--min-characters {self.min_characters}: expected 0 to {LEAST_CHARACTERS}")
        least, most = max(1, self.min_characters), self.max_characters
        if most is not None and not least <= most <= MOST_CHARACTERS:
            raise ValueError(f"--max-characters {most}: expected {least} to {MOST_CHARACTERS}")
        if self.fix_text:
            load_ftfy()  # raises before the work begins
        if self.languages:
            check_languages(self.languages)
        find_filters(self.quality_filter)

    def without_rejection(self) -> Self:
        """Return these options without the limits, languages and filters, which come after the sample and repeated lines."""
        return replace(self, min_characters=0, max_characters=None, languages=(), quality_filter=())


def clean(
    records: Iterable[Record], config: CleanConfig, repeated: U64 | None = None, keep_lines: bool = False
) -> Iterator[Record]:
    """Yield the records with cleaned documents; some documents become rejects or are passed over.

    repeated: hashes of the lines to leave out, sorted. They are left out after the sample and before the length limits.
    keep_lines: keep the line breaks within paragraphs, for a later step that works on lines.
    """
    if keep_lines:
        yield from _cleaned(records, config, repeated)
    elif repeated is not None or config.quality_filter:
        yield from map(join_lines, _cleaned(records, config, repeated))
    else:
        yield from _cleaned(map(join_lines, records), config, repeated)


def _cleaned(records: Iterable[Record], config: CleanConfig, repeated: U64 | None) -> Iterator[Record]:
    if repeated is None and all(getattr(config, field.name) == field.default for field in fields(CleanConfig)):
        yield from records
        return
    before, after = _steps_before_sampling(config), _steps_after_sampling(config, repeated)
    first = key = None  # ids of a text's first piece, before and after lines are left out
    for record in records:
        if not isinstance(record, Document):
            yield record
            continue
        if record.piece == 0:
            first = key = None
        document = _apply(before, record)
        if document.text and config.sample < 1:
            first = own = document_id(document.text) if record.source_key is None or first is None else first
            if int(mix(own ^ SAMPLE)[0]) >= threshold(config.sample, 64):
                yield PassedOver(record.position, "not-sampled", record.piece)
                continue
        document = _apply(after, document)
        if not document.text:
            yield _reject(record, "empty-text", f"nothing is left after {', '.join(document.cleaned)}")
            continue
        if record.source_key is not None:
            key = document_id(document.text) if key is None else key
            document = replace(document, source_key=key)
        reason, detail = _find_fault(document, config)
        yield _reject(document, reason, detail) if reason else document


def _apply(steps: list[tuple[str, Step]], document: Document) -> Document:
    if not steps:
        return document
    text, cleaned = document.text.decode(), []
    for name, step in steps:
        changed = step(text)
        if changed != text:
            text = changed
            cleaned.append(name)
    if not cleaned:
        return document
    # A text of white space alone is empty, also if the white space is not ASCII.
    return replace(document, text=text.encode().strip() if text.strip() else b"", cleaned=(*document.cleaned, *cleaned))


def _find_fault(document: Document, config: CleanConfig) -> tuple[str, str]:
    """Return (reason, detail) why a document is rejected, or ("", "")."""
    text = join_text_lines(document.text).decode()
    most = config.max_characters
    if document.source_key is not None:  # a piece of a text that is over any limit
        if most is not None:
            return "too-long", "the text was cut into pieces"
    elif len(text) < config.min_characters or (most is not None and len(text) > most):
        return "too-short" if len(text) < config.min_characters else "too-long", f"{len(text)} characters"
    if config.languages:
        language, probability = language_of(text)
        if language not in config.languages:
            return "other-language", f"{language}, {probability:.2f}"
    for quality_filter in find_filters(config.quality_filter):
        if fault := quality_filter.fault_of(document.text.decode()):
            return quality_filter.reason, fault
    return "", ""


def _reject(document: Document, reason: str, detail: str) -> Reject:
    shown = first_characters(join_text_lines(document.text))
    return Reject(document.position, reason, detail, shown, document.record_id, document.piece, document.entry)


# ---------------------------------------------------------------------------------------------------- steps


def _steps_before_sampling(config: CleanConfig) -> list[tuple[str, Step]]:
    steps: list[tuple[str, Step]] = []
    if config.fix_text:
        steps.append(("fix-text", _fix_text))
    if form := config.unicode_normalization:
        steps.append(("unicode-normalization", lambda text: unicodedata.normalize(form, text)))
    if config.remove_control_characters:
        steps.append(("remove-control-characters", lambda text: _control_characters().sub("", text)))
    return steps


def _steps_after_sampling(config: CleanConfig, repeated: U64 | None) -> list[tuple[str, Step]]:
    steps: list[tuple[str, Step]] = []
    if repeated is not None:
        steps.append(("max-line-repeats", partial(without_lines, repeated)))
    for quality_filter in find_filters(config.quality_filter):
        if quality_filter.without_lines:
            steps.append((quality_filter.reason, quality_filter.remove_lines))
    return steps


def load_ftfy() -> ModuleType:
    """Return the package, which an extra installs. Raises ValueError when it is not installed."""
    with needed_by("--fix-text"):
        import ftfy
    return ftfy


def _fix_text(text: str) -> str:
    """Repair the encoding only. ftfy's other repairs are a matter of taste, or other steps here."""
    return load_ftfy().fix_text(
        text,
        uncurl_quotes=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        fix_line_breaks=False,
        remove_control_chars=False,
        normalization=None,
    )


def line_hashes(text: str) -> U64:
    """Return the hash of each line: uint64 (lines,)."""
    return np.frombuffer(b"".join(sha256(line.strip().encode()).digest()[:8] for line in lines_of(text)), "<u8")


def without_lines(repeated: U64, text: str) -> str:
    """Return the text without the lines whose hashes are in `repeated`, which is sorted."""
    hashes = line_hashes(text)
    out = np.searchsorted(repeated, hashes, "right") > np.searchsorted(repeated, hashes, "left")
    if not out.any():
        return text
    return with_lines(text, [None if is_out else line for line, is_out in zip(lines_of(text), out)])


@cache
def _control_characters() -> re.Pattern[str]:
    """Return a pattern for Unicode's categories Cc and Cf, except the tab and line breaks."""
    ranges: list[list[int]] = []  # a character class of ranges is 20 times as fast as one of single characters
    for point in range(sys.maxunicode + 1):
        if unicodedata.category(chr(point)) in ("Cc", "Cf") and point not in (9, 10, 13):
            if ranges and ranges[-1][1] == point - 1:
                ranges[-1][1] = point
            else:
                ranges.append([point, point])
    return re.compile("[" + "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges) + "]+")
