"""Markdown files: a file is a document, and each of its blocks a paragraph. markdown-it-py parses them.

Headings, list items, quotations, notes and the texts of links stay. Front matter, code, displayed formulas, tables, pictures
and mark-up are left out; of HTML, the text stays. Besides CommonMark it reads tables, footnotes, task lists, the notes of
GitHub, MkDocs, Pandoc and MyST, `$formulas$`, and the short codes of Hugo and Jekyll. A file without any mark-up keeps its
text as it is.
"""

import html
import re
from collections.abc import Iterator, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from pipeline.inputs.formats.format import Format
from pipeline.inputs.formats.whole_texts import read_mark_up
from pipeline.text.records import join_text_lines

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_block import StateBlock
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

MAX_DEPTH = 40  # of nested blocks; a list in a list is two. The parser would drop what is deeper
MAX_NOTES = 5  # of MyST, in each other
MAX_LINES = 200_000  # a line may be a block, which takes 2 KB
MAX_BRACKETS = 50_000  # one that is never closed takes up to 0.3 ms
MAX_MARKS = 500_000  # other characters that may be mark-up, which take up to 20 µs
MAX_EMPHASIS = 20_000  # marks of emphasis between two blank lines; the parser compares each with all before it

_MARKS = "*_`~<&$\\!{|"
_FRONT_MATTER = re.compile(
    r"---[ \t]*\n(?:\s*\n)?(?:[\w\"'-](?:[^\n:]|:(?![ \t\n]))*+:[^\n]*+\n|#[^\n]*+\n)"
    r"(?:.*?\n)??(?:---|\.\.\.)[ \t]*(?:\n|\Z)"
    r"|---[ \t]*\n---[ \t]*(?:\n|\Z)"
    r"|\+\+\+[ \t]*\n(?:.*?\n)??\+\+\+[ \t]*(?:\n|\Z)",
    re.DOTALL,
)
_BLANK_LINES = re.compile(r"\n\s*\n")
_SHORT_CODE = re.compile(r"\{(?:\{[<%][^{}]{0,1000}[%>]\}\}|%[^{}]{0,1000}%\})")
_ATTRIBUTES = re.compile(r"(?<!\s)\s*+\{(?:[#:]|\.[A-Za-z])[^{}]*\}\s*\Z")  # {#name}, {.class}, {: .class}
_MYST_NOTE = re.compile(
    r"\{(?:admonition|note|warning|tip|important|caution|attention|danger|error|hint|seealso|todo|dropdown|margin|sidebar|topic"
    r"|epigraph|versionadded|versionchanged|deprecated)\}"
)
_MYST_OPTIONS = re.compile(r"\A(?:\s*:[\w-]+:[^\n]*\n)+")
_IMPORTS = re.compile(r"(?:import\s[^\n]*\sfrom\s+(?:\"[^\"\n]*\"|'[^'\n]*');?\s*)++")
_HIDDEN_HTML = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style|pre|svg|table|textarea)\b.*?(?:</\1\s*>|\Z)", re.DOTALL | re.IGNORECASE
)
_END_OF_BLOCK = re.compile(r"<(?:br|hr)\b[^<>]*>|</(?:p|div|li|h[1-6]|summary|details|dt|dd|blockquote)\s*>", re.I)
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|<[!?][^<>]*>")
# CommonMark does not see the end, or the beginning, of bold text with a full-width mark there
_WIDE_BOLD = re.compile(r"\*\*(?=\S)((?:[^*]*[、-〟！-）：-＠’”])|[、-〟！-）：-＠‘“][^*]*)(?<=\S)\*\*")
_INTERRUPTED = ["paragraph", "reference", "blockquote", "list"]  # by the beginning of a block
_LEFT_OUT = {"table_open": 1, "table_close": -1, "alert_title_open": 1, "alert_title_close": -1}


