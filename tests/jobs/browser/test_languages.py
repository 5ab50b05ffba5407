"""Every text of a page has a Chinese one, and no Chinese text is left from a page that is gone."""

import ast
import string
import tomllib
from collections.abc import Iterator

import jinja2
import pytest

from jobs.browser.pages import HERE, chinese_texts, language_of
from jobs.browser.sections import SECTIONS

ROOT = HERE.parents[1]
TEMPLATES = sorted((HERE / "templates").glob("*.j2"))
MODULES = sorted(HERE.rglob("*.py"))


def texts_of_templates(called: str = "_") -> Iterator[tuple[str, str]]:
    """(file, text) of every text that a template translates."""
    for path in TEMPLATES:
        tree = jinja2.Environment().parse(path.read_text("utf-8"))
        for call in tree.find_all(jinja2.nodes.Call):
            if isinstance(call.node, jinja2.nodes.Name) and call.node.name == called and call.args:
                for text in call.args[0].find_all(jinja2.nodes.Const) if _is_choice(call.args[0]) else call.args[:1]:
                    if isinstance(text, jinja2.nodes.Const):
                        yield path.name, text.value


def _is_choice(node: jinja2.nodes.Node) -> bool:
    return isinstance(node, jinja2.nodes.CondExpr)


def texts_of_modules() -> Iterator[tuple[str, str]]:
    """(file, text) of every text that a module translates."""
    for path in MODULES:
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            place = {"translate": 1, "say": 0}.get(getattr(getattr(call, "func", None), "id", ""))
            if isinstance(call, ast.Call) and place is not None and len(call.args) > place:
                given = call.args[place]
                for text in ast.walk(given) if isinstance(given, ast.IfExp) else [given]:
                    if isinstance(text, ast.Constant) and isinstance(text.value, str):
                        yield path.name, text.value


def constants() -> set[str]:
    """Every string of templates and modules: a text may come from a table, such as the names of labels."""
    found = set()
    for path in TEMPLATES:
        found |= {one.value for one in jinja2.Environment().parse(path.read_text("utf-8")).find_all(jinja2.nodes.Const)}
    for path in (path for package in ("jobs", "pipeline", "model") for path in (ROOT / package).rglob("*.py")):
        found |= {node.value for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Constant)}
    return {text for text in found if isinstance(text, str)}


def test_every_text_of_a_page_has_a_chinese_one():
    texts = [*texts_of_templates(), *texts_of_modules(), *((section.name, section.title) for section in SECTIONS)]
    assert len(texts) > 20
    assert [(file, text) for file, text in texts if text not in chinese_texts()] == []


def test_every_chinese_text_is_used():
    known = constants()
    assert [text for text in chinese_texts() if text not in known] == []


def names_in(text: str) -> list[str | None]:
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name is not None)


def test_a_chinese_text_has_the_values_of_the_english_one_and_is_written_in_chinese():
    for english, chinese in chinese_texts().items():
        assert names_in(english) == names_in(chinese), (english, chinese)
        assert any("一" <= letter <= "鿿" for letter in chinese) or not english.isascii() or chinese == english


def test_a_text_has_one_chinese_text():
    found: dict[str, tuple[str, str]] = {}
    for path in sorted((HERE / "chinese").glob("*.toml")):
        for english, chinese in tomllib.loads(path.read_text("utf-8")).items():
            assert found.setdefault(english, (path.name, chinese))[1] == chinese, (english, path.name, found[english])


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("zh-Hans-SG", "zh"),
        ("en-GB,zh;q=0.5", "en"),
        ("en;q=0.3,zh;q=0.9", "zh"),
        ("de, zh;q=0.4", "zh"),
        ("de,fr;q=0.9", "en"),
        ("*", "en"),
        ("", "en"),
        ("zh;q=0", "en"),
        ("zh;q=x,en;q=", "en"),
        ("z" * 10_000, "en"),
    ],
)
def test_the_language_of_a_page_is_the_one_that_the_browser_prefers(header, language):
    assert language_of(header) == language
