"""Bold and italic in wikitext: which apostrophes are mark-up and which are text, by MediaWiki's rule (`Parser::doQuotes`).

Two apostrophes are italic, three bold, five both. Of four, the first is text; of more than five, all but the last five are.
When a line has an odd number of both, one of its bold marks is an apostrophe before an italic mark: l'''Iliade''.
"""

import re

_ROWS = re.compile("('{2,})")


def without_quotes(line: str) -> str:
    """Return a line without its marks of bold and italic.

    >>> without_quotes("''Titanic'''s crew"), without_quotes("L'''Iliade'' est '''Foo''''s")
    ("Titanic's crew", "L'Iliade est Foo's")
    """
    pieces = _ROWS.split(line)  # text, row of apostrophes, text, ...
    if len(pieces) == 1:
        return line
    num_bold = num_italic = 0
    for i in range(1, len(pieces), 2):
        length = len(pieces[i])
        as_text = 1 if length == 4 else max(0, length - 5)
        pieces[i - 1] += "'" * as_text
        pieces[i] = pieces[i][as_text:]
        num_bold += len(pieces[i]) != 2
        num_italic += len(pieces[i]) != 3
    if num_bold % 2 and num_italic % 2:
        bold = [i for i in range(1, len(pieces), 2) if len(pieces[i]) == 3]
        if bold:
            pieces[min(bold, key=lambda i: (_rank(pieces[i - 1]), i)) - 1] += "'"
    return "".join(pieces[::2])


def _rank(before: str) -> int:
    """Return how unlikely a bold mark after this text is to be an apostrophe: least after a word of one letter."""
    if before.endswith(" "):
        return 2
    return 0 if before[-2:-1] == " " and before[-1].isascii() else 1  # MediaWiki looks at bytes
