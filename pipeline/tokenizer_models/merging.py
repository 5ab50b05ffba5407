"""Byte-pair merges: those that training makes of letters, and those that join the tokens of an existing tokenizer.

The library numbers the letters in the order of their code points, and of pairs that occur equally often it merges those with
the smallest numbers first. So nothing depends on the order of the words.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.tokenizer_models.growth import Candidate, GrowthConfig, check_number, is_word, model_alone, tokenized
from pipeline.tokenizer_models.training import limited, scaled
from pipeline.vocabulary import SPECIAL_WORDS

MAX_DISTINCT_CHARACTERS = 1 << 23
"""Most characters of the distinct words that training keeps in memory, which takes 1.2 GB."""
MAX_TEXT_CHARACTERS = 1 << 28
"""Most characters of the trainer's text."""
FIRST_LETTER = 0x10000
"""Code point of the letter of token 0, where tokens are the letters of words: above those of all white space."""
MAX_TOKENS = 0x110000 - FIRST_LETTER
"""Most tokens that have a letter: about a million."""


@dataclass(frozen=True, kw_only=True)
class Joined:
    """A new token: two tokens, each old or new, that follow each other."""

    first: str
    second: str
    pieces: tuple[int, ...]
    """Ids of the old tokens that it is made of."""

    @property
    def word(self) -> str:
        """The token."""
        return self.first + self.second


def merged(counts: Mapping[str, int], vocab_size: int, min_frequency: int, letters: Sequence[str]) -> dict[str, Any]:
    """Return the model of a tokenizer.json that BPE training makes, in which the special words come first."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import CharDelimiterSplit
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = CharDelimiterSplit(" ")
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=list(SPECIAL_WORDS),
        initial_alphabet=list(letters),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_text(limited(counts, MAX_DISTINCT_CHARACTERS)), trainer)
    model: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return model


def _text(counts: Mapping[str, int]) -> Iterator[str]:
    for word, count in scaled(counts, MAX_TEXT_CHARACTERS):
        for start in range(0, count, 4096):
            yield f"{word} " * min(4096, count - start)


def joined(
    content: Mapping[str, Any], counts: Mapping[str, int], config: GrowthConfig, readable: Callable[[str], str]
) -> list[Joined]:
    """Return the tokens that save most when they are added one after the other; ValueError if there are too few.

    The tokens of a word are letters for the trainer, and unknown characters separate words. A token that is joined with
    another one later is among them.
    """
    model = model_alone(content)
    tokens = {number: token for token, number in model.get_vocab().items()}
    unk = _unknown(content["model"])
    if len(tokens) > MAX_TOKENS:
        raise ValueError(f"the tokenizer has {len(tokens):,} words: expected at most {MAX_TOKENS:,}, to get new ones")
    words: Counter[str] = Counter()
    for word, count, ids in tokenized(model, counts):
        if len(ids) > 1 and is_word(readable(word)):
            for run in "".join(" " if number == unk else _letter(number) for number in ids).split():
                words[run] += count
    letters = sorted({letter for word in words for letter in word})
    size = config.num_words
    while True:
        merges = merged(words, len(SPECIAL_WORDS) + len(letters) + size, config.min_frequency, letters)["merges"]
        found, new = [], set()
        for sides in merges:
            first, second = ("".join(tokens[_token(letter)] for letter in side) for side in sides)
            found.append(Joined(first=first, second=second, pieces=tuple(map(_token, "".join(sides)))))
            if model.token_to_id(first + second) is None:
                new.add(first + second)
        if len(new) == config.num_words:
            return found
        check_number(len(new) if len(merges) < size else config.num_words, config)
        size += config.num_words - len(new)


def new_words(pairs: Sequence[Joined], vocabulary: Container[str]) -> list[Candidate]:
    """Return the tokens that a vocabulary does not have yet. What they save is not known."""
    found = {pair.word: Candidate(word=pair.word, count=0, saved=0, pieces=pair.pieces) for pair in reversed(pairs)}
    return [found[word] for word in dict.fromkeys(pair.word for pair in pairs) if word not in vocabulary]


def _letter(token: int) -> str:
    """Return the letter of a token."""
    return chr(FIRST_LETTER + token)


def _token(letter: str) -> int:
    return ord(letter) - FIRST_LETTER


def _unknown(model: Mapping[str, Any]) -> int | None:
    """Return the id of the token for unknown characters."""
    vocabulary = model["vocab"]
    return vocabulary.get(model.get("unk_token")) if isinstance(vocabulary, dict) else model["unk_id"]
