"""A quality filter of your own: Chinese web pages. The filters that come with bertloom are made for English.

    python examples/own_filter.py preprocess --input 'pages/*.jsonl' --vocab vocab.txt --out DATASET --quality-filter chinese

It is `bertloom` with one more filter. Only this process knows the filter. To use it with several workers or on a cluster,
make it a part of bertloom, which takes two steps:

1. Move this file, without the last function, to `pipeline/text/filters/chinese.py`.
2. In `pipeline/text/filters/registry.py`, import CHINESE and add it to FILTERS.

The filter removes lines that are not sentences, such as menus. Then it rejects pages that are too short, are not mostly
Chinese, or repeat their lines. Its thresholds suit news and encyclopedias; look at `rejects/rejects.jsonl.gz` to adapt them.
"""

import re
import sys

from pipeline.text.filters.filter import QualityFilter
from pipeline.text.lines import lines_of, with_lines

MIN_LINE_CHARACTERS = 30
MIN_CHARACTERS = 100
MIN_CHINESE_SHARE = 0.6
MAX_REPEATED_LINE_SHARE = 0.3

_CHINESE = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003134f]")
_SENTENCE_END = re.compile(r"[。！？…；：.!?][”’」』）)\"]*\Z")


def without_menus(text: str) -> str:
    """Return the text without lines that do not end like a sentence, unless they are long.

    >>> without_menus("首页 | 新闻 | 登录\\n今天下午，市图书馆新馆正式对外开放。")
    '今天下午，市图书馆新馆正式对外开放。'
    """
    lines = lines_of(text)
    return with_lines(text, [line if _is_sentence(line.strip()) else None for line in lines])


def _is_sentence(line: str) -> bool:
    return len(line) >= MIN_LINE_CHARACTERS or bool(_SENTENCE_END.search(line))


def chinese_fault(text: str) -> str:
    """Return why a page is rejected, in a few words, or an empty string.

    >>> chinese_fault("今天天气很好。")
    '7 characters'
    """
    characters = "".join(text.split())
    if len(characters) < MIN_CHARACTERS:
        return f"{len(characters)} characters"
    share = len(_CHINESE.findall(characters)) / len(characters)
    if share < MIN_CHINESE_SHARE:
        return f"{share:.0%} of the characters are Chinese"
    lines = [line.strip() for line in lines_of(text)]
    num_repeated = len(lines) - len({*lines})
    if num_repeated > MAX_REPEATED_LINE_SHARE * len(lines):
        return f"{num_repeated / len(lines):.0%} of the lines repeat another"
    return ""


CHINESE = QualityFilter(
    name="chinese",
    summary="removes lines that are not sentences, and rejects texts that are short, not Chinese or repetitive.",
    without_lines=without_menus,
    find_fault=chinese_fault,
)


def main() -> int:
    from pipeline.text.filters.registry import FILTERS

    FILTERS.append(CHINESE)
    from jobs.cli import main as bertloom  # after the filter is added: --help lists it

    return bertloom()


if __name__ == "__main__":
    sys.exit(main())
