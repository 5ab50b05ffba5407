"""The list of examples in Chromium: the search field, pages by keys, and a search that fills its page in parts."""

import re
from collections.abc import Iterator

import pytest

from tests.jobs.browser.served import RUN, Served, served

SLOW = RUN.replace(
    "import sys;", "import sys; import jobs.browser.data_set_pages.examples as page; page.SLICE_SECONDS = 0;", 1
)
NUMBERS = "Array.from(document.querySelectorAll('#examples h2'), one => Number(one.textContent.replace(',', '')))"


@pytest.fixture(scope="module")
def slow_server(strange) -> Iterator[Served]:
    """It searches a single member for each request."""
    with served(strange, code=SLOW) as running:
        yield running


def test_the_list_is_searched_and_paged_with_keys(tab):
    one = tab()
    one.open("d0/examples")
    one.page.keyboard.press("/")
    assert one.page.evaluate("document.activeElement.name") == "word"
    one.page.keyboard.type("天")
    one.page.keyboard.press("Enter")
    one.page.wait_for_url(re.compile(r"examples\?word=%E5%A4%A9$"))
    one.settle()
    first = one.page.evaluate(NUMBERS)
    assert len(first) == 20 and one.page.locator("#examples .found b").first.inner_text() == "天"
    one.page.keyboard.press("n")
    one.page.wait_for_url(re.compile("word=.*&after="))
    assert min(one.page.evaluate(NUMBERS)) > max(first)
    one.page.keyboard.press("p")
    one.page.wait_for_url(re.compile("word=.*&before="))
    assert one.page.evaluate(NUMBERS) == first


@pytest.mark.parametrize("address", ["d0/examples?tokens=60-64&label=0", "d0/examples?tokens=60-64&label=0&before=%d"])
def test_a_search_in_parts_fills_the_list_in_order(tab, slow_server, address):
    one = tab(slow_server.address)
    one.open("d0/examples?before=0")
    size = int(one.page.locator("#number").get_attribute("max")) + 1
    one.page.goto(slow_server.address + (address % size if "%d" in address else address))
    one.page.wait_for_selector("#progress [role=status]")
    numbers = one.page.evaluate(NUMBERS)
    assert len(numbers) == 20 and numbers == sorted({*numbers})
    assert re.search(r"\d of [\d,]+ examples", one.page.inner_text("#progress"))
    assert one.page.locator("#pages [rel=prev]" if "before" in address else "#pages [rel=next]").count() == 1
