"""Pages of `bertloom browse` as a test reads them: requested without a server, with their text, links and table rows."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from jobs.browser.app import build_app
from jobs.browser.targets import Targets

TOKEN = "token"
VOID = ("meta", "link", "br", "input", "hr", "img", "wbr")


class Page(HTMLParser):
    """What a page holds. Its tags must be closed in order, and nothing may be a script or a style of its own."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source, self.text = text, ""
        self.links: list[str] = []
        self.asks: list[str] = []
        """Addresses that the page fetches once it is shown."""
        self.rows: list[list[str]] = []
        """The texts of the cells of each row of a table."""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        assert "style" not in found and tag != "style" and not any(name.startswith("on") for name in found)
        assert tag != "script" or found.get("src", "").startswith(f"/{TOKEN}/static/")
        if tag not in VOID:
            self._open.append(tag)
        if "href" in found and tag == "a":
            self.links.append(found["href"] or "")
        if "hx-get" in found:
            self.asks.append(found["hx-get"] or "")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if {"td", "th"}.intersection(self._open):
            self.rows[-1][-1] += data


class Reader:
    """Requests pages of some data sets and runs."""

    def __init__(self, *paths: Path | str, cache_dir: Path | None = None) -> None:
        targets = Targets.open([str(path) for path in paths], cache_dir, 1.0)
        self.client = TestClient(build_app(targets, TOKEN, "127.0.0.1"), base_url="http://127.0.0.1")

    def get(self, path: str, status: int = 200, language: str = "en", part: bool = False) -> Page:
        """Return a page. path: below the token, or a whole one from a link. part: as htmx asks for a part of it."""
        whole = path if path.startswith(f"/{TOKEN}/") else f"/{TOKEN}/{path}"
        headers = {"accept-language": language} | ({"hx-request": "true"} if part else {})
        answer: Any = self.client.get(whole, headers=headers)
        assert answer.status_code == status, answer.text
        return Page(answer.text)

    def whole(self, path: str, language: str = "en") -> Page:
        """Return a page after all that it asks for: while a search goes on, the page asks again."""
        page = self.get(path, language=language)
        for _ in range(1000):
            if not page.asks:
                return page
            page = self.get(page.asks[0], language=language, part=True)
        raise AssertionError(f"{path} asks without end")
