"""The shell commands and the Python of the documentation, page by page, in the order in which a reader meets them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROMPT = re.compile(r"^(?:[a-z]+)?\$ ")
PROGRAMS = frozenset(
    "bertloom torchrun pip python3 make mkdir cp cd curl wget export sbatch kubectl gcloud docker dask ssh".split()
)
"""Programs that begin a block of commands without prompts."""
SHELL = ("bash", "sh")


@dataclass(frozen=True)
class Command:
    """A command as a page shows it: one line, however many the page needs for it."""

    page: str
    line: int
    text: str
    shown: tuple[str, ...] = ()
    """What the page shows below it."""

    @property
    def is_plain(self) -> bool:
        """Whether it is `bertloom` with its words alone, so that no shell is needed."""
        return self.text.startswith("bertloom ") and not re.search(r"[|;&<>$]", self.text)

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


@dataclass(frozen=True)
class Python:
    """A block of Python."""

    page: str
    line: int
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.code[:60]!r}"


def pages() -> list[str]:
    """The names of all pages: the READMEs and docs/."""
    return ["README.md", "README.zh-CN.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


def commands(page: str) -> list[Command]:
    """Every command in the code blocks of a page."""
    return [
        command for line, language, block in _blocks(page) for command in commands_of_block(page, line, language, block)
    ]


def python(page: str) -> list[Python]:
    """Every block of Python of a page."""
    return [Python(page, line, block) for line, language, block in _blocks(page) if language == "python"]


def commands_of_block(page: str, line: int, language: str, block: str) -> Iterator[Command]:
    """The commands of a block: the lines with a prompt, or all lines where the first line is a command."""
    lines = list(_whole_lines(block, line))
    if any(PROMPT.match(text) for _, text in lines):
        yield from _session(page, lines)
        return
    lines = [(at, text) for at, text in lines if text and not text.startswith("#")]
    is_function = "() {" in block  # of the shell, not a list of commands
    if not is_function and (language in SHELL or (not language and lines and _is_command(lines[0][1]))):
        yield from (Command(page, at, text) for at, text in lines)


def toml(page: str) -> list[str]:
    """Every block of TOML of a page."""
    return [block for _, language, block in _blocks(page) if language == "toml"]


def rows(page: str) -> list[str]:
    """Every block of CSV with texts and labels of a page."""
    return [block for _, _, block in _blocks(page) if block.startswith("text,label\n")]


def lines_of_blocks(page: str) -> list[str]:
    """The lines of all code blocks of a page."""
    return [text for _, _, block in _blocks(page) for text in block.splitlines()]


def _blocks(page: str) -> Iterator[tuple[int, str, str]]:
    text = (ROOT / page).read_text("utf-8")
    for found in FENCE.finditer(text):
        yield text[: found.start(2)].count("\n") + 1, found[1], found[2]


def _whole_lines(block: str, line: int) -> Iterator[tuple[int, str]]:
    """Lines with their numbers; those that a backslash or a pipe continues are one."""
    whole, first = "", line
    for number, text in enumerate(block.splitlines(), line):
        first = first if whole else number
        whole += text.removesuffix("\\") if not whole else text.removesuffix("\\").strip()
        is_command = PROMPT.match(whole) or _is_command(whole)
        if is_command and text.endswith(("\\", "|")):
            whole = whole.rstrip() + " "
            continue
        yield first, whole.rstrip()
        whole = ""
    assert not whole, f"the last line of the block at line {line} is not complete"


def _is_command(text: str) -> bool:
    words = text.split()
    while words and re.match(r"^[A-Z_]+=", words[0]):  # variables before the program
        words = words[1:]
    has_message = len(words) > 1 and words[1].endswith(":")  # `bertloom preprocess: 3 files`
    return (
        bool(words) and (words[0] in PROGRAMS or words[0].startswith((".venv/bin/", "benchmarks/"))) and not has_message
    )


def _session(page: str, lines: list[tuple[int, str]]) -> Iterator[Command]:
    starts = [number for number, (_, text) in enumerate(lines) if PROMPT.match(text)]
    for start, end in zip(starts, [*starts[1:], len(lines)]):
        at, text = lines[start]
        shown = tuple(text for _, text in lines[start + 1 : end])
        yield Command(page, at, PROMPT.sub("", text), shown)
