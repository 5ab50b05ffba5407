"""Rules of MediaWiki: apostrophes, names of namespaces, variants of words, and pages that are made to take long."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.inputs.formats import wikitext as wikitext_module
from pipeline.inputs.formats.apostrophes import without_quotes
from pipeline.inputs.formats.language_variants import MAX_DEPTH, with_one_variant
from pipeline.inputs.formats.wiki_namespaces import HIDDEN
from pipeline.inputs.formats.wikitext import plain_text, read_again

# ---- apostrophes


@pytest.mark.parametrize(
    "wikitext, text",
    [
        ("''Titanic'''s crew was saved.", "Titanic's crew was saved."),
        ("'''Foo''''s bar", "Foo's bar"),
        ("L'''Iliade'' est un poème.", "L'Iliade est un poème."),
        ("La trama dell'''Eneide'' è nota.", "La trama dell'Eneide è nota."),
        ("''[[Y]]'''s end", "Y's end"),
        ("L<nowiki>'</nowiki>'''Andalousie''' est", "L'Andalousie est"),
        ("C&#39;''est'' bon", "C'est bon"),
        ("'''''both''''' and ''''''more''''''", "both and 'more'"),
        ("''a'''b'' c '''d", "ab c d"),
        ("the ''x'' of l'''Iliade'' and '''bold'''", "the x of l'Iliade and bold"),
        ("''' a '''b à '''c ''d''''", "a b à c d'"),
        ("''{{lang|fr|x}}'' y ''[http://a.b]'' z ''[[File:c.jpg]]''.", "y z."),
        ("[[O'Hara|''O'Hara'''s]] ''x''", "O'Hara's x"),
        ("[[a''b''c]] and ''d''", "a''b''c and d"),
        ("'''a<br>''b''' c''", "a\nb c"),
        ("''one\ntwo''", "one\ntwo"),
        ("''a''<!-- x -->''b''", "a'b"),
    ],
)
def test_apostrophes_are_text_or_mark_up_as_in_mediawiki(wikitext, text):
    assert plain_text(wikitext, HIDDEN) == text


@given(st.lists(st.sampled_from(["'", "''", "'''", "a", " ", "é"]), max_size=12).map("".join))
def test_only_apostrophes_are_removed_and_at_most_five_of_a_row(line):
    shown = without_quotes(line)
    assert shown.replace("'", "") == line.replace("'", "")
    num_rows = len([row for row in line.replace("é", "a").replace(" ", "a").split("a") if len(row) > 1])
    assert line.count("'") - shown.count("'") <= 5 * num_rows


# ---- names of namespaces


@pytest.mark.parametrize(
    "link",
    """文件:a.jpg|thumb|说明 檔案:a.jpg|thumb|说明 圖像:a.jpg|说明 分类:城市 分類:河流 Bild:a.jpg|mini|Text Datei:a.jpg|x
    Imagen:a.jpg|thumb|x Archivo:a.jpg|x Fichier:a.jpg|vignette|x Catégorie:Ville Файл:a.jpg|мини|x Категория:Город
    画像:a.jpg|x ファイル:a.jpg|x カテゴリ:都市 Tập_tin:a.jpg|nhỏ|x 그림:a.jpg|x پرونده:a.jpg|x ملف:a.jpg|x
    Plik:a.jpg|x Grafika:a.jpg|x קובץ:a.jpg|x Kép:a.jpg|x Imagine:a.jpg|x _bild_:a.jpg|x""".split(),
)
def test_pictures_and_categories_are_left_out_under_their_aliases(link):
    assert plain_text(f"Before [[{link}]]after [[Foo:Bar|this]].", HIDDEN) == "Before after this."


# ---- variants of words


@pytest.mark.parametrize(
    "wikitext, text",
    [
        ("《-{zh-hans:Re:从零;zh-hant:Re:從零}-》是小说。", "《Re:从零》是小说。"),
        ("比分-{zh-cn:3:1;zh-tw:3:1}-。", "比分3:1。"),
        ("-{zh-hans;zh-hant|甲乙}-丙", "甲乙丙"),
        ("-{zh-tw:網誌; zh-cn:博客;}-和-{zh-hant:網誌}-", "博客和網誌"),
        ("-{zh:甲;zh-hans:乙}-", "甲"),
        ("-{zh-hans:一;二;zh-hant:三}-", "一;二"),
        ("-{ZH-HANS:一; zh-Hant :三}-", "一"),
        ("-{了}- -{R|zh-cn:甲}- -{|乙}-", "了 zh-cn:甲 乙"),
        ("-{A|zh-cn:网;zh-tw:網}--{H|zh-cn:a;zh-tw:b}--{T|題}--{-|zh-cn:a}--{N|zh-tw}-。", "网。"),
        ("-{一=>zh-hans:甲; 二=>zh-hant:乙}-", "甲"),
        ("-{en:a;zh-cn:b}-", "en:a;zh-cn:b"),
        ("-{zh-hans:[[计算机|电脑]];zh-hant:[[電腦]]}-。", "电脑。"),
        ("-{a -{zh-cn:b;zh-tw:c}- d}-", "a b d"),
        ("-{unclosed -{zh-cn:b}- }", "-{unclosed b }"),
        ("closed}- and x{y}-z", "closed}- and x{y}-z"),
        ("<nowiki>-{a}-</nowiki>-{b}-", "-{a}-b"),
        ("-{sr-ec:Београд;sr-el:Beograd}-", "Београд"),
    ],
)
def test_one_variant_of_a_word_is_kept_as_in_mediawiki(wikitext, text):
    assert plain_text(wikitext, HIDDEN) == text


def test_nested_variants_end_at_the_depth_of_mediawiki():
    assert with_one_variant("-{" * MAX_DEPTH + "x" + "}-" * MAX_DEPTH) == "x"
    assert with_one_variant("-{" * 20_000 + "x" + "}-" * 20_000) == "-{" * 19_990 + "x" + "}-" * 19_990


# ---- pages that are made to take long


HANGING = [
    "<b>",
    "{|\n",
    "[http://x ",
    "<nowiki>",
    "[[a|",
    "{{a|",
    "<ref name='x",
    "<b a=b ",
    "<!--",
    "{|\n|-\n! x\n",
    "[//x ",
]


@pytest.mark.parametrize("mark", HANGING)
def test_a_page_of_marks_that_are_never_closed_is_not_parsed(mark, monkeypatch):
    monkeypatch.setattr(wikitext_module.mwparserfromhell, "parse", lambda *_, **__: pytest.fail("parsed"))
    with pytest.raises(ValueError, match=r"^20000 marks such as \{\{, \[\[ or <b> are not closed or are nested"):
        plain_text(mark * 20_000, HIDDEN)


@pytest.mark.parametrize(
    "opening, closing", [("[[a|", "]]"), ("{|! x\n", "|}"), ("<b>", "</b>"), ("<b>{{a|", "}}</b>")]
)
def test_marks_that_are_nested_too_deeply_are_not_parsed(opening, closing):
    assert read_again(opening * 20 + closing * 20) == (0, 0)
    with pytest.raises(ValueError, match="are nested too deeply"):
        plain_text(opening * 5000 + closing * 5000, HIDDEN)


def test_single_tags_and_closed_marks_are_not_read_again():
    assert read_again("a<br>b<br/>c<ref name=x /><li>d [[e|{{f}}]] {|\n|}\n<B>g</b> <!-- h -->[http://i j] k] [l]") == (
        0,
        0,
    )
    assert read_again("0<p>45</i>") == (1, 9)


@settings(max_examples=200)
@given(st.lists(st.sampled_from(HANGING + ["]]", "}}", "|}", "</b>", "-->", "x", "\n", "''", "==", " "]), max_size=12))
def test_few_marks_in_any_order_are_parsed(marks):
    plain_text("".join(marks), HIDDEN)
