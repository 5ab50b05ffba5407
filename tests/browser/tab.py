"""A page of Chromium as a test uses it."""

import shutil
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Error, Page, Playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

REBOUND = "rebound.example"
"""A name of somebody else that leads to this machine, in the Chromium of the tests."""
BUSY = """() => document.readyState !== 'complete' ||
  document.querySelector('.htmx-request, meta[http-equiv=refresh]') !== null"""


def launch(tools: Playwright) -> Browser:
    """Start the system's Chromium without a window. It finds no machine but this one."""
    names = f"MAP {REBOUND} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    flags = ["--no-sandbox", "--disable-background-networking", f"--host-resolver-rules={names}"]
    return tools.chromium.launch(executable_path=CHROMIUM, args=flags)


class Tab:
    """A page of Chromium that keeps everything that went wrong in it."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.faults: list[str] = []
        page.on("console", lambda one: one.type in ("error", "warning") and self.faults.append(one.text))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("request", lambda one: urlsplit(one.url).port == urlsplit(address).port or self.faults.append(one.url))

    def open(self, path: str) -> int:
        """Show a page, and return the status of the answer. path: below the token."""
        answer = self.page.goto(self.address + path)
        self.settle()
        return answer.status

    def settle(self) -> None:
        """Wait until the page asks for nothing more."""
        quiet = 0
        while quiet < 3:
            try:
                quiet = 0 if self.page.evaluate(BUSY) else quiet + 1
            except Error:  # the page is being loaded again
                quiet = 0
            self.page.wait_for_timeout(20)

    def click(self, selector: str) -> None:
        self.page.click(selector)
        self.settle()

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)
        self.settle()

    @property
    def text(self) -> str:
        """What the main part of the page shows."""
        return self.page.inner_text("main")

    @property
    def path(self) -> str:
        return self.page.url.removeprefix(self.address)
