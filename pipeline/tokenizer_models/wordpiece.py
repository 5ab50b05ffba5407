"""WordPiece, BERT's own model: training, and more words for a tokenizer of its kind.

A new word is a whole word. The tokens of a text change only in words that begin with a new word: WordPiece takes the longest
word of its vocabulary that a text begins with. Such a word could become [UNK] only if the vocabulary lacks one of its
characters as a continuation ("##c"); no published vocabulary does.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from bertloom.tokenizer_files import TokenizerFile
from pipeline.tokenizer_models.growth import (
    Candidate,
    Growth,
    GrowthConfig,
    Ids,
    best,
    grown,
    is_word,
    model_alone,
    tokenized,
)
from pipeline.tokenizer_models.tokenizer_model import TokenizerModel
from pipeline.tokenizer_models.training import TrainingConfig, kept_characters
from pipeline.vocabulary import MAX_WORD_CHARACTERS, MIN_WORDS, SPECIAL_WORDS, Vocabulary, tokenizer_json

MAX_TRAINING_WORDS = (
    20_000_000  # words of the trainer's text, to which a larger corpus is scaled down: about 10 seconds
)


def parts(config: TrainingConfig) -> dict[str, Any]:
    """Return BERT's normalizer and pre-tokenizer."""
    content = json.loads(tokenizer_json(Vocabulary(SPECIAL_WORDS), config.do_lower_case, config.strip_accents))
    return {name: content[name] for name in ("normalizer", "pre_tokenizer")}


def train(counts: Mapping[str, int], config: TrainingConfig) -> TokenizerFile:
    """Return a new tokenizer of BERT's kind."""
    from bertloom.tokenizer_files import parse_tokenizer

    vocabulary = Vocabulary(tuple(train_vocabulary(counts, config)))
    content = tokenizer_json(vocabulary, config.do_lower_case, config.strip_accents)
    return parse_tokenizer(content, "the new tokenizer")


def train_vocabulary(counts: Mapping[str, int], config: TrainingConfig) -> list[str]:
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

    counts = {word: count for word, count in counts.items() if len(word) <= MAX_WORD_CHARACTERS}
    alphabet = _alphabet(counts, config)
    known = {word[-1] for word in alphabet}
    spelled = {word: count for word, count in counts.items() if known.issuperset(word)}
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = CharDelimiterSplit(" ")
    trainer = WordPieceTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=[*SPECIAL_WORDS, *alphabet],
        show_progress=False,
    )
    tokenizer.train_from_iterator(_scaled_text(spelled), trainer)
    trained = tokenizer.get_vocab()
    return sorted(trained, key=trained.__getitem__)


def _alphabet(counts: Mapping[str, int], config: TrainingConfig) -> list[str]:
    """Return the characters to keep, and "##" plus those that occur inside words."""
    inside = {character for word in counts for character in word[1:]}
    room = config.vocab_size - len(SPECIAL_WORDS)
    kept = kept_characters(counts, room, config, slots=lambda character: 2 if character in inside else 1)
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


def grow(content: Mapping[str, Any], counts: Mapping[str, int], config: GrowthConfig) -> Growth:
    """Return the tokenizer with the words that a text with these counts needs most."""
    model = content["model"]
    vocabulary: dict[str, int] = dict(model["vocab"])
    unk, prefix = vocabulary[model["unk_token"]], model["continuing_subword_prefix"]
    candidates = []
    for word, count, pieces in tokenized(model_alone(content), counts):
        is_unknown = unk in pieces
        if (
            (is_unknown or is_word(word))
            and len(word) <= model["max_input_chars_per_word"]
            and word[: len(prefix)] != prefix
        ):
            saved = count * max(len(pieces) - 1, is_unknown)
            candidates.append(Candidate(word=word, count=count, saved=saved, pieces=tuple(pieces)))

    def model_with(ids: Ids, outside: Ids, replaced: Collection[str]) -> dict[str, Any]:
        kept = {word: number for word, number in vocabulary.items() if word not in replaced}
        return {**model, "vocab": {**kept, **outside, **ids}}

    return grown(content, best(candidates, config), config, model_with)


WORDPIECE = TokenizerModel(
    name="wordpiece",
    type="WordPiece",
    summary="as in BERT, in a vocab.txt",
    file="vocab.txt",
    is_cased=False,
    fewest=MIN_WORDS + 1,
    why_fewer="no more pairs occur {} times",
    parts=parts,
    train=train,
    content=lambda tokenizer: tokenizer.vocab_txt,
    grow=grow,
)
