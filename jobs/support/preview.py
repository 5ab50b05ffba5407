"""The text and the page of `bertloom preview`."""

from collections import Counter
from importlib.resources import files
from importlib.util import find_spec
from typing import Any
from unicodedata import east_asian_width

import jinja2
import numpy as np

from bertloom.arrays import I64
from bertloom.counts import counted
from pipeline.checks.first_look import Look
from pipeline.inputs.corpora import flags_of
from pipeline.inputs.formats.registry import position_unit
from pipeline.inputs.sources import ReadConfig, differences
from pipeline.stages.exclusion import count_in_test_sets
from pipeline.text.language import language_of
from pipeline.text.word_runs import RUN_WORDS, RunIndex

SHOWN_SENTENCES = 8
"""Sentences shown of a document."""
SHOWN_COLUMNS = 110
"""Columns of a terminal in which a sentence is shown. A Chinese character has two."""
IDENTIFIED = 100
"""Number of documents whose language is identified."""
MOST_KINDS = 6
"""Scripts and languages listed."""
LEAST_SHARE = 0.0005
"""Share of a script from which it is listed: 0.1 %."""


def about(look: Look, excluded: RunIndex | None = None) -> dict[str, Any]:
    """Return what the preview shows of a group of files, as plain values. excluded: the test sets of --exclude."""
    lengths = np.array([len(text) for text in look.texts], np.int64)
    form, files = look.sources[0].format, {source.name for source in look.sources}
    return {
        "input": look.input,
        "format": look.format,
        "codecs": sorted({source.codec for source in look.sources if source.codec}),
        "options": differences(look.read, ReadConfig()),
        "files": len(look.sources),
        "bytes": look.num_bytes,
        "is_whole": look.is_whole,
        "estimated_documents": look.estimated_documents,
        "estimated_text_bytes": look.estimated_text_bytes,
        "looked_at": {"files": look.num_files, "documents": len(look.documents), "bytes": look.num_text_bytes},
        "rejected": dict(Counter(reject.reason for _, reject in look.rejects).most_common()),
        "passed_over": dict(look.passed_over.most_common()),
        "in_test_sets": dict(count_in_test_sets((document for _, document in look.documents), excluded).most_common())
        if excluded
        else {},
        "sentences": _quartiles(look.num_sentences),
        "characters": _quartiles(lengths),
        "scripts": {script: share for script, share in list(look.scripts.items())[:MOST_KINDS] if share >= LEAST_SHARE},
        "languages": _languages(look.texts),
        "unknown": look.num_unknown / look.num_tokens if look.num_tokens else None,
        "documents": [
            {
                "source": name,
                "unit": position_unit(name if name in files else "", form, name),
                "position": document.position,
                "sentences": sentences,
            }
            for (name, document), sentences in zip(look.documents, look.sentences)
        ],
    }


def _quartiles(values: I64) -> list[int] | None:
    """Return the values below which a quarter, a half and three quarters of the values are."""
    return [int(value) for value in np.percentile(values, (25, 50, 75))] if len(values) else None


