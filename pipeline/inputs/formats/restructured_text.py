"""reStructuredText files: a file is a document, and each of its blocks a paragraph. docutils parses them.

Titles, list items, definitions, notes and the texts of links stay. Comments, code, tables, pictures, formulas, options of
directives, and the fields at the top are left out. `rst_parser` decides what directives and roles are.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from pipeline.inputs.formats.format import Format
from pipeline.inputs.formats.whole_texts import read_mark_up
from pipeline.text.records import join_text_lines

_LEFT_OUT = frozenset(
    """classifier comment doctest_block field_name footnote_reference citation_reference image label literal_block math_block
    option_group raw substitution_definition table""".split()
)
_FIRST_NUMBERS = ("0", "1", "#")


def text_of_rst(source: str) -> str:
    """Return the paragraphs, separated by blank lines. Raises ValueError for a page that takes too long."""
    from docutils import nodes

    from pipeline.inputs.formats.rst_parser import parse_rst

    document = parse_rst(source)
    definitions = document.findall(nodes.substitution_definition)
    values = {(node["names"] or node["dupnames"])[0].lower(): node.astext() for node in definitions}
    children = list(document.children)
    about = next((node for node in children if node.tagname not in ("title", "comment", "target")), None)
    if about is not None and about.tagname == "field_list":
        children.remove(about)
    text = "\n\n".join(text for node in children for text in _paragraphs(node, values) if text.strip())
    return join_text_lines(text.encode()).decode()


def _paragraphs(node: Any, values: Mapping[str, str]) -> Iterator[str]:
    from docutils import nodes

    if node.tagname in _LEFT_OUT:
        return
    if isinstance(node, nodes.system_message):
        yield from _unread(node)
    elif isinstance(node, nodes.line_block):
        yield "\n".join(_inline_text(line, values) for line in node.findall(nodes.line)).strip("\n")
    elif isinstance(node, nodes.TextElement):
        yield _inline_text(node, values)
    else:
        first = _first_number(node) if isinstance(node, nodes.enumerated_list) else None
        for i, child in enumerate(node.children):
            texts = _paragraphs(child, values)
            if first:
                number = f"{int(first[:-1]) + i}{first[-1]} " if first[:-1].isdigit() else f"{first} "
                yield (number + next(texts, "")).rstrip()  # an item may be empty
            yield from texts


def _first_number(numbered: Any) -> str | None:
    """Return the number before the first item of a list, if it is text, as in "1986. A great year."

    Numbers that count from 0 or 1, and the letters of a list of several items, are mark-up.
    """
    first = str(numbered.get("first", ""))
    if first.strip("().") in _FIRST_NUMBERS or not (first.strip("().").isdigit() or len(numbered) == 1):
        return None
    return first


def _unread(message: Any) -> Iterator[str]:
    """Yield the paragraphs of a title that docutils reports as an error, such as one with a short overline."""
    from docutils import nodes

    for block in message.findall(nodes.literal_block):
        lines = [line for line in block.astext().split("\n") if any(map(str.isalnum, line))]
        if lines and not lines[0].lstrip().startswith(".."):
            yield " ".join(lines)


def _inline_text(node: Any, values: Mapping[str, str]) -> str:
    from docutils import nodes

    parts: list[str] = []
    for child in node.children:
        if isinstance(child, nodes.Text):
            text = child.astext().replace("\n", "\r")
        elif isinstance(child, nodes.substitution_reference):
            text = values.get(child["refname"].lower(), child.astext())
        else:
            text = "" if child.tagname in _LEFT_OUT else _inline_text(child, values)
        if not text and parts:  # of the spaces around what is left out, one stays
            parts[-1] = parts[-1].rstrip()
        parts.append(text)
    return "".join(parts)


RESTRUCTURED_TEXT = Format(
    name="rst",
    description="reStructuredText",
    endings=(".rst",),
    read=partial(read_mark_up, text_of_rst),
    is_document=True,
    has_encodings=True,
    versions=("docutils",),
    packages=("docutils",),
)
