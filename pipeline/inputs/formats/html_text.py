"""The text of pages in HTML. Resiliparse extracts their main content, without tables and menus."""

from pipeline.inputs.formats.html_tree import parse_html

_SKIPPED = ["table", "nav", "header", "footer", "aside", "form"]


def text_of_page(page: bytes, charset: str | None) -> str:
    """Return the main content of a page, each line of which is a paragraph. Raises ValueError if it takes too long.

    charset: name of its encoding, if that is known. Unknown names are ignored, and the encoding is found from the bytes.
    """
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5

    named = map_encoding_to_html5(charset, fallback_utf8=False) if charset else None
    html = bytes_to_str(page, named or detect_encoding(page) or "utf-8")
    text = extract_plain_text(
        parse_html(html), main_content=True, list_bullets=False, alt_texts=False, comments=False, skip_elements=_SKIPPED
    )
    return "\n".join(filter(None, map(str.strip, text.split("\n"))))
