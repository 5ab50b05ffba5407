"""What holds for every page: nothing fails in it, it fits its window, and it can be used without a mouse or eyes."""

import re
from collections import deque
from dataclasses import dataclass, field

import pytest

from jobs.browser.sections import SECTIONS
from tests.browser.tab import Tab

LINKS = """Array.from(document.querySelectorAll('main a[href], nav a[href]'),
  (link) => new URL(link.getAttribute('href'), location).href)"""  # `link.href` of SVG is no text
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


def faults_of(tab: Tab, language: str) -> list[str]:
    """What is wrong with the page that a tab shows."""
    wider = tab.page.evaluate(WIDER)
    found = [*tab.page.evaluate(LACKS), *tab.page.evaluate(FAINT), *tab.faults]
    tab.faults.clear()
    if wider > 0:
        found.append(f"{wider} pixels too wide")
    if tab.page.evaluate("document.documentElement.lang") != language:
        found.append("another language")
    if "taken" in tab.page.title():
        found.append("a script of a text has run")
    return found


@dataclass
class Crawl:
    """What the links lead to from the first page: one address of each shape, and those that gave no page."""

    faults: dict[str, list[str]] = field(default_factory=dict)
    """address -> what is wrong with it in a wide light window."""
    dead: dict[str, str] = field(default_factory=dict)
    """address -> the page with the link."""


@pytest.fixture(scope="module")
def crawl(chromium, server) -> Crawl:
    context = chromium.new_context(viewport={"width": 1600, "height": 900}, locale="en-GB", color_scheme="light")
    tab = Tab(context.new_page(), server.address)
    waiting, seen, crawl = deque([("", "")]), {""}, Crawl()
    while waiting:
        address, linked_on = waiting.popleft()
        if tab.open(address) != 200:
            crawl.dead[address] = linked_on
            continue
        crawl.faults[address] = faults_of(tab, "en")
        for link in (link.partition("#")[0] for link in tab.page.evaluate(LINKS)):
            assert link.startswith(server.address), (link, address)
            path = link.removeprefix(server.address)
            if shape(path) not in seen and len(seen) < MOST_PAGES:
                seen.add(shape(path))
                waiting.append((path, address))
    context.close()
    return crawl


def test_links_lead_to_every_section_and_none_is_dead(crawl):
    assert {f"{one.of[0]}0/{one.name}" for one in SECTIONS} <= {address.partition("?")[0] for address in crawl.faults}
    assert crawl.dead == {}


def test_every_page_fits_has_no_error_and_lacks_nothing(crawl):
    assert {address: faults for address, faults in crawl.faults.items() if faults} == {}


def test_the_same_holds_for_the_dark_pages_in_chinese_on_a_telephone(crawl, tab):
    one = tab(width=400, language="zh-CN", theme="dark")
    found = {}
    for address in crawl.faults:
        assert one.open(address) == 200
        found[address] = faults_of(one, "zh-Hans")
    assert {address: faults for address, faults in found.items() if faults} == {}
