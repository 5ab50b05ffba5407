"""The pages of a model in Chromium: a token is masked or chosen with a click or a key, with and without scripts."""


def test_a_click_on_a_token_masks_it_and_another_takes_its_mask_away(tab):
    one = tab(width=400)
    assert one.open("r0/fill-mask?text=the+house+is+old") == 200
    tokens = one.page.locator("button.token")
    second = tokens.nth(1).inner_text()
    assert one.page.locator(".predictions section").count() == 0
    tokens.nth(1).click()
    one.settle()
    assert tokens.nth(1).inner_text() == "[MASK]" and one.page.locator(".predictions tr.true").count() == 1
    assert one.page.locator(".predictions tr").count() in (11, 12)
    bars = one.page.locator(".predictions rect").evaluate_all(
        "all => all.map((one) => one.getBoundingClientRect().width)"
    )
    assert bars[:10] == sorted(bars[:10], reverse=True) and bars[0] > 0
    tokens.nth(1).press("Enter")
    one.settle()
    assert tokens.nth(1).inner_text() == second and one.page.locator(".predictions section").count() == 0


def test_a_chosen_token_exchanges_the_drawing_and_the_page_stays_where_it_is(tab):
    one = tab(width=400, theme="dark")
    one.open("r0/attention?text=the+house+is+old&second=so+it+is")
    lines = one.page.locator("svg.lines path")
    before = lines.count()
    one.page.evaluate("window.isSamePage = true; scrollTo(0, 300)")
    one.page.locator("#token-2").click()
    one.page.wait_for_selector("#token-2[aria-current]")
    one.page.wait_for_url("**token=2")
    assert one.page.evaluate("window.isSamePage && scrollY") == 300
    assert 0 < lines.count() < before and one.page.locator("text.weight").count() > 0
    assert one.page.evaluate("document.activeElement.id") == "token-2"
    one.page.locator("#head-1").press("Enter")
    one.page.wait_for_url("**head=1**")
    assert (
        one.page.locator("#head-1[aria-current]").count() == 1
        and one.page.locator("#token-2[aria-current]").count() == 1
    )
    one.page.locator("summary").click()
    assert one.page.locator("table tr").count() == one.page.locator("svg.lines a").count() + 1


def test_both_pages_work_without_scripts(tab):
    one = tab(java_script_enabled=False)
    one.page.goto(one.address + "r0/attention?text=the+house")
    one.page.locator("#token-1").click()
    one.page.wait_for_selector("#token-1[aria-current]")
    one.page.goto(one.address + "r0/fill-mask?text=the+house")
    one.page.locator("button.token").first.click()
    one.page.wait_for_selector("button.token[aria-pressed=true]")
