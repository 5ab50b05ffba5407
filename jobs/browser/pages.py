"""Templates, languages, and what every page has: navigation, title, scripts.

A template extends `base.html.j2`. It has `root` (the beginning of every address), `key` and `target` (the data set or run
of the page), `sections` (of its kind), `current` (the section of the page), `first_pages` (of each kind), `request`, and
`_`, which translates an English text. All values are escaped.
"""

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from jobs.browser.data_set import BrowsedDataSet
from jobs.browser.models import BrowsedModel
from jobs.browser.query import whole_number
from jobs.browser.run import BrowsedRun

HERE = Path(__file__).parent


class Pages:
    """The templates in both languages."""

    def __init__(self, token: str) -> None:
        self.root = f"/{token}"
        self.environments = {language: _environment(language) for language in ("en", "zh")}


def _environment(language: str) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["percent"] = lambda share: "< 0.1 %" if share < 0.0005 else f"{100 * share:.1f} %"
    environment.globals["_"] = chinese_of if language == "zh" else english_of
    environment.globals["language"] = language
    return environment


def english_of(text: str, **values: Any) -> str:
    """Return a text with its `{names}` replaced by values."""
    return text.format(**values) if values else text


def chinese_of(text: str, **values: Any) -> str:
    """Return the Chinese text of an English one. A text without one, such as a name from a file, stays as it is."""
    return english_of(chinese_texts().get(text, text), **values)


@cache
def chinese_texts() -> dict[str, str]:
    """Return the Chinese text of each English text. One file per page holds them."""
    found: dict[str, str] = {}
    for path in sorted((HERE / "chinese").glob("*.toml")):
        for english, chinese in tomllib.loads(path.read_text(encoding="utf-8")).items():
            assert found.setdefault(english, chinese) == chinese, (path.name, english)
    return found


def language_of(accept_language: str) -> str:
    """Return the language of a page: "zh" if the browser prefers Chinese to English, else "en".

    >>> language_of("zh-CN,zh;q=0.9,en;q=0.8"), language_of("en-GB,zh;q=0.5"), language_of("de, zh;q=0.4"), language_of("")
    ('zh', 'en', 'zh', 'en')
    """
    qualities = {"en": 0.0, "zh": 0.0}
    for name, quality in re.findall(r"\b(en|zh)\b[\w-]*\s*(?:;\s*q=([01](?:\.\d{0,3})?))?", accept_language.lower()):
        qualities[name] = max(qualities[name], float(quality or 1))
    return "zh" if qualities["zh"] > qualities["en"] else "en"


def render(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """Return a page, or a part of one, from a template in the language of the browser.

    The template of a part has no blocks. htmx gets the part alone. A browser that follows a link to it gets it in a page.
    """
    pages: Pages = request.app.state.pages
    targets = request.app.state.targets
    key = request.path_params.get("key", "")
    sections = [section for section in request.app.state.sections if key[:1] in [*section.of]]
    endpoint = request.scope.get("endpoint")
    context = {
        "root": pages.root,
        "request": request,
        "targets": targets,
        "key": key,
        "target": targets.data_sets.get(key) or targets.runs.get(key) or targets.models.get(key),
        "sections": sections,
        "first_pages": request.app.state.first_pages,
        "current": next((one for one in sections if endpoint in [function for _, function in one.routes]), None),
    }
    language = language_of(request.headers.get("accept-language", ""))
    found = pages.environments[language].get_template(template)
    if not found.blocks and "hx-request" not in request.headers:
        found, values = pages.environments[language].get_template("part.html.j2"), {"part_template": template} | values
    return HTMLResponse(found.render(context | values), status, {"vary": "Accept-Language, HX-Request"})


def translate(request: Request, text: str, **values: Any) -> str:
    """Return a text in the language of the page, for a value that a page computes."""
    is_chinese = language_of(request.headers.get("accept-language", "")) == "zh"
    return chinese_of(text, **values) if is_chinese else english_of(text, **values)


def cut(text: str, most: int) -> str:
    """Return a text of any origin, with at most this number of characters."""
    return text if len(text) <= most else f"{text[:most]}…"


def data_set_of(request: Request) -> BrowsedDataSet:
    """Return the data set of a page; 404 if there is none of this key."""
    found: BrowsedDataSet | None = request.app.state.targets.data_set(request.path_params["key"])
    if found is None:
        raise HTTPException(404, f"the data set {request.path_params['key']} does not exist")
    return found


def run_of(request: Request) -> BrowsedRun:
    """Return the run of a page; 404 if there is none of this key."""
    found: BrowsedRun | None = request.app.state.targets.runs.get(request.path_params["key"])
    if found is None:
        raise HTTPException(404, f"the run {request.path_params['key']} does not exist")
    return found


def model_of(request: Request) -> BrowsedRun | BrowsedModel:
    """Return the run or the folder of a model of a page; 404 if there is none of this key."""
    found: BrowsedModel | None = request.app.state.targets.models.get(request.path_params["key"])
    return found or run_of(request)


def number_of(request: Request, name: str, default: int, least: int, most: int) -> int:
    """Return a whole number from the query of an address; ValueError if it is not a number from `least` to `most`."""
    text = request.query_params.get(name, "")
    return whole_number(name, text, least, most) if text else default
