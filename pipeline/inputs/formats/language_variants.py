"""The variants of words in wikis that are written in several scripts: -{zh-hans:博客;zh-hant:網誌}-.

One variant is kept, by the rules of MediaWiki (`ConverterRule`) for a reader who has not chosen a variant: the first of
VARIANTS that the mark-up has. Other words are not converted.
"""

import re

MAX_DEPTH = 10  # of nested mark-up, as in MediaWiki

# In each language: its own code, then the variants in the order in which they replace it
VARIANTS = (
    "zh zh-hans zh-hant zh-cn zh-tw zh-hk zh-sg zh-mo zh-my gan gan-hans gan-hant wuu wuu-hans wuu-hant "
    "sr sr-ec sr-cyrl sr-el sr-latn sh sh-latn sh-cyrl kk kk-cyrl kk-latn kk-arab kk-kz kk-tr kk-cn "
    "ku ku-latn ku-arab uz uz-latn uz-cyrl tg tg-latn tly tly-cyrl crh crh-latn crh-cyrl iu ike-cans ike-latn "
    "shi shi-latn shi-tfng zgh zgh-latn ban ban-bali ban-x-dharma ban-x-palmleaf ban-x-pku mni mni-beng"
).split()
_ORDER = {variant: i for i, variant in enumerate(VARIANTS)}
_FLAGS = frozenset("ATRD-HN")
_MARKS = re.compile(r"-\{|\}-")
_NAME = "|".join(sorted(VARIANTS, key=len, reverse=True))
_SEPARATOR = re.compile(rf";(?=\s*(?:(?:{_NAME})\s*:|\Z)|[^;:]*=>)", re.IGNORECASE)  # not the one in "a;b"


def with_one_variant(text: str) -> str:
    """Return a text with one variant of each of its marked words.

    >>> with_one_variant("《-{zh-hans:Re:从零;zh-hant:Re:從零}-》-{H|zh-cn:网站;zh-tw:網站}-是-{小说}-")
    '《Re:从零》是小说'
    """
    opened: list[list[str]] = [[]]  # the pieces of the text, then of each mark-up that has begun
    end = 0
    for mark in _MARKS.finditer(text):
        opened[-1].append(text[end : mark.start()])
        end = mark.end()
        if mark[0] == "-{" and len(opened) <= MAX_DEPTH:
            opened.append([])
        elif mark[0] == "}-" and len(opened) > 1:
            shown = _shown("".join(opened.pop()))
            opened[-1].append(shown)
        else:
            opened[-1].append(mark[0])
    opened[-1].append(text[end:])
    return "-{".join("".join(pieces) for pieces in opened)


def _shown(mark_up: str) -> str:
    """Return what a reader sees of the text between -{ and }-."""
    before, bar, rules = mark_up.partition("|")
    names = {name.strip() for name in before.split(";")} if bar else set()
    flags = names & _FLAGS
    if not bar:
        rules = mark_up
    if "R" in flags or (not flags and names & _ORDER.keys()):  # as it is: -{R|text}-, -{zh-hans;zh-hant|text}-
        return rules
    if flags & {"-", "H", "T", "N", "D"}:  # rules, titles, names and descriptions of variants
        return ""
    variants = _variants_of(rules)
    return variants[min(variants, key=_ORDER.__getitem__)] if variants else rules


def _variants_of(rules: str) -> dict[str, str]:
    """Return variant -> text of `zh-hans:text;zh-hant:text`; empty for anything else."""
    variants: dict[str, str] = {}
    for rule in _SEPARATOR.split(rules):
        name, colon, shown = rule.partition(":")
        variant = name.rpartition("=>")[2].strip().lower()  # 一=>zh-hans:text is for one direction
        if not colon:
            continue
        if variant not in _ORDER:
            return {}
        if shown.strip():
            variants[variant] = shown.strip()
    return variants
