"""The slow, obvious twins of the words of a text, and of the search for runs of words that test sets hold."""

import unicodedata

RUN_WORDS = 13
OWN = (
    "CJK UNIFIED",
    "CJK COMPATIBILITY IDEOGRAPH",
    "HIRAGANA",
    "HENTAIGANA",
    "KATAKANA",
    "VERTICAL KANA",
    "HANGZHOU NUMERAL",
)
OWN_MARKS = "〇々〻〼ー\U00016ff0\U00016ff1"


def is_own_word(character):
    """Whether a letter is a word alone: a Chinese character or kana."""
    name = unicodedata.name(character, "")
    return character in OWN_MARKS or name.startswith(OWN)


def words_of(text):
    text = unicodedata.normalize("NFKC", text).casefold()
    words, run = [], ""
    for character in text:
        category = unicodedata.category(character)
        if category == "Cf":
            continue
        is_letter = category[0] in "LNM"
        if is_letter and not is_own_word(character):
            run += character
            continue
        if run:
            words.append(run)
        run = ""
        if is_letter:
            words.append(character)
    return words + [run] * bool(run)


def runs_of(words):
    return {tuple(words[i : i + RUN_WORDS]) for i in range(len(words) - RUN_WORDS + 1)}


def sets_shared(text, test_sets):
    """Names of the test sets, each a list of texts, that share a run of words with a text."""
    runs = runs_of(words_of(text))
    return sorted(name for name, texts in test_sets.items() if any(runs & runs_of(words_of(other)) for other in texts))


def sets_of_pieces(pieces, test_sets):
    """The same for each piece of one document: a run that reaches over borders is in each piece that it touches."""
    words = [(word, number) for number, piece in enumerate(pieces) for word in words_of(piece)]
    found = [set() for _ in pieces]
    for name, texts in test_sets.items():
        known = set().union(*(runs_of(words_of(text)) for text in texts))
        for i in range(len(words) - RUN_WORDS + 1):
            window = words[i : i + RUN_WORDS]
            if tuple(word for word, _ in window) in known:
                for _, number in window:
                    found[number].add(name)
    return [sorted(names) for names in found]
