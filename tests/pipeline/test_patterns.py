"""No regular expression of the pipeline takes quadratic time on a long run of one character."""

import importlib
import itertools
import pkgutil
import re
import time

import pipeline

RUNS = [
    *" \t\n\r\v\x1f\xa0\u3000\u2003'\"aA1éか中。.!?,;:()[]{}<>|/\\_-#=&*+",
    "\r\n",
    "\n ",
    ". ",
    "a.",
    "[[",
    "-{",
    "}-",
    "'' ",
    '="',
    ": ",
    "import a from 'b' ",
]
BEFORE = ["", "#a", "(", "__", "<a ", '="', "---\n"]
# searched at one place of a text only
ANCHORED = (
    *("._REDIRECT", "._LEADING_BLANK_LINES", "._BLANK_LINE", "._SPACE", "._LOCALE", "._LANGUAGE", "advice._TITLE"),
    "records._FIRST_BLANK_LINES",
    *("wikiextractor._BEGIN", "wikiextractor._BEGINNING", "wikiextractor._END", "wikiextractor._JSON"),
)
LENGTH = 8_000


def patterns() -> dict[str, re.Pattern]:
    """Return the compiled expressions of all modules of the pipeline, also those in tuples."""
    found = {}
    for module in pkgutil.walk_packages(pipeline.__path__, "pipeline."):
        for name, value in vars(importlib.import_module(module.name)).items():
            rows = value if isinstance(value, tuple) else [value]
            for part in itertools.chain.from_iterable(row if isinstance(row, tuple) else [row] for row in rows):
                if isinstance(part, re.Pattern):
                    found[f"{module.name}.{name}: {part.pattern!r}"] = part
    return found


def seconds(name: str, pattern: re.Pattern, text: str) -> float:
    subject = text.encode() if isinstance(pattern.pattern, bytes) else text
    start = time.process_time()
    pattern.fullmatch(subject)
    pattern.match(subject)
    if not name.partition(":")[0].endswith(ANCHORED):
        for _ in pattern.finditer(subject):
            pass
    return time.process_time() - start


def test_expressions_take_time_in_proportion_to_a_run_of_one_character():
    """A quadratic one takes four times as long for twice the run; a fast one is not compared, because clocks are coarse."""
    found = patterns()
    assert len(found) > 25
    quadratic = set()
    for name, pattern in found.items():
        for run in RUNS:
            for before in BEFORE:
                text, half = (before + run * (length // len(run)) + "x" for length in (LENGTH, LENGTH // 2))
                if seconds(name, pattern, text) > 0.02 and seconds(name, pattern, text) > 3 * seconds(
                    name, pattern, half
                ):
                    quadratic.add(f"{name} on {before!r} and {run!r}")
                    break
    assert not quadratic
