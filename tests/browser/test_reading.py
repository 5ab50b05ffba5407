"""A data set in Chromium: paging, filters, keys, strange texts, who may read, and what is damaged."""

import re
import shutil

import pytest

from tests.browser.tab import REBOUND
from tests.jobs.browser.served import served

NUMBERS = "Array.from(document.querySelectorAll('#examples h2 a'), (one) => Number(one.textContent.replace(/,/g, '')))"


def numbers(tab) -> list[int]:
    """The numbers of the examples in the list."""
    return tab.page.evaluate(NUMBERS)


# ---- the list, its filters and keys


def test_links_and_keys_page_through_the_examples(tab):
    one = tab()
    one.open("d0/examples")
    first = numbers(one)
    assert first == list(range(len(first))) and len(first) >= 10
    one.click("a[rel=next]")
    second = numbers(one)
    assert second == [number + len(first) for number in first]
    for key, shown in [
        ("n", len(first) * 2),
        ("p", len(first)),
        ("ArrowRight", len(first) * 2),
        ("ArrowLeft", len(first)),
    ]:
        one.press(key)
        one.page.wait_for_function(f"() => {NUMBERS}[0] === {shown}")
    one.open(f"d0/examples/{first[-1]}")
    one.press("n")
    one.page.wait_for_url(f"**/d0/examples/{first[-1] + 1}")


def test_keys_do_nothing_while_one_types(tab):
    one = tab()
    one.open("d0/examples")
    one.press("/")
    assert one.page.evaluate("document.activeElement.matches('[data-search]')")
    one.page.keyboard.type("np?/")
    assert one.page.input_value("[data-search]") == "np?/" and one.path == "d0/examples"
    assert not one.page.evaluate("document.getElementById('keys').open")


def test_a_question_mark_lists_the_keys(tab):
    one = tab()
    one.open("d0/examples")
    one.press("?")
    assert "Previous" in one.page.inner_text("#keys")
    one.press("n")  # the list is before the page
    assert one.path == "d0/examples"
    one.press("Escape")
    assert not one.page.is_visible("#keys")
    one.click("#show-keys")
    assert one.page.is_visible("#keys")


def test_the_first_key_leads_past_the_navigation(tab):
    one = tab()
    one.open("d0/rejects")
    one.press("Tab")
    assert one.page.evaluate("document.activeElement.className") == "skip"
    assert one.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    one.press("Enter")
    assert one.page.evaluate("document.activeElement.id") == "main"


def test_the_form_filters_the_list(tab):
    one = tab()
    one.open("d0/examples")
    one.page.select_option("#filter-split", "validation")
    one.page.select_option("#filter-label", index=1)
    one.click("form.filters button:has-text('Show')")
    found = numbers(one)
    assert found and found != list(range(len(found))) and "split=validation" in one.path and "label=" in one.path
    assert (
        len(set(re.findall(r"validation, length 64, copy 0 · (\w+)", one.text))) == 1
        and "train, length" not in one.text
    )


def test_a_search_for_a_word_shows_where_it_is(tab):
    one = tab()
    one.open("d0/examples?word=天")
    one.page.wait_for_selector("#progress [role=status]")  # the search has ended
    places = one.page.locator("#examples .found b").all_inner_texts()
    assert places and {text.replace(" ", "") for text in places} == {"天"}


def test_a_page_is_printed_without_its_controls_and_in_light_colours(tab):
    one = tab(theme="dark")
    one.open("d0/examples")
    one.page.emulate_media(media="print")
    assert one.page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert (
        one.page.is_visible("#examples") and one.page.locator("form:visible, nav:visible, button:visible").count() == 0
    )


def test_a_filter_that_is_none_names_the_value(tab):
    one = tab(expects=("400 (Bad Request)",))
    assert one.open("d0/examples?length=x") == 400 and "length=x: " in one.page.inner_text("main [role=alert]")


