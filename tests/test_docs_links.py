"""The pages of the documentation are in the navigation of the site, and each of their links leads to a file and a heading.

`make docs` checks the links of the built site, too. This needs no mkdocs.
"""

import re
from collections import Counter
from pathlib import Path
from posixpath import normpath

import pytest
import yaml

ROOT = Path(__file__).parent.parent
DOCS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md"))
OTHERS = [
    path.relative_to(ROOT).as_posix() for pattern in ("*.md", "benchmarks/results/*.md") for path in ROOT.glob(pattern)
]
PAGES = [*DOCS, *sorted(OTHERS), "jobs/sample/README.md"]
CHINESE = [page for page in PAGES if page.endswith(".zh-CN.md")]


def text_of(page: str) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^ *(```+).*?^ *\1$", "", (ROOT / page).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def links(page: str) -> list[tuple[str, str]]:
    """Return the file and the anchor of each link to this repository."""
    text = re.sub(r"`[^`\n]*`", "", text_of(page))
    found = re.findall(r"\]\(([^()\s#]*)(?:#([^()\s]*))?\)", text)
    folder = page.rpartition("/")[0] or "."
    return [(normpath(f"{folder}/{path}") if path else page, anchor) for path, anchor in found if "://" not in path]


def anchors(page: str) -> set[str]:
    """Return the anchors of headings that occur once: the site and the view of a repository number others differently."""
    slugs = Counter()
    for heading in re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        slugs[re.sub(r"[^\w\- ]", "", words).strip().lower().replace(" ", "-")] += 1
    return {slug for slug, number in slugs.items() if number == 1}


def navigation() -> list[str]:
    """Return the pages in the navigation of the site."""

    def pages(entry):
        match entry:
            case str():
                yield entry
            case dict():
                yield from pages(list(entry.values()))
            case list():
                for one in entry:
                    yield from pages(one)

    return list(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]))


def test_links_and_anchors_are_read_as_github_reads_them(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.md").write_text(
        "# A `b-c`: d, [e](f.md)\n## 两 页\n## Twice\n## Twice\n`[x](code.md)`\n```\n[y](block.md)\n# no heading\n```\n"
        "![z](z.png) [r](../README.md#s) [self](#两-页) [w](https://example.com/w.md)\n",
        "utf-8",
    )
    assert links("docs/a.md") == [("docs/f.md", ""), ("docs/z.png", ""), ("README.md", "s"), ("docs/a.md", "两-页")]
    assert anchors("docs/a.md") == {"a-b-c-d-e", "两-页"}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_and_a_heading(page):
    absent = [path for path, _ in links(page) if not (ROOT / path).is_file()]
    assert absent == []
    assert [f"{path}#{anchor}" for path, anchor in links(page) if anchor and anchor not in anchors(path)] == []


def test_every_page_is_in_the_navigation_once():
    named = navigation()
    assert [page for page, number in Counter(named).items() if number > 1 or not (ROOT / page).is_file()] == []
    assert set(DOCS) - set(named) == set()


@pytest.mark.parametrize("page", PAGES)
def test_a_list_follows_an_empty_line(page):
    """Without it, the site shows the list as one paragraph."""
    lines = text_of(page).splitlines()
    item, before_item = re.compile(r" *([-*+]|\d+\.) "), re.compile(r" *([-*+]|\d+\.) | {2,}\S|#|$")
    assert [line for before, line in zip(lines, lines[1:]) if item.match(line) and not before_item.match(before)] == []


@pytest.mark.parametrize("page", CHINESE)
def test_a_chinese_page_and_its_english_counterpart_link_to_each_other(page):
    english = page.replace(".zh-CN.md", ".md")
    assert english in {path for path, _ in links(page)}
    assert page in {path for path, _ in links(english)}


def test_every_benchmark_and_its_result_is_on_the_page_of_benchmarks():
    listed = {path for path, _ in links("docs/benchmarks.md")}
    present = [path for pattern in ("*.py", "*.sh", "results/*.md") for path in (ROOT / "benchmarks").glob(pattern)]
    assert {
        path.relative_to(ROOT).as_posix() for path in present if not path.stem.endswith("-sample")
    } - listed == set()
