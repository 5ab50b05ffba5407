"""A data set with texts that a page could get wrong, a run on it, `bertloom browse` on both, and Chromium."""

import gzip
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from tests.browser.tab import CHROMIUM, Tab, launch
from tests.jobs.browser.served import Served, served
from tests.jobs.corpus import documents, run_job, vocabulary_words, write

SCRIPT = (
    "<script>document.title = 'taken'</script> <img src=x onerror=\"document.title = 'taken'\"> {{ 7 * 7 }} & &lt;b&gt;"
)
ARABIC = "كان الكتاب على الطاولة. قرأ الولد الكتاب مساء! هل أعجبه؟ نعم. "
HEBREW = "הספר היה על השולחן. הילד קרא את הספר בערב! "
MARKS = [*"<>/='\"{}&;*\\", *"ابتثجحخدذرزسشصضطظعغفقكلمنهويةىء؟", *"אבגדהוזחטיכלמנסעפצקרשתםןץףך"]


@pytest.fixture(scope="session")
def strange(tmp_path_factory) -> Path:
    """A data set: English and Chinese texts, and one each that is HTML, of 4 MB, and written from right to left.

    Some texts are there twice or nearly so, and some records are rejected.
    """
    folder = tmp_path_factory.mktemp("strange")
    words = [*vocabulary_words(), *(f"{mark}{letter}" for letter in MARKS for mark in ("", "##"))]
    vocab = folder / "vocab.txt"
    words = dict.fromkeys([*words, "script", "document", "title"])
    vocab.write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    sentences = [sum(documents(160)[first : first + 4], []) for first in range(0, 160, 4)]
    near = [*sentences[0], "And one sentence more."]
    write(folder / "in/plain.txt", [*sentences, near])
    long = "\n".join("\n".join(text) for text in documents(40, seed=3, chinese=0.0))
    rows = {
        "html": "\n".join(f"{SCRIPT} Number {number}." for number in range(12)),
        "right to left": "\n".join((ARABIC + HEBREW) * 2 for _ in range(8)),
        "long": long * (4_000_000 // len(long) + 1),
        "twice": "\n\n".join(sentences[3]),
        "<b>empty</b>": "",
    }
    lines = [json.dumps({"id": name, "text": text}, ensure_ascii=False) for name, text in rows.items()]
    (folder / "in/strange <i>&.jsonl.gz").write_bytes(gzip.compress("\n".join([*lines, "{<script>", ""]).encode()))
    run_job(
        folder / "in",
        folder / "out",
        vocab,
        max_seq_length=(64,),
        dupe_factor=1,
        near_duplicates=0.8,
        validation_fraction=0.3,
    )
    return folder / "out"


@pytest.fixture(scope="session")
def run(strange, tmp_path_factory) -> Path:
    """A finished run of six steps."""
    from tests.jobs.small_run import make_run

    return make_run(strange, tmp_path_factory.mktemp("runs") / "first")


@pytest.fixture(scope="session")
def server(strange, run) -> Iterator[Served]:
    """Both, in a process of its own."""
    with served(strange, run) as running:
        yield running


@pytest.fixture(scope="session")
def chromium() -> Iterator[object]:
    """The system's Chromium without a window."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    with sync_playwright() as tools:
        browser = launch(tools)
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium, server) -> Iterator[Callable[..., Tab]]:
    """A function that opens a tab, such as `tab(width=400, language="zh-CN", theme="dark")`.

    At the end none may have a fault, but for those with one of the texts that it `expects`.
    """
    opened = []

    def open_tab(
        address: str = "", width: int = 1600, language: str = "en-GB", theme: str = "light", **more: Any
    ) -> Tab:
        expected = more.pop("expects", ())
        size = {"width": width, "height": 900}
        context = chromium.new_context(viewport=size, locale=language, color_scheme=theme, **more)
        context.set_default_timeout(60_000)
        one = Tab(context.new_page(), address or server.address)
        opened.append((context, one, expected))
        return one

    yield open_tab
    for context, _, _ in opened:
        context.close()
    for _, one, expected in opened:
        assert [fault for fault in one.faults if not any(text in fault for text in expected)] == []


@pytest.fixture(scope="session", autouse=True)
def no_process_is_left() -> Iterator[None]:
    """The driver of playwright and Chromium end with the tests."""
    yield
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = entry.read_text(errors="replace").partition("(")[2].rpartition(")")
        except OSError:  # it has ended
            continue
        assert "chrom" not in name or int(rest.split()[1]) != os.getpid(), name
