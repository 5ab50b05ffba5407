"""A parser of reStructuredText that carries out no directive and no role.

The text of those that hold text is parsed, also where their names are unknown, as Sphinx's are; the others are left out. So
a file cannot read other files or the network. Tables are left out before they are parsed. All limits are counts.
"""

import re
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from docutils import frontend, nodes, utils
from docutils.parsers import rst
from docutils.parsers.rst import states

MAX_DEPTH = 40  # of nested blocks; a list in a list is two. Each takes about seven frames of Python's stack
MAX_LINES = 50_000  # a line takes up to 0.5 ms
MAX_STEPS = 200_000_000
"""Marks times characters of a paragraph, and characters of a word squared: each takes up to 0.1 µs."""

LEFT_OUT = frozenset(
    """code code-block sourcecode literalinclude highlight parsed-literal doctest testcode testsetup testcleanup testoutput
    prompt ipython jupyter-execute console math raw include csv-table table list-table tabularcolumns image contents toctree
    index meta role default-role unicode date replace sectnum section-numbering header footer target-notes title graphviz
    digraph graph plot plantuml uml mermaid inheritance-diagram autosummary currentmodule module program bibliography
    highlightlang productionlist default-domain""".split()
)
"""Directives without text of their own."""
WITH_NAMES = frozenset(
    """figure class rst-class container compound function class method attribute data exception describe object option envvar
    automodule autoclass autofunction automethod autodata autoattribute autoexception only ifconfig tab tab-item tab-set
    tabs grid card grid-item grid-item-card decorator""".split()
)
"""Directives whose first words are names and settings, not text. So are all of a domain, such as `py:function`."""
VERSIONS = frozenset("deprecated versionadded versionchanged versionremoved".split())
"""Directives whose first word is a version."""

_OPTION = re.compile(r":(?![: ])(?:[^:\\]|\\.|:(?![ `]|$))*:(?:[ ]|$)")
_MARKS = re.compile(r"[*`|_\[<\\]")


def parse_rst(source: str) -> nodes.document:
    """Return docutils' tree. Raises ValueError for a page that takes too long."""
    num_lines = source.count("\n")
    if num_lines > MAX_LINES:
        raise ValueError(f"{num_lines} lines, the limit is {MAX_LINES}")
    document = utils.new_document("", _settings())
    parser = rst.Parser(inliner=_make_inliner())
    parser.state_classes = STATES
    parser.parse(source, document)
    return document


def _make_inliner() -> states.Inliner:
    """Return docutils' parser of paragraphs with other methods. A subclass would lack what it looks up in the class."""
    inliner = states.Inliner()
    parse, steps = inliner.parse, 0

    def parse_within_limit(text: str, *args: Any) -> Any:
        nonlocal steps
        steps += len(_MARKS.findall(text)) * len(text) + sum(len(word) ** 2 for word in text.split() if len(word) > 100)
        if steps > MAX_STEPS:
            raise ValueError(f"the marks of its paragraphs take {steps} steps, the limit is {MAX_STEPS}")
        return parse(text, *args)

    def read_text(text: str, lineno: int) -> list[nodes.Node]:
        return [nodes.Text(text)] if text else []  # docutils would look for addresses, recursively

    inliner.parse, inliner.implicit_inline, inliner.interpreted = parse_within_limit, read_text, _read_role
    return inliner


@cache
def _settings() -> Any:
    settings = frontend.get_default_settings(rst.Parser)
    settings.report_level = settings.halt_level = 5  # nothing is printed
    settings.line_length_limit = sys.maxsize
    settings.file_insertion_enabled = settings.raw_enabled = False
    return settings