def test_the_pages_work_without_scripts(tab):
    one = tab(java_script_enabled=False)
    one.page.goto(f"{one.address}d0/examples?word=script")
    for _ in range(50):
        if one.page.locator("#examples li").count():
            break
        one.page.click("text=Go on")
    one.page.click("#examples h2 a")
    one.page.click("text=Show its source")
    assert "Made again from the source files" in one.text


# ---- texts that a page could get wrong


def test_a_text_that_is_html_is_shown_and_not_run(tab):
    one = tab()
    one.open("d0/examples?source=strange <i>%26.jsonl.gz&word=script")
    one.page.wait_for_selector("#examples li")
    assert "< script > document" in one.page.inner_text("#examples")
    assert (
        "taken" not in one.page.title()
        and one.page.locator("#examples script, #examples img, #examples i").count() == 0
    )


def test_a_text_from_right_to_left_is_laid_out_so(tab):
    one = tab()
    one.open("d0/examples?word=الكتاب")
    one.page.wait_for_selector("#examples li")
    text = one.page.locator("#examples .segment p", has_text="الولد").first
    assert text.evaluate("(one) => one.matches(':dir(rtl)') && getComputedStyle(one).direction") == "rtl"
    assert one.page.evaluate("getComputedStyle(document.body).direction") == "ltr"


def test_chinese_text_breaks_between_characters_and_has_a_chinese_font(tab):
    one = tab(width=400, language="zh-CN")
    one.open("d0/examples?word=天")
    one.page.wait_for_selector("#examples li")
    assert "样本" in one.page.inner_text("h1") and one.page.evaluate("document.documentElement.lang") == "zh-Hans"
    text = one.page.locator("#examples .segment p").first
    lines, width = text.evaluate("(one) => [one.getClientRects()[0].height / 24, one.scrollWidth - one.clientWidth]")
    assert lines > 1.5 and width <= 0
    fonts = one.page.evaluate("getComputedStyle(document.body).fontFamily")
    assert fonts.index("PingFang SC") < fonts.index("Noto Sans CJK SC")


# ---- who may read, and what is damaged


def test_another_page_that_points_its_name_to_this_machine_reads_nothing(tab, server):
    one = tab(
        address=f"http://{REBOUND}:{server.port}/{server.token}/",
        expects=("421 (Misdirected Request)", "Cross-Origin-Opener-Policy"),
    )
    assert one.page.goto(one.address).status == 421 and REBOUND in one.page.content()


def test_the_token_is_in_no_referer_and_in_no_request_to_others(tab, server):
    one = tab()
    sent: list[dict[str, str]] = []
    one.page.on("request", lambda request: sent.append(request.all_headers()))
    one.open("d0/examples")
    one.click("#examples h2 a")
    assert len(sent) > 2 and not any("referer" in headers for headers in sent)


def test_a_page_whose_server_has_ended_shows_so(tab, strange):
    with served(strange) as running:
        one = tab(address=running.address, expects=("ERR_CONNECTION_REFUSED", "htmx:"))
        one.open("d0/examples/3")
        assert not one.page.is_visible("#silent")
        running.end()
        one.page.click("text=Show its source")
        one.page.wait_for_selector("#silent:visible")


@pytest.fixture(scope="module")
def damaged(strange, tmp_path_factory):
    """A copy of the data set in which some bytes of a shard are others."""
    copy = shutil.copytree(strange, tmp_path_factory.mktemp("damaged") / "out")
    path = max((copy / "train").rglob("*.tar"), key=lambda one: one.stat().st_size)
    data = bytearray(path.read_bytes())
    data[5000:5100] = bytes(100)
    path.write_bytes(data)
    return copy


def test_a_damaged_shard_shows_the_message_of_verify(tab, damaged, capsys):
    from jobs.cli import main

    assert main(["verify", str(damaged)]) == 1
    said = capsys.readouterr()
    with served(damaged) as running:
        one = tab(address=running.address, expects=("400 (Bad Request)",))
        for path in ("d0/examples", "d0/examples/0"):
            one.open(path)
            message = one.page.locator(".error").first.inner_text()
            assert "Traceback" not in one.page.content()
            assert any(line.strip() in message for line in said.out.splitlines() if ".tar" in line), (message, said.out)
