"""One example and one document in Chromium: true tokens with and without a mouse, what explain finds, strange texts."""

import pyarrow.parquet as pq
import pytest

TRUTH = ".segment mark.mask .truth"
SEEN = "(one) => getComputedStyle(one).clipPath === 'none' && one.getBoundingClientRect().width > 5"


@pytest.fixture(scope="module")
def documents(strange):
    """What a text is -> its id. The first piece of the long one."""
    rows = [row for path in strange.glob("documents/*/*.parquet") for row in pq.read_table(path).to_pylist()]
    rows = sorted((row for row in rows if "strange" in row["source"]), key=lambda row: (row["position"], row["piece"]))
    return dict(zip(("html", "right to left", "long"), (f"{row['id']:016x}" for row in rows)))


@pytest.mark.parametrize("width", [400, 1600])
def test_the_pointer_on_a_mask_shows_its_true_token_inside_the_window(tab, width):
    one = tab(width=width)
    one.open("d0/examples/7")
    marks = one.page.locator(".segment mark.mask")
    for number in range(marks.count()):
        marks.nth(number).hover()
        truth = marks.nth(number).locator(".truth")
        assert truth.evaluate(SEEN) and "true token:" in truth.inner_text()
        box = truth.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
    one.page.mouse.move(0, 0)
    assert not marks.first.locator(".truth").evaluate(SEEN)


def test_a_switch_shows_all_true_tokens_with_the_keyboard(tab):
    one = tab()
    one.open("d0/examples/7")
    truths = one.page.locator(TRUTH)
    assert not any(truths.nth(number).evaluate(SEEN) for number in range(truths.count()))
    one.page.get_by_label("Show the true tokens").focus()
    one.page.keyboard.press("Space")
    assert all(truth.evaluate(SEEN) for truth in truths.all()) and truths.count() > 3


def test_one_click_shows_the_source_on_the_same_page(tab):
    one = tab()
    one.open("d0/examples/7")
    one.page.get_by_text("Show its source and make it again").click()
    found = one.page.locator("#part")
    found.locator("h3").first.wait_for()
    assert "all 9 columns equal those in the shard" in found.inner_text()
    assert found.locator(".own.a").count() == found.locator(".own.b").count() == 1
    assert one.page.url.endswith("/d0/examples/7")
    one.page.keyboard.press("n")
    one.page.wait_for_url("**/d0/examples/8")


def test_without_javascript_a_link_leads_to_the_source(tab):
    one = tab(java_script_enabled=False)
    one.page.goto(one.address + "d0/examples/7")
    one.page.get_by_text("Show its source and make it again").click()
    assert one.page.url.endswith("/d0/examples/7/explain")
    assert "all 9 columns equal those in the shard" in one.page.locator("main").inner_text()


@pytest.mark.parametrize("kind", ["html", "right to left", "long"])
def test_a_strange_text_is_shown_as_it_is_with_its_unused_tokens(tab, documents, kind):
    one = tab()
    one.open(f"d0/documents/{documents[kind]}")
    one.page.locator("#use p[role=status]").wait_for()
    assert "tokens are in" in one.page.locator("#use").inner_text()
    one.page.get_by_text("Show the text, with marks").click()
    text = one.page.locator(".document-text")
    text.wait_for()
    shown = text.inner_text()
    assert {
        "html": "<script>document.title = 'taken'</script> <img src=x",
        "right to left": "كان الكتاب على الطاولة",
        "long": " ",
    }[kind] in shown
    assert one.page.title() != "taken"
    direction = text.evaluate("(one) => getComputedStyle(one).direction")
    assert direction == ("rtl" if kind == "right to left" else "ltr")
    assert len(one.page.content()) < 300_000
    if kind == "long":
        one.page.get_by_role("link", name="Next", exact=True).click()
        one.page.get_by_text("Tokens 2,000 to 3,999").wait_for()
        assert one.page.locator(".document-text").inner_text() != shown
        assert one.page.url.endswith(documents[kind])
