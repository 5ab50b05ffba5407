"""How an answer is held against the true ones: SQuAD's rules by words, and CMRC 2018's by characters.

Re-implemented from the evaluation scripts of SQuAD 1.1 and 2.0 (words) and CMRC 2018 (characters; DRCD is measured by
them too). Both are the best over all true answers; an unanswerable question has the one true answer "".
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

Rules = Literal["words", "characters"]

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)
CMRC_PUNCTUATION = str.maketrans("", "", "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
CHINESE = re.compile(r"([\u4e00-\u9fa5])")
LATIN = re.compile(
    r"""
      [][(){}<>;@#$%&?!"—–]             # a sign that stands alone
    | \.\.+
    | ,(?!\d)                           # a comma, but not that of 1,000
    | \.(?=\W*$)                        # a full stop at the end
    | (?: [^][(){}<>;@#$%&?!"—–,.\s] | ,(?=\d) | \.(?!\.|\W*$) )+
    """,
    re.VERBOSE,
)
"""Words between Chinese characters. CMRC's script asks NLTK's word_tokenize; on the answers and paragraphs of CMRC 2018
this gives the same words in all but a few in a thousand, those with an apostrophe."""


def rules_for(answers: Sequence[str]) -> Rules:
    """ "characters" if more than a quarter of what answers are written in is Chinese; years and names often are not."""
    text = "".join("".join(answers).split())
    return "characters" if 4 * len(CHINESE.findall(text)) > len(text) else "words"


def scores(predicted: str, answers: Sequence[str], rules: Rules) -> tuple[float, float]:
    """(exact match, F1) of a predicted answer against the true ones, each 0 to 1.

    >>> scores("the Paris", ["Paris, France"], "words")
    (0.0, 0.6666666666666666)
    >>> scores("北京市", ["北京"], "characters")
    (0.0, 0.8)
    """
    cut: Callable[[str], list[str]]
    if rules == "words":
        true = [answer for answer in answers if normalize(answer)] or [""]
        exact = any(normalize(predicted) == normalize(answer) for answer in true)
        cut, common = words_of, common_words
    else:
        true = list(answers) or [""]
        exact = any(without_punctuation(predicted) == without_punctuation(answer) for answer in true)
        cut, common = characters_of, common_run
    return float(exact), max(f1(cut(predicted), cut(answer), common) for answer in true)


def f1(predicted: list[str], true: list[str], common: Callable[[list[str], list[str]], int]) -> float:
    """Harmonic mean of the shares of both that are common; of two empty ones 1."""
    if not predicted or not true:
        return float(predicted == true)
    return 2 * common(predicted, true) / (len(predicted) + len(true))


def normalize(text: str) -> str:
    """SQuAD's: lower case, without punctuation, articles and needless spaces."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def words_of(text: str) -> list[str]:
    """The words that SQuAD's F1 counts."""
    return normalize(text).split()


def common_words(first: list[str], second: list[str]) -> int:
    """How many words two answers have in common, wherever they stand."""
    return sum((Counter(first) & Counter(second)).values())


def without_punctuation(text: str) -> str:
    """What CMRC's exact match compares."""
    return text.lower().strip().translate(CMRC_PUNCTUATION)


def characters_of(text: str) -> list[str]:
    """The segments that CMRC's F1 counts: Chinese characters, and words between them."""
    parts = CHINESE.split(without_punctuation(text))
    return [word for part in parts for word in ([part] if CHINESE.fullmatch(part) else LATIN.findall(part))]


def common_run(first: list[str], second: list[str]) -> int:
    """The length of the longest run of segments that two answers have in common."""
    longest, row = 0, [0] * (len(second) + 1)
    for segment in first:
        row = [0] + [row[place] + 1 if segment == other else 0 for place, other in enumerate(second)]
        longest = max(longest, *row)
    return longest
