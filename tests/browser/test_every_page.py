"""What holds for every page: nothing fails in it, it fits its window, and it can be used without a mouse or eyes."""

import re
from collections import deque
from dataclasses import dataclass, field

import pytest

from jobs.browser.sections import SECTIONS
from tests.browser.tab import Tab

LINKS = "Array.from(document.querySelectorAll('main a[href], nav a[href]'), link => link.href)"
MOST_PAGES = 60
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
# What a page lacks for somebody who uses the keyboard or a screen reader.
LACKS = """() => {
  const lacks = [], shown = (one) => one.checkVisibility() && !one.closest('dialog');
  const of = (selector) => Array.from(document.querySelectorAll(selector));
  if (!/^(en|zh-Hans)$/.test(document.documentElement.lang)) lacks.push('lang');
  if (!document.title) lacks.push('title');
  for (const one of ['header', 'main', 'h1']) if (of(one).length !== 1) lacks.push(one);
  let level = 0;
  for (const one of of('h1, h2, h3, h4').filter(shown)) {
    const next = Number(one.tagName[1]);
    if (next > level + 1) lacks.push(`${one.tagName} after H${level}: ${one.textContent}`);
    level = next;
  }
  const ids = of('[id]').map((one) => one.id);
  lacks.push(...ids.filter((id, place) => ids.indexOf(id) !== place).map((id) => `two of #${id}`));
  for (const one of of('input:not([type=hidden]), select, textarea').filter(shown))
    if (!one.labels?.length && !one.ariaLabel) lacks.push(`label of ${one.outerHTML}`);
  for (const one of of('button, a[href]').filter(shown))
    if (!one.textContent.trim() && !one.ariaLabel) lacks.push(`name of ${one.outerHTML}`);
  for (const one of of('main svg, main canvas').filter(shown))
    if (!one.closest('[role=img], [aria-label], [aria-hidden=true], figure, a'))
      lacks.push(`name of ${one.outerHTML.slice(0, 80)}`);
  for (const one of of('nav').filter(shown)) if (!one.ariaLabel) lacks.push('name of nav');
  return lacks;
}"""
# Texts whose colour is too near to that of their background, by WCAG 2 AA.
FAINT = """() => {
  const channels = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => [0.2126, 0.7152, 0.0722].reduce((sum, part, i) => {
    const value = rgb[i] / 255;
    return sum + part * (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  }, 0);
  const found = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let count = 0; walker.nextNode() && count < 3000; count++) {
    const one = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !one.checkVisibility() || one.closest('dialog, .skip, svg, option')) continue;
    const style = getComputedStyle(one);
    let behind = one;
    while (behind && channels(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
    const [a, b] = [channels(style.color), channels(getComputedStyle(behind ?? document.documentElement).backgroundColor)]
      .map(light).sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) found.add(`${one.outerHTML.slice(0, 100)} ${style.color}`);
  }
  return [...found];
}"""


def shape(address: str) -> str:
    """An address with its numbers and names left out: pages with the same shape come from the same code."""
    path, _, query = address.partition("?")
    names = sorted({part.partition("=")[0] for part in query.split("&") if part} - {"after", "before"})
    return re.sub(r"\b[0-9a-f]{16}\b|(?<=/)\d+", "N", path) + "?" + "&".join(names[:1] + names[-1:])


@dataclass
class Crawl:
    """What the links lead to from the first page: one address of each shape, and those that gave no page."""

    addresses: list[str] = field(default_factory=list)
    dead: dict[str, str] = field(default_factory=dict)
    """address -> the page with the link."""


@pytest.fixture(scope="module")
def crawl(chromium, server) -> Crawl:
    tab = Tab(chromium.new_page(), server.address)
    waiting, seen, crawl = deque([(server.address, "")]), {shape(server.address)}, Crawl()
    while waiting:
        address, linked_on = waiting.popleft()
        if tab.open(address.removeprefix(server.address)) != 200:
            crawl.dead[address] = linked_on
            continue
        crawl.addresses.append(address.removeprefix(server.address))
        for link in (link.partition("#")[0] for link in tab.page.evaluate(LINKS)):
            assert link.startswith(server.address), (link, address)
            if shape(link) not in seen and len(seen) < MOST_PAGES:
                seen.add(shape(link))
                waiting.append((link, address))
    tab.page.close()
    return crawl


def test_links_lead_to_every_section(crawl):
    assert {f"{one.of}0/{one.name}" for one in SECTIONS} <= {address.partition("?")[0] for address in crawl.addresses}


@pytest.mark.parametrize(
    ("width", "language", "theme"),
    [(1600, "en-GB", "light"), (1600, "zh-CN", "dark"), (400, "zh-CN", "light"), (400, "en-GB", "dark")],
)
def test_every_page_fits_has_no_error_and_lacks_nothing(crawl, tab, width, language, theme):
    one = tab(width=width, language=language, theme=theme)
    found = {}
    for address in crawl.addresses:
        assert one.open(address) == 200
        found[address] = [
            *one.page.evaluate(LACKS),
            *one.page.evaluate(FAINT),
            *([f"{one.page.evaluate(WIDER)} pixels too wide"] if one.page.evaluate(WIDER) > 0 else []),
            *one.faults,
        ]
        one.faults.clear()
        assert one.page.evaluate("document.documentElement.lang") == {"zh-CN": "zh-Hans", "en-GB": "en"}[language], (
            address
        )
        assert one.page.title() != "taken"
    assert {address: faults for address, faults in found.items() if faults} == {}
