"""XML that is made to take all memory: entities that expand, and tags without end."""

from pathlib import Path

import pytest

from pipeline.inputs.discovery import find_sources
from pipeline.inputs.documents import read_documents
from pipeline.inputs.sources import Split

ENTITIES = "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9))
BOMB = f'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">{ENTITIES}]>'
PAGE = "<page>{}<title>T</title><ns>0</ns><revision><text>{}</text></revision></page>"


@pytest.mark.parametrize(
    "content, reason",
    [
        (f"{BOMB}<siteinfo>&j;</siteinfo>{PAGE.format('', '&j; text')}", "undefined entity"),
        (f"<siteinfo>{BOMB}&j;</siteinfo>{PAGE.format('', '&j; text')}", "undefined entity"),
        (PAGE.format(BOMB, "&j; text"), "not well-formed"),
        (PAGE.format("<a>" * 300_000 + "</a>" * 300_000, "text"), "more than 10000 tags"),
        (PAGE.format("<a/>" * 300_000, "text"), "more than 10000 tags"),
    ],
    ids=["entities before the head", "entities in the head", "entities in a page", "nested tags", "many tags"],
)
def test_a_page_of_entities_or_tags_is_a_reject(tmp_path: Path, content, reason):
    (tmp_path / "a.xml").write_text(f"<mediawiki>\n{content}{PAGE.format('', 'Good.')}\n</mediawiki>")
    [source] = find_sources([str(tmp_path / "a.xml")])
    bad, good = read_documents(Split(source, 0, None))
    assert bad.reason == "not-xml" and bad.detail.startswith(reason)
    assert good.text == b"Good."
