"""Training a vocabulary from the counts of a text's words, and how a vocabulary splits these words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.text.scripts import script_of
from pipeline.vocabulary import MAX_WORD_CHARACTERS, MIN_WORDS, SPECIAL_WORDS, Vocabulary

MAX_TRAINING_WORDS = (
    20_000_000  # words of the trainer's text, to which a larger corpus is scaled down: about 10 seconds
)


def train_vocabulary(
    counts: Mapping[str, int],
    vocab_size: int,
    min_frequency: int = 2,
    character_coverage: float = 0.9995,
    chinese_frequency: int | None = None,
) -> list[str]:
    """Return the words of a new vocabulary: the special ones, characters, and the pieces that WordPiece training merges.

    The result has fewer than `vocab_size` words if no more pairs occur `min_frequency` times. The most frequent characters
    that make up `character_coverage` of the text are kept, and the Chinese ones that occur `chinese_frequency` times. A word
    with another character is [UNK], and so is a word that is too long.

    The same counts give the same words. `tokenizers` numbers characters in the order of a hash table and breaks ties by
    these numbers, so the characters are passed as special words, which gives them fixed numbers.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.pre_tokenizers import CharDelimiterSplit
    from tokenizers.trainers import WordPieceTrainer

    if vocab_size <= MIN_WORDS:
        raise ValueError(
            f"vocab_size={vocab_size}: expected more than {MIN_WORDS}; BERT's vocabularies have about 30,000 words"
        )
    counts = {word: count for word, count in counts.items() if len(word) <= MAX_WORD_CHARACTERS}
    alphabet = _alphabet(counts, vocab_size - len(SPECIAL_WORDS), character_coverage, chinese_frequency)
    known = {word[-1] for word in alphabet}
    spelled = {word: count for word, count in counts.items() if known.issuperset(word)}
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = CharDelimiterSplit(" ")
    trainer = WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[*SPECIAL_WORDS, *alphabet],
        show_progress=False,
    )
    tokenizer.train_from_iterator(_scaled_text(spelled), trainer)
    trained = tokenizer.get_vocab()
    return sorted(trained, key=trained.__getitem__)


def _alphabet(counts: Mapping[str, int], room: int, coverage: float, chinese_frequency: int | None) -> list[str]:
    """Return the characters to keep, and "##" plus those that occur inside words: at most `room` in all."""
    characters: Counter[str] = Counter()
    inside: set[str] = set()
    for word, count in counts.items():
        for character in word:
            characters[character] += count
        inside.update(word[1:])
    left = math.ceil(characters.total() * coverage)
    kept: list[str] = []
    for character, count in sorted(characters.items(), key=lambda item: (-item[1], item[0])):
        slots = 2 if character in inside else 1
        if slots > room:
            break
        if left <= 0 and not (
            chinese_frequency and count >= chinese_frequency and script_of(character) == "Chinese characters"
        ):
            continue
        kept.append(character)
        left, room = left - count, room - slots
    kept.sort()
    return kept + [f"##{character}" for character in kept if character in inside]


def _scaled_text(counts: Mapping[str, int]) -> Iterator[str]:
    """Yield text in which each word occurs as often as counted, scaled down to at most MAX_TRAINING_WORDS words."""
    total = max(1, sum(counts.values()))
    for word in sorted(counts):
        count = counts[word]
        if total > MAX_TRAINING_WORDS:
            count = count * MAX_TRAINING_WORDS // total
        for start in range(0, count, 4096):
            yield f"{word} " * min(4096, count - start)


@dataclass
class Coverage:
    """How a vocabulary splits the words of a text into tokens."""

    num_words: int = 0
    num_tokens: int = 0
    num_unknown: int = 0


def measure_coverage(vocabulary: Vocabulary, counts: Mapping[str, int]) -> dict[str, Coverage]:
    """Return script -> coverage of its words, for a text with these counts; the script with most words comes first."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece

    tokenizer = Tokenizer(WordPiece(vocabulary.ids, unk_token="[UNK]", max_input_chars_per_word=MAX_WORD_CHARACTERS))
    words = list(counts)
    found: dict[str, Coverage] = {}
    for start in range(0, len(words), 65536):
        batch = words[start : start + 65536]
        for word, encoding in zip(batch, tokenizer.encode_batch_fast(batch, add_special_tokens=False), strict=True):
            coverage = found.setdefault(script_of(word), Coverage())
            coverage.num_words += counts[word]
            coverage.num_tokens += counts[word] * len(encoding.ids)
            coverage.num_unknown += counts[word] * encoding.ids.count(vocabulary.unk)
    return dict(sorted(found.items(), key=lambda item: (-item[1].num_words, item[0])))