def _read_role(rawsource: str, text: str, role: str, lineno: int) -> tuple[list[nodes.Node], list[nodes.Node]]:
    """Return (the words of `text`, whatever its role is; no messages)."""
    words = nodes.unescape(text)
    title, _, target = words.rpartition("<")
    if title and target.find(">") == len(target) - 1:
        words = title.rstrip()
    elif role and words.startswith("~"):
        words = words.rpartition(".")[2].lstrip("~")
    return [nodes.inline(rawsource, words.removeprefix("!") if role else words)], []


class _Changed(states.RSTState if TYPE_CHECKING else object):  # type: ignore[misc]  # docutils has no types
    """The methods that are not as in docutils. `STATES` adds them to all of its states."""

    nested_sm_cache: list[Any] = []  # docutils keeps state machines here to use them again

    def __init__(self, state_machine: Any, debug: bool = False) -> None:
        super().__init__(state_machine, debug)
        self.nested_sm_kwargs = {"state_classes": STATES, "initial_state": "Body"}

    def nested_parse(self, *args: Any, **options: Any) -> Any:
        return self._deeper(super().nested_parse, args, options)

    def nested_list_parse(self, *args: Any, **options: Any) -> Any:
        return self._deeper(super().nested_list_parse, args, options)

    def _deeper(self, parse: Any, args: Any, options: Any) -> Any:
        self.memo.depth = getattr(self.memo, "depth", 0) + 1
        if self.memo.depth > MAX_DEPTH:
            raise ValueError(f"blocks are nested more than {MAX_DEPTH} deep")
        result = parse(*args, **options)
        self.memo.depth -= 1
        return result

    def section(self, title: str, source: str, style: Any, lineno: int, messages: Any) -> None:
        """Add a title. Sections are not nested, so that none is lost."""
        words, _ = self.inline_text(title, lineno)
        self.parent += nodes.title(title, "", *words)

    def table(self, isolate: Any, parser_class: Any) -> tuple[list[nodes.Node], bool]:
        _, _, blank_finish = isolate()
        return [], blank_finish

    def enumerator(self, match: Any, context: Any, next_state: Any) -> Any:
        size = len(self.parent)
        result = super().enumerator(match, context, next_state)
        for node in self.parent[size:]:
            if isinstance(node, nodes.enumerated_list):
                node["first"] = match.group().strip()
        return result

    def directive(self, match: Any, **presets: Any) -> tuple[list[nodes.Node], bool]:
        name = match.group(1).lower()
        machine = self.state_machine
        block, _, offset, blank_finish = machine.get_first_known_indented(match.end(), strip_top=0)
        if "alt" in presets:  # the definition of a substitution
            words = " ".join(block).strip() if name == "replace" else ""
            return self.inline_text(words, machine.abs_line_number())[0] or [nodes.inline()], blank_finish
        text = nodes.container()
        if name not in LEFT_OUT:
            self._parse_text(name, block, offset, text)
        return [text], blank_finish or machine.is_next_line_blank()

    def _parse_text(self, name: str, block: Any, offset: int, text: nodes.container) -> None:
        """Parse the text of a directive: its first words, if they are text, and what follows its options."""
        while block and not block[0].strip():
            block, offset = block[1:], offset + 1
        first = next((i for i, line in enumerate(block) if not line.strip()), len(block))  # lines before a blank one
        options = next((i for i in range(first) if _OPTION.match(block[i])), first)
        if name in VERSIONS and options:
            block[0] = block[0].partition(" ")[2].lstrip()
        elif name in WITH_NAMES or ":" in name:
            self.nested_parse(block[first:], offset + first, text)
            return
        if options == first:
            self.nested_parse(block, offset, text)
        else:
            self.nested_parse(block[:options], offset, text)
            self.nested_parse(block[first:], offset + first, text)


_Changed.explicit = states.Struct(
    patterns=states.Body.explicit.patterns,
    constructs=[
        (_Changed.directive if method is states.Body.directive else method, pattern)
        for method, pattern in states.Body.explicit.constructs
    ],
)
STATES = tuple(type(state.__name__, (_Changed, state), {}) for state in states.state_classes)
