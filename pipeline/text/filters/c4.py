"""The filter of C4 (Raffel et al. 2020, section 2.2, and its code in tensorflow_datasets).

It separates words by white space and is made for English: it rejects nearly all Chinese text. Two rules are left out: the
list of bad words, and the removal of repeated spans of three sentences (see --max-line-repeats).
"""

import re

from pipeline.text.filters.filter import QualityFilter
from pipeline.text.lines import lines_of, with_lines
from pipeline.text.records import join_text_lines

END_MARKS = (".", "?", "!", '"')
POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
MIN_WORDS, MIN_SENTENCES = 5, 3

_CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
_SENTENCE_END = re.compile(r"(?<![.?!])[.?!]++[\"”’)\]]*+(?:\s|$)")


def c4_lines(text: str) -> str:
    """Return the text without citation marks and without the lines that C4 removes.

    Those are lines that do not end like a sentence, have fewer than five words, or are about Javascript, cookies or terms
    of use.
    """
    lines: list[str | None] = []
    for line in lines_of(text):
        line = _CITATION.sub("", line).strip()
        lower = line.lower()
        ends = line.endswith(END_MARKS) and not line.endswith("...")
        is_text = ends and len(line.split()) >= MIN_WORDS
        lines.append(line if is_text and not any(word in lower for word in ("javascript", *POLICY)) else None)
    return with_lines(text, lines)


def c4_fault(text: str) -> str:
    """Return why C4 rejects a page of these lines, or an empty string."""
    text = join_text_lines(text.encode()).decode()
    if "lorem ipsum" in text.lower():
        return "lorem ipsum"
    if "{" in text:
        return "a curly bracket"
    num_sentences = len(_SENTENCE_END.findall(text))
    return f"{num_sentences} sentences" if num_sentences < MIN_SENTENCES else ""


C4 = QualityFilter(
    name="c4",
    summary="for English web pages; removes lines that do not end like a sentence and texts of fewer than three sentences.",
    without_lines=c4_lines,
    find_fault=c4_fault,
)
