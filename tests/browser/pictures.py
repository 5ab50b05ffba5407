"""Takes pictures of pages of `bertloom browse`, to look at them; two of them are in docs/.

    python -m tests.browser.pictures OUT DATASET RUN -- d0/examples r0/curves

It writes OUT/NUMBER-LANGUAGE-WIDTH-THEME.png for each page, both languages, widths and themes. A name before a page, as in
`docs/browse=d0/examples`, gives one picture of this name, in colours that make a small file, for the documentation.
`docs/browse.zh-CN=…` is in Chinese.
"""

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from tests.browser.tab import Tab, launch
from tests.jobs.browser.served import served

SIZE = {"width": 1200, "height": 750}
COLOURS = 64


def take(
    browser: Browser, address: str, page: str, language: str, theme: str, size: dict[str, int], whole: bool
) -> bytes:
    """Return a picture of a page."""
    context = browser.new_context(viewport=size, locale=language, color_scheme=theme)
    tab = Tab(context.new_page(), address)
    tab.open(page)
    tab.page.wait_for_timeout(500)  # a chart is drawn after its page
    picture = tab.page.screenshot(full_page=whole)
    print(page, language, size["width"], theme, *tab.faults)
    context.close()
    return picture


def main(words: list[str]) -> None:
    place = words.index("--")
    out, targets, pages = Path(words[0]), words[1:place], words[place + 1 :]
    with served(*targets) as running, sync_playwright() as tools:
        browser = launch(tools)
        for number, page in enumerate(pages):
            name, _, address = page.partition("=") if page.startswith("docs/") else ("", "", page)
            if name:
                language = "zh-CN" if name.endswith(".zh-CN") else "en-GB"
                picture = take(browser, running.address, address, language, "light", SIZE, whole=False)
                image = Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
                image.save(f"{name}.png", optimize=True)
                continue
            for language in ("en-GB", "zh-CN"):
                for width in (1600, 400):
                    for theme in ("light", "dark"):
                        size = {"width": width, "height": 900}
                        picture = take(browser, running.address, address, language, theme, size, whole=True)
                        (out / f"{number}-{language}-{width}-{theme}.png").write_bytes(picture)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
