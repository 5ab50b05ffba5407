"""What was left out of a data set, and its charts, in Chromium: parts that htmx fetches, and bars that are links."""

import re

import pytest


@pytest.mark.parametrize(
    ("language", "title"),
    [("en-GB", "Examples by number of tokens: random"), ("zh-CN", "样本的词元数分布：随机句")],
)
def test_a_bar_leads_to_the_examples_that_it_counts(tab, language, title):
    """The sample of so small a data set has all examples of the train split."""
    one = tab(language=language)
    one.open("d0/charts")
    bar = one.page.get_by_role("figure", name=title).get_by_role("link").last
    tokens, _, counted = bar.get_attribute("aria-label").partition(": ")
    bar.click()
    one.page.wait_for_url("**/d0/examples?*")
    assert one.page.url.endswith(f"/d0/examples?split=train&length=64&label=1&tokens={tokens}")
    status = one.page.locator("#progress [role=status]")
    status.wait_for()
    assert re.search(r"[\d,]+", counted)[0] in re.findall(r"[\d,]+", status.text_content())
    assert one.page.locator("main ol li").count() > 3


def test_a_row_of_names_leads_to_its_examples(tab):
    one = tab(width=400)
    one.open("d0/charts")
    one.page.get_by_role("figure", name="Tokens by source").get_by_role("link", name="plain.txt").click()
    one.page.locator("main a[href*='/d0/examples/']").first.wait_for()
    assert "source=plain.txt" in one.page.url


@pytest.mark.parametrize("width", [1280, 1400])
def test_the_name_of_a_file_has_room_next_to_its_numbers(tab, width):
    one = tab(width=width)
    one.open("d0/charts")
    name = one.page.get_by_role("figure", name="Share of [UNK] by source").locator("tbody th > *").first
    lines = name.evaluate(
        """(one) => {
          one.firstChild.data = 'wikitext2_valid_test.jsonl.gz';
          const figures = one.closest('tr').querySelectorAll('.figure');
          ['0.181 %', '11,192', '907,889'].forEach((text, number) => { figures[number].textContent = text; });
          const range = document.createRange();
          range.selectNode(one.firstChild);
          return range.getClientRects().length;
        }"""
    )
    assert lines == 1


def test_the_table_of_a_chart_opens_without_a_script(tab):
    one = tab(java_script_enabled=False)
    one.page.goto(f"{one.address}d0/charts/sample")
    chart = one.page.get_by_role("figure", name="Masks by position")
    chart.locator("summary").click()
    assert chart.get_by_role("row").count() == 17


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_texts_of_a_near_duplicate_come_after_the_page(tab, theme):
    one = tab(theme=theme)
    one.open("d0/duplicates")
    one.page.get_by_role("link", name=re.compile(r"\d\d\.\d%")).first.click()
    one.page.locator("del, ins").first.wait_for()
    assert "And one sentence more." in one.page.locator("del, ins").all_text_contents()[0]
    assert one.page.locator("h1").text_content().startswith("Near duplicate: similarity 9")


def test_equal_documents_are_counted_by_file(tab):
    one = tab()
    one.open("d0/duplicates")
    row = one.page.get_by_role("row", name=re.compile("strange"))
    assert row.get_by_role("cell").all_text_contents()[-1] == "1"


def test_a_reject_is_shown_as_text(tab):
    one = tab()
    one.open("d0/rejects")
    one.page.get_by_role("link", name="not-json").click()
    one.settle()
    shown = one.page.locator("main ol li").all_text_contents()
    assert len(shown) == 1 and "{<script>" in shown[0] and "strange <i>&.jsonl.gz" in shown[0]
    assert one.page.title() != "taken"