def _languages(texts: list[str]) -> dict[str, float] | None:
    """Return language -> share of the documents, or None if py3langid is not installed."""
    if not find_spec("py3langid"):
        return None
    chosen = texts[:: -(-len(texts) // IDENTIFIED) or 1]
    counts = Counter(language_of(text)[0] for text in chosen)
    return {language: number / len(chosen) for language, number in counts.most_common(MOST_KINDS)}


# ---- text


def preview_lines(found: dict[str, Any]) -> list[str]:
    """Return the preview as lines of text."""
    lines = [line for one in found["formats"] for line in _format_lines(one)]
    if found["notes"]:
        lines += [*(f"note: {note}" for note in found["notes"]), ""]
    lines += ["What looks wrong"] if found["wrong"] else ["Nothing looks wrong."]
    return lines + [f"  - {wrong}" for wrong in found["wrong"]]


def _format_lines(one: dict[str, Any]) -> list[str]:
    seen, codecs = one["looked_at"], f" ({', '.join(one['codecs'])})" if one["codecs"] else ""
    number = one["estimated_documents"]
    documents = counted(number, "document") if one["is_whole"] or number == 1 else f"about {rounded(number)} documents"
    held = f"{documents}, {size(one['estimated_text_bytes'])} of text" if seen["documents"] else "no document found"
    lines = [f"{one['input']}: {counted(one['files'], 'file')}" if one["input"] else counted(one["files"], "file")]
    lines = [f"{lines[0]}, {one['format']}{codecs}, {size(one['bytes'])}: {held}"]
    if one["options"]:
        lines.append("  " + _row("read with", flags_of(one["options"])))
    beginning = f"{counted(seen['documents'], 'document')}, {size(seen['bytes'])}, in {counted(seen['files'], 'file')}"
    lines.append("  " + _row("looked at", beginning))
    for name, number in one["in_test_sets"].items():
        share = "shares" if number == 1 else "share"
        lines.append(
            "  "
            + _row("in test set", f"{counted(number, 'document')} that {share} a run of {RUN_WORDS} words with {name}")
        )
    for name in ("rejected", "passed_over"):
        for reason, number in one[name].items():
            lines.append("  " + _row(name.replace("passed_over", "ignored"), f"{number:,} {reason}"))
    for name in ("sentences", "characters"):
        if one[name]:
            low, middle, high = one[name]
            lines.append(
                "  " + _row(name, f"{middle:,} in the median document, {low:,} to {high:,} in the middle half")
            )
    for name in ("scripts", "languages"):
        if one[name]:
            lines.append("  " + _row(name, ", ".join(f"{kind} {share:.1%}" for kind, share in one[name].items())))
    if one["unknown"] is not None:
        lines.append("  " + _row("[UNK]", f"{one['unknown']:.3%} of the tokens"))
    for document in one["documents"]:
        sentences, place = document["sentences"], "{source}, the record at {unit} {position:,}".format(**document)
        lines += ["", f"  {place}: {counted(len(sentences), 'sentence')}"]
        lines += [f"    | {shown(sentence)}" for sentence in sentences[:SHOWN_SENTENCES]]
        if len(sentences) > SHOWN_SENTENCES:
            lines.append(f"    … {len(sentences) - SHOWN_SENTENCES:,} more")
    return [*lines, ""]


def _row(name: str, value: str) -> str:
    return f"{name:<12}{value}"


def shown(sentence: str) -> str:
    """Return a sentence in one line that can be printed, shortened in the middle."""
    sentence = " ".join(sentence.split())  # as the tokenizer reads white space
    text = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in sentence)
    columns = [1 + (east_asian_width(character) in "WF") for character in text]
    if sum(columns) <= SHOWN_COLUMNS:
        return text
    ends = np.cumsum(columns)
    begin, end = np.searchsorted(ends, [SHOWN_COLUMNS // 2, ends[-1] - SHOWN_COLUMNS // 2], side="right")
    return f"{text[:begin]} … {text[end:]}"


def size(num_bytes: int) -> str:
    """Return a number of bytes in the unit that suits it."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:,.1f} {unit}"
    return f"{num_bytes / 1e3:,.1f} KB"


def rounded(number: int) -> str:
    """Return an estimate with two figures.

    >>> rounded(123456), rounded(7)
    ('120,000', '7')
    """
    digits = max(0, len(str(number)) - 2)
    return f"{round(number, -digits):,}"


# ---- the page


def preview_page(found: dict[str, Any]) -> str:
    """Return the preview as a page in HTML."""
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    page.filters |= {
        "size": size,
        "rounded": rounded,
        "counted": counted,
        "flags": flags_of,
        "share": lambda value: f"{value:.1%}",
    }
    template = page.from_string((files("jobs.support") / "preview.html.j2").read_text(encoding="utf-8"))
    return template.render(p=found)
