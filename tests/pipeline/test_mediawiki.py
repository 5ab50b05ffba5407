"""MediaWiki dumps: articles as text, other pages counted, broken ones named, cut and packed in any way."""

import bz2
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.inputs import streams
from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.formats import mediawiki, streamed, wikitext
from pipeline.inputs.formats.mediawiki import Site, read_site
from pipeline.inputs.formats.wikitext import plain_text
from pipeline.inputs.sources import Split
from pipeline.inputs.splitting import split_source
from pipeline.text.records import Document, PassedOver, Reject

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="de">
  <siteinfo>
    <sitename>Wikipedia</sitename>
    <namespaces>
      <namespace key="-2" case="first-letter">Medium</namespace>
      <namespace key="0" case="first-letter" />
      <namespace key="6" case="first-letter">Datei</namespace>
      <namespace key="10" case="first-letter">Vorlage</namespace>
      <namespace key="14" case="first-letter">Kategorie</namespace>
    </namespaces>
  </siteinfo>
"""
TAIL = "</mediawiki>\n"
SITE = read_site(HEAD.encode())


def page(title: str, text: str | None, ns: int | None = 0, redirect: bool = False) -> str:
    inner = f"<text xml:space='preserve'>{escape(text)}</text>" if text is not None else "<text deleted='deleted' />"
    return (
        f"  <page>\n    <title>{escape(title)}</title>\n"
        + (f"    <ns>{ns}</ns>\n" if ns is not None else "")
        + ("    <redirect title='X' />\n" if redirect else "")
        + f"    <revision><id>1</id><model>wikitext</model>{inner}</revision>\n  </page>\n"
    )


def dump(*pages: str) -> bytes:
    return (HEAD + "".join(pages) + TAIL).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("wikipedia")


def read(folder: Path, name: str, data: bytes):
    (folder / name).write_bytes(data)
    [source] = find_sources([str(folder / name)])
    return list(read_documents(Split(source, 0, None)))


# ---- pages


def test_articles_are_documents_and_all_other_pages_are_counted(folder):
    data = dump(
        page("Eins", "Der [[Text]]."),
        page("Zwei", "#WEITERLEITUNG [[Eins]]"),
        page("Drei", "x", redirect=True),
        page("Vorlage:X", "{{X}}", ns=10),
        page("Diskussion:Eins", "Hm.", ns=1),
        page("Vorlage:Alt", "x", ns=None),
        page("Leer", "{{Nur eine Vorlage}}"),
        page("Gelöscht", None),
        page("Alt", "Ohne ns.", ns=None),
        page("Vorlage", "Ein Wort."),
        page("Datei: ein Film", "Ein Film."),
        page("Vorlage", "Alt.", ns=None),
    )
    items = read(folder, "a.xml", data)
    kinds = [
        ("document", item.text.decode()) if isinstance(item, Document) else (type(item).__name__, item.reason)
        for item in items
    ]
    assert kinds == [
        ("document", "Der Text."),
        ("PassedOver", "redirect"),
        ("PassedOver", "redirect"),
        ("PassedOver", "not-an-article"),
        ("PassedOver", "not-an-article"),
        ("PassedOver", "not-an-article"),
        ("Reject", "empty-text"),
        ("Reject", "empty-text"),
        ("document", "Ohne ns."),
        ("document", "Ein Wort."),
        ("document", "Ein Film."),
        ("document", "Alt."),
    ]
    assert [data[item.position :][:6] for item in items] == [b"<page>"] * 12
    assert (items[0].record_id, items[6].record_id, items[6].text) == ("Eins", "Leer", "{{Nur eine Vorlage}}")


def test_an_article_that_is_not_wikitext_is_rejected(folder):
    [item] = read(folder, "json.xml", dump(page("Q1", "{}").replace("wikitext", "wikibase-item")))
    assert (item.reason, item.detail, item.text, item.record_id) == ("not-wikitext", "wikibase-item", "{}", "Q1")


KINDS = [page("A", "One.\n\nTwo."), page("B", "中文 & <ref>x</ref>"), page("C", "x", ns=4), page("D", "")]
PAGES = st.lists(st.sampled_from(KINDS), max_size=6)


@settings(max_examples=80)
@given(pages=PAGES, split_bytes=st.integers(1, 900), chunk=st.sampled_from([1, 7, 300, 1 << 20]))
def test_a_dump_cut_and_streamed_in_any_way_gives_the_same_items(folder, pages, split_bytes, chunk):
    data = dump(*pages)
    whole = read(folder, "whole.xml", data)
    assert len(whole) == len(pages)
    [source] = find_sources([str(folder / "whole.xml")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "CHUNK", chunk)
        patch.setattr(streamed, "BORDER_BYTES", chunk)
        splits = split_source(source, split_bytes)
        assert [item for split in splits for item in read_documents(split)] == whole
        for item in whole:
            assert next(read_documents(Split(source, 0, None), item.position)) == item
        streams_of_bzip2 = b"".join(bz2.compress(bit.encode()) for bit in (HEAD, *pages, TAIL))
        assert read(folder, "multistream.xml.bz2", streams_of_bzip2) == whole


def test_a_dump_with_a_broken_head_is_read(folder):
    data = dump(page("A", "[[File:x.jpg]]One.")).replace(b"</namespaces>", b"")
    assert [item.text for item in read(folder, "head.xml", data)] == [b"One."]


def test_names_of_namespaces_are_known_in_every_split(folder):
    text = "[[Datei:a.jpg|mini|Bild]]Text.[[Kategorie:B]]"
    (folder / "n.xml").write_bytes(dump(*[page(f"P{i}", f"{i} {text}") for i in range(4)]))
    [source] = find_sources([str(folder / "n.xml")])
    splits = split_source(source, 300)
    assert len(splits) > 2
    assert [i.text for split in splits for i in read_documents(split)] == [f"{i} Text.".encode() for i in range(4)]


def test_a_truncated_dump_keeps_its_whole_pages_and_rejects_the_rest(folder):
    data = dump(page("A", "One."), page("B", "Two."))
    for cut in (data[: data.rindex(b"</page>")], data[: data.rindex(TAIL.encode())]):
        *kept, damage = read(folder, "cut.xml", cut)
        assert [item.text for item in kept] == [b"One.", b"Two."][: cut.count(b"</page>")]
        assert damage.reason == "damaged-file" and "before </mediawiki>" in damage.detail
    packed = bz2.compress(data) + bz2.compress(data)[:40]
    assert read(folder, "cut.xml.bz2", packed)[-1].reason == "damaged-file"


def test_a_broken_page_is_rejected_and_the_next_is_read(folder):
    broken = page("B", "Two.").replace("</revision>", "")
    lost = page("C", "Three.").replace("<page>", "")
    items = read(folder, "broken.xml", dump(page("A", "One."), broken, lost, page("D", "Four.")))
    assert [getattr(item, "reason", item.text) for item in items] == [b"One.", "not-xml", "damaged-file", b"Four."]
    assert "mismatched tag" in items[1].detail and items[1].text.startswith("<page>")


def test_half_a_surrogate_pair_in_an_article_is_replaced_and_counted(folder):
    data = dump(page("A", "Half &#xD800; and&#13;&#57343;.\n\nB."), page("B", "Whole &#x1F600;."))
    items = read(folder, "half.xml", data)
    assert [(i.text.decode(), i.num_replaced) for i in items] == [("Half \ufffd and \ufffd.\nB.", 2), ("Whole 😀.", 0)]


def test_an_article_that_the_parser_fails_on_is_rejected_and_the_next_is_read(folder, monkeypatch):
    parse = wikitext.mwparserfromhell.parse

    def fail_on_x(text, **options):
        if text == "x":
            raise wikitext.mwparserfromhell.parser.ParserError("This is a bug and should be reported. Info: odd.")
        return parse(text, **options)

    monkeypatch.setattr(wikitext.mwparserfromhell, "parse", fail_on_x)
    rejected, kept = read(folder, "bug.xml", dump(page("A", "x"), page("B", "Two.")))
    assert (rejected.reason, rejected.text, rejected.record_id) == ("not-wikitext", "x", "A")
    assert "Info: odd." in rejected.detail and kept.text == b"Two."


@pytest.mark.parametrize("chunk", [64, 1 << 20])
def test_a_page_that_is_too_long_to_hold_is_rejected(folder, monkeypatch, chunk):
    monkeypatch.setattr(mediawiki, "MAX_PAGE_BYTES", 1000)
    monkeypatch.setattr(streams, "CHUNK", chunk)
    items = read(folder, "long.xml", dump(page("A", "One."), page("B", "x" * 3000), page("C", "Three.")))
    if chunk == 64:  # in larger chunks it was there before it could be too long
        assert [getattr(item, "reason", item.text) for item in items] == [b"One.", "page-too-long", b"Three."]


# ---- mark-up


@pytest.mark.parametrize(
    "wikitext, text",
    [
        (
            "'''Paris''' ({{IPA|paʁi}}) is the [[capital city|capital]] of [[France]].",
            "Paris is the capital of France.",
        ),
        ("One.\n\nTwo,\nthree.", "One.\nTwo,\nthree."),
        ("{{Infobox\n| a = b\n}}\nText.", "Text."),
        ("{| class='wikitable'\n|-\n! A\n|-\n| b\n|}\nAfter.", "After."),
        ("A<ref name=x /> b<ref>{{cite|t}}</ref>c<!-- no -->.", "A bc."),
        ("[[File:A.jpg|thumb|A [[b]] c]]Text [[Image:x.png]].", "Text."),
        ("Text.\n[[Category:Cities]]\n[[de:Stadt]]\n[[zh-min-nan:X]]", "Text."),
        ("See [[:Category:Cities]] and [[Help:X|help]].", "See Category:Cities and help."),
        ("* one\n* ''two''\n# three\n; term : meaning", "one\ntwo\nthree\nterm\nmeaning"),
        ("[http://a.b label], [http://a.b] and http://a.b.", "label, and."),
        ("H<sub>2</sub>O &amp; CO&nbsp;&ndash; x<br />y", "H2O & CO – x\ny"),
        ("<math>x^2</math>A<gallery>\nFile:a.jpg\n</gallery>", "A"),
        ("<nowiki>[[not a link]]</nowiki> __NOTOC__", "[[not a link]]"),
        ("<blockquote>Said.</blockquote><div>Block</div> rest", "Said.\nBlock\nrest"),
        ("-{zh-hans:博客;zh-hant:網誌}-是-{A|zh-cn:网站}-，-{T|標題}-好-{了}-。", "博客是网站，好了。"),
        ("{{unclosed\nText.", "{{unclosed\nText."),
        (
            "'''!Kung''' is a language of Africa.\n''|x|'' is a length.",
            "!Kung is a language of Africa.\n|x| is a length.",
        ),
        ("[[!Kung]] live there.\n* !Xóõ\n* ! and ?\n&#124; is a bar.", "!Kung live there.\n!Xóõ\n! and ?\n| is a bar."),
        ("[http://a.b !Oka Tokat] is a series.\n== !!! ==\nA band.", "!Oka Tokat is a series.\n!!!\nA band."),
        ("{| class='a'\n|-\n! '''A'''\n | [[b]]\nAfter.", "After."),
        ("", ""),
    ],
)
def test_mark_up_becomes_text(wikitext, text):
    assert plain_text(wikitext, Site().hidden) == text


def test_a_heading_is_kept_only_when_text_follows_it():
    wikitext = "Lead.\n== A ==\n=== A1 ===\nText.\n=== A2 ===\n{{t}}\n== B ==\n== C ''d'' ==\n* item\n== See ==\n{{x}}"
    assert plain_text(wikitext, Site().hidden) == "Lead.\nA\nA1\nText.\nC d\nitem"


def test_links_to_pictures_and_categories_are_left_out_in_the_language_of_the_wiki():
    assert SITE.hidden >= {"datei", "kategorie", "medium", "file", "category"} and "vorlage" in SITE.namespaces
    assert plain_text("Ein [[datei:A.jpg]]Text[[Kategorie:B|C]].", SITE.hidden) == "Ein Text."


MARKS = ["[[", "]]", "{{", "}}", "{|", "|}", "\n", "==", "<ref>", "</ref>", "'''", "a", "|", "-{", "}-"]


@settings(max_examples=100)
@given(st.lists(st.sampled_from(MARKS), max_size=20).map("".join))
def test_any_mark_up_gives_text_without_control_characters(wikitext):
    text = plain_text(wikitext, SITE.hidden)
    assert "\0" not in text and text == text.strip()


def test_every_item_is_a_document_a_reject_or_passed_over(folder):
    assert {type(i) for i in read(folder, "k.xml", dump(page("A", "x"), page("B", "", 0), page("C", "", 1)))} == {
        Document,
        Reject,
        PassedOver,
    }


# ---- dumps with all revisions


def revision(time: str, text: str) -> str:
    return f"    <revision>\n      <id>1</id>\n      <timestamp>{time}</timestamp>\n<text>{escape(text)}</text></revision>\n"


def history(title: str, *revisions: str) -> str:
    return f"  <page>\n    <title>{title}</title>\n    <ns>0</ns>\n{''.join(revisions)}  </page>\n"


@pytest.mark.parametrize("held_bytes", [1, 200, 8_000_000])
@pytest.mark.parametrize("chunk", [1, 50, 1 << 20])
def test_the_newest_revision_of_a_page_is_read_and_the_others_are_counted(folder, monkeypatch, held_bytes, chunk):
    monkeypatch.setattr(mediawiki, "HELD_BYTES", held_bytes)
    monkeypatch.setattr(streams, "CHUNK", chunk)
    old, new, older = (
        revision("2005-01-01T00:00:00Z", "Old."),
        revision("2011-02-03T04:05:06Z", "New."),
        revision("2004-01-01T00:00:00Z", "Older."),
    )
    twice = [revision("2001-01-01T00:00:00Z", "One."), revision("2001-01-01T00:00:00Z", "Two.")]
    pages = [
        history("A", old, new, older),
        history("B", *twice),
        history("C", new),
        history("D", revision("", "D."), old),
    ]
    data = dump(*pages, page("E", "No time."))
    items = read(folder, "history.xml", data)
    assert [item.text.decode() for item in items if isinstance(item, Document)] == [
        "New.",
        "Two.",
        "New.",
        "Old.",
        "No time.",
    ]
    older = [item for item in items if isinstance(item, PassedOver)]
    assert [item.reason for item in older] == ["older-revision"] * len(older)
    assert sum(item.number for item in older) == 4
    assert [data[item.position :][:6] for item in items] == [b"<page>"] * (5 + len(older))
    assert len({(item.position, item.piece) for item in items}) == len(items)  # a part may begin at each of them
    assert [item.record_id for item in items if isinstance(item, Document)] == list("ABCDE")


def test_a_page_with_many_revisions_takes_the_memory_of_two(folder, monkeypatch):
    monkeypatch.setattr(mediawiki, "HELD_BYTES", 100_000)
    monkeypatch.setattr(mediawiki, "MAX_PAGE_BYTES", 300_000)
    monkeypatch.setattr(streams, "CHUNK", 10_000)
    revisions = [revision(f"2005-01-01T00:{i // 60:02}:{i % 60:02}Z", f"{i} " + "x" * 2000) for i in range(1000)]
    items = read(folder, "many.xml", dump(history("A", *revisions), page("B", "Next.")))
    assert [item.text[:5] for item in items if isinstance(item, Document)] == [b"999 x", b"Next."]
    assert sum(item.number for item in items if isinstance(item, PassedOver)) == 999


# ---- dumps that are made to do harm


def test_a_dump_cannot_define_entities(folder):
    entities = (
        '<!DOCTYPE m [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c SYSTEM "file:///etc/passwd">]>\n'
    )
    with pytest.raises(ValueError, match=r"its first bytes are not those of a MediaWiki dump"):
        read(folder, "bomb.xml", entities.encode() + dump(page("A", "One.")))
    b, c = (page("B", "x").replace(">x<", f">&{name};<") for name in "bc")
    inside = page("D", "x").replace("<page>", "<page>" + entities)
    data = dump(page("A", "One."), b, c, inside).replace(b"<siteinfo>", b"<siteinfo>" + entities.encode())
    items = read(folder, "inside.xml", data)
    assert [getattr(item, "reason", item.text) for item in items] == [b"One.", "not-xml", "not-xml", "not-xml"]
    assert [item.detail.partition(":")[0] for item in items[1:3]] == ["undefined entity"] * 2


def test_a_page_of_more_wikitext_than_mediawiki_allows_is_rejected(folder, monkeypatch):
    monkeypatch.setattr(mediawiki, "MAX_CHARACTERS", 100)
    kept, rejected = read(folder, "long.xml", dump(page("A", "中" * 100), page("B", "x" * 101)))
    assert kept.record_id == "A"
    assert (rejected.reason, rejected.detail) == ("page-too-long", "101 characters, over 100")


def test_a_page_with_marks_that_are_never_closed_is_rejected_and_the_next_is_read(folder):
    rejected, kept = read(folder, "marks.xml", dump(page("A", "[[a|" * 20_000), page("B", "Two.")))
    assert (rejected.reason, rejected.record_id, kept.text) == ("not-wikitext", "A", b"Two.")
