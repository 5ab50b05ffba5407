"""WordPiece: more words for a tokenizer of BERT's kind.

A new word is a whole word. The tokens of a text change only in words that begin with a new word: WordPiece takes the longest
word of its vocabulary that a text begins with. Such a word could become [UNK] only if the vocabulary lacks one of its
characters as a continuation ("##c"); no published vocabulary does.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.tokenizer_models.growth import (
    Candidate,
    Growth,
    GrowthConfig,
    best,
    free_ids,
    is_word,
    model_alone,
    tokenized,
)


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
    added = {token["content"]: token["id"] for token in content["added_tokens"]}
    places = free_ids(vocabulary | added, config.keep_unused)
    words, replaced = {}, []
    for candidate, (number, unused) in zip(best(candidates, config), places, strict=False):
        if unused is not None:
            vocabulary.pop(unused, None)
            replaced.append(unused)
        vocabulary[candidate.word] = number
        words[number] = candidate
    kept = [token for token in content["added_tokens"] if token["content"] not in set(replaced)]
    grown = {**content, "model": {**model, "vocab": vocabulary}, "added_tokens": kept}
    return Growth(content=grown, words=words, replaced=tuple(replaced))
