"""The script of a word, by the Unicode name of its first letter."""

import unicodedata
from functools import cache


def script_of(word: str) -> str:
    """Return the script of a word's first letter.

    >>> [script_of(word) for word in ("the", "中", "ですか", "2024", "!", "[UNK]")]
    ['Latin', 'Chinese characters', 'Hiragana', 'digits', 'punctuation', '[UNK]']
    """
    if word == "[UNK]":
        return word
    letter = next(filter(str.isalpha, word), None)
    if letter:
        return _script_of_letter(letter)
    return "digits" if any(map(str.isdigit, word)) else "punctuation"


@cache
def _script_of_letter(letter: str) -> str:
    name = unicodedata.name(letter, "other").split()[0].capitalize()
    return {"Cjk": "Chinese characters", "Fullwidth": "Latin", "Halfwidth": "Katakana"}.get(name, name)
