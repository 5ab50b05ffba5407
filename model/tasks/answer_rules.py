"""Scores of an answer against the true ones: SQuAD's rules by words, and CMRC 2018's by characters.

Reimplemented from the evaluation scripts of SQuAD 1.1 and 2.0 (words) and of CMRC 2018 (characters; used for DRCD, too).
Each score is the best over all true answers. The true answer to an unanswerable question is "".
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from typing import Literal

Rules = Literal["words", "characters"]

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)
CMRC_PUNCTUATION = str.maketrans("", "", "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
CHINESE = re.compile(r"([\u4e00-\u9fa5])")
LATIN = re.compile(
    r"""
      [][(){}<>;@#$%&?!"—–]             # a sign
    | \.\.+
    | ,(?!\d)                           # a comma, except in 1,000
    | \.(?=\W*$)                        # a full stop at the end
    | (?: [^][(){}<>;@#$%&?!"—–,.\s] | ,(?=\d) | \.(?!\.|\W*$) )+
    """,
    re.VERBOSE,
)
"""Words between Chinese characters. CMRC's script uses NLTK's word_tokenize. On the answers and paragraphs of CMRC 2018
the words are the same, except for a few in a thousand with an apostrophe."""


def rules_for(answers: Sequence[str]) -> Rules:
    """Return "characters" if more than a quarter of the answers' characters are Chinese: years and names often are not."""
    text = "".join("".join(answers).split())
    return "characters" if 4 * len(CHINESE.findall(text)) > len(text) else "words"


def scores(predicted: str, answers: Sequence[str], rules: Rules) -> tuple[float, float]:
    """Return exact match and F1 of a predicted answer against the true ones, each 0 to 1.

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
    """Return the harmonic mean of the shares of both answers that are common; 1 for two empty answers."""
    if not predicted or not true:
        return float(predicted == true)
    return 2 * common(predicted, true) / (len(predicted) + len(true))


def normalize(text: str) -> str:
    """Return a text in lower case without punctuation, articles and extra spaces, as SQuAD compares it."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def words_of(text: str) -> list[str]:
    """Return the words that SQuAD's F1 counts."""
    return normalize(text).split()


def common_words(first: list[str], second: list[str]) -> int:
    """Return the number of words that two answers have in common, in any order."""
    return sum((Counter(first) & Counter(second)).values())


def without_punctuation(text: str) -> str:
    """Return a text as CMRC's exact match compares it."""
    return text.lower().strip().translate(CMRC_PUNCTUATION)


def characters_of(text: str) -> list[str]:
    """Return the segments that CMRC's F1 counts: Chinese characters, and the words between them."""
    parts = CHINESE.split(without_punctuation(text))
    return [word for part in parts for word in ([part] if CHINESE.fullmatch(part) else LATIN.findall(part))]


def common_run(first: list[str], second: list[str]) -> int:
    """Return the length of the longest run of segments that two answers have in common."""
    return SequenceMatcher(None, first, second, autojunk=False).find_longest_match().size