def text_of_markdown(source: str, depth: int = 0) -> str:
    """Return the paragraphs, separated by blank lines. Raises ValueError for a page that takes too long.

    depth: number of MyST's notes around it, whose text is parsed again.
    """
    if depth > MAX_NOTES:
        raise ValueError(f"notes are nested more than {MAX_NOTES} deep")
    front_matter = _FRONT_MATTER.match(source)
    source = source[front_matter.end() :] if front_matter else source
    for what, number, most in (
        ("lines", source.count("\n"), MAX_LINES),
        ("brackets", source.count("["), MAX_BRACKETS),
        ("marks", sum(map(source.count, _MARKS)), MAX_MARKS),
        ("marks of emphasis in a row", _most_emphasis(source), MAX_EMPHASIS),
    ):
        if number > most:
            raise ValueError(f"{number} {what}, the limit is {most}")
    env: dict[str, Any] = {}
    tokens = _parser().parse(source, env)
    if any(token.nesting == 1 and token.level >= MAX_DEPTH - 1 for token in tokens):
        raise ValueError(f"blocks are nested {MAX_DEPTH} deep or deeper")
    if not env.get("references") and _is_plain(tokens):
        text = "\n\n".join(part.replace("\n", "\r") for part in _BLANK_LINES.split(source.strip("\n")))
    else:
        text = "\n\n".join(_paragraphs(tokens, depth))
    return join_text_lines(text.encode()).decode()


def _most_emphasis(source: str) -> int:
    if source.count("*") + source.count("_") + source.count("~") <= MAX_EMPHASIS:
        return 0
    return max(sum(map(part.count, "*_~")) for part in _BLANK_LINES.split(source))


@cache
def _parser() -> "MarkdownIt":
    from markdown_it import MarkdownIt
    from mdit_py_plugins.admon import admon_plugin
    from mdit_py_plugins.dollarmath import dollarmath_plugin
    from mdit_py_plugins.footnote import footnote_plugin

    parser = MarkdownIt("commonmark", {"maxNesting": MAX_DEPTH, "tasklists": True, "alerts": True})
    parser.enable(["table", "strikethrough"])
    parser.use(admon_plugin)
    parser.block.ruler.at("admonition", _admonition, {"alt": _INTERRUPTED})
    parser.use(dollarmath_plugin, allow_space=False, allow_digits=False, allow_blank_lines=False)
    parser.use(footnote_plugin, inline=False, move_to_end=False)
    parser.block.ruler.before("fence", "container", _container, {"alt": _INTERRUPTED})
    parser.inline.ruler.before("link", "short_code", _short_code)
    return parser


def _admonition(state: "StateBlock", start: int, end: int, silent: bool) -> bool:
    """Read a `!!! note`. Without an indented text it is a line of text, such as "!!! Wow"."""
    from mdit_py_plugins.admon.index import admonition

    text = start + 1
    while text < end and state.isEmpty(text):
        text += 1
    return text < end and state.sCount[text] >= state.sCount[start] + 4 and admonition(state, start, end, silent)


def _container(state: "StateBlock", start: int, end: int, silent: bool) -> bool:
    """Read a line that begins or ends a `:::` block, whose lines are read as any others."""
    line = state.src[state.bMarks[start] + state.tShift[start] : state.eMarks[start]]
    if state.is_code_block(start) or not line.startswith(":::"):
        return False
    if not silent:
        state.line = start + 1
        token = state.push("container", "", 0)
        token.info = line.lstrip(":")
    return True


def _short_code(state: "StateInline", silent: bool) -> bool:
    code = _SHORT_CODE.match(state.src, state.pos)
    if not code:
        return False
    state.pos = code.end()
    if not silent:
        state.push("short_code", "", 0)
    return True


def _is_plain(tokens: Sequence["Token"]) -> bool:
    """Return whether there is no mark-up. Then indented blocks are text, too."""
    for token in tokens:
        if token.type == "inline":
            children = token.children or []
            if any(child.type not in ("text", "softbreak", "hardbreak") for child in children):
                return False
            if token.content.split() != _inline_text(children).split():
                return False
        elif token.type not in ("paragraph_open", "paragraph_close", "code_block"):
            return False
    return True


def _paragraphs(tokens: Sequence["Token"], depth: int) -> Iterator[str]:
    hidden = 0
    numbers: list[tuple[int, int]] = []  # of each list that is open: the first number, and the next
    item = ""  # the number of a list item that has no text yet
    title = ""  # of an admonition that does not give one
    for token in tokens:
        hidden += _LEFT_OUT.get(token.type, 0)
        if token.type in ("ordered_list_open", "bullet_list_open"):
            first = int(token.attrs.get("start", 1))
            numbers.append((first, first) if first < 2 else (0, 0))
        elif token.type in ("ordered_list_close", "bullet_list_close"):
            numbers.pop()
        elif token.type == "list_item_open":
            first, following = numbers[-1]
            # a number that does not count from 0 or 1 is text, as in "1986. A great year."
            item = "" if not token.info or int(token.info) in (first, following) else f"{token.info}{token.markup} "
            numbers[-1] = first, following + 1
        elif token.type == "admonition_open":
            title = token.info.split()[0].title() if token.info.split() else ""
        elif token.type == "container":
            name, _, words = token.info.strip().partition(" ")
            if words.strip() and "{" not in token.info:
                yield words.strip()
        elif token.type == "html_block":
            yield from _html_paragraphs(token.content)
        elif token.type == "fence" and (note := _MYST_NOTE.match(token.info)):
            if token.info[note.end() :].strip():
                yield token.info[note.end() :].strip()
            yield from filter(None, [text_of_markdown(_MYST_OPTIONS.sub("", token.content), depth + 1)])
        elif token.type == "inline" and not hidden and token.content != title:
            text = _ATTRIBUTES.sub("", _inline_text(token.children or []))
            if text.strip() and not _IMPORTS.fullmatch(token.content):
                yield item + text
                item = ""
        if token.type == "inline":
            title = ""


def _inline_text(tokens: Sequence["Token"]) -> str:
    parts: list[str] = []
    left_out = False  # whether what comes after the last part was left out
    products: list[bool] = []  # of each mark of emphasis that is open: whether it is a sign, as in 2*3*4
    for token in tokens:
        if token.type == "softbreak":
            text = "\r"
        elif token.type == "hardbreak" or (token.type == "html_inline" and token.content.lower().startswith("<br")):
            text = "\n"
        elif token.type == "math_inline":
            text = f"{token.markup}{token.content}{token.markup}"
        elif token.type == "code_inline":
            text = token.content
        elif token.type == "text":
            text = _WIDE_BOLD.sub(r"\1", token.content)
        elif token.type == "em_open":
            products.append(bool(parts) and parts[-1][-1:].isdigit())
            text = "*" if products[-1] else ""
        elif token.type == "em_close":
            text = "*" if products.pop() else ""
        else:
            left_out = left_out or token.type in ("image", "footnote_ref", "short_code")
            continue
        if not text:
            continue
        if left_out and (not parts or parts[-1][-1:].isspace()):
            text = text.lstrip()
        left_out = False
        parts.append(text)
    return "".join(parts)


def _html_paragraphs(block: str) -> Iterator[str]:
    text = _TAG.sub("", _END_OF_BLOCK.sub("\n\n", _HIDDEN_HTML.sub("", block)))
    for paragraph in _BLANK_LINES.split(html.unescape(text)):
        if words := paragraph.split():
            yield " ".join(words)


MARKDOWN = Format(
    name="markdown",
    description="Markdown",
    endings=(".md", ".markdown"),
    read=partial(read_mark_up, text_of_markdown),
    is_document=True,
    has_encodings=True,
    versions=("markdown-it-py", "mdit-py-plugins"),
    packages=("markdown_it", "mdit_py_plugins"),
)
