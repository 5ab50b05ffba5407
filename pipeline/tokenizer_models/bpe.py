"""Byte-level BPE, as in ModernBERT and RoBERTa: training, and more words for a tokenizer of its kind.

A word is a pre-token, with the space before it, and its letters are bytes. So every text can be spelled, and [UNK] never
occurs.

New words are made as training makes them: merges that follow the old ones, each of the two neighbouring tokens that occur
together most often. So a text has its old tokens, some of them joined; where no new merge applies, nothing
changes. In Chinese, whose pre-tokens are whole phrases, new words are parts of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from bertloom.tokenizer_files import TokenizerFile
from pipeline.text.readable import BYTE_LETTERS
from pipeline.tokenizer_models.growth import Growth, GrowthConfig, Ids, grown, measured
from pipeline.tokenizer_models.merging import joined, merged, new_words
from pipeline.tokenizer_models.tokenizer_model import TokenizerModel
from pipeline.tokenizer_models.training import TrainingConfig, casing_steps, made
from pipeline.vocabulary import SPECIAL_WORDS


def parts(config: TrainingConfig) -> dict[str, Any]:
    """Return ModernBERT's normalizer and pre-tokenizer, with lower-casing and without accents on request."""
    steps = casing_steps(config)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    normalizer = {"type": "Sequence", "normalizers": [*steps, {"type": "NFC"}]} if steps else {"type": "NFC"}
    return {"normalizer": normalizer, "pre_tokenizer": byte_level, "decoder": byte_level}


def train(counts: Mapping[str, int], config: TrainingConfig) -> TokenizerFile:
    """Return a new tokenizer: the special words, the 256 bytes, and what training merges.

    It has fewer than `vocab_size` words if no more pairs occur `min_frequency` times.
    """
    model = merged(counts, config.vocab_size, config.min_frequency, [*BYTE_LETTERS])
    return made(parts(config), model, mask_takes_space=True)


def readable(word: str) -> str:
    """Return a word as people read it.

    >>> readable("ĠcafÃ©")
    ' café'
    """
    if not all(letter in BYTE_LETTERS for letter in word):
        return word
    return bytes(map(BYTE_LETTERS.__getitem__, word)).decode(errors="replace")


def grow(content: Mapping[str, Any], counts: Mapping[str, int], config: GrowthConfig) -> Growth:
    """Return the tokenizer with the merges that a text with these counts needs most."""
    model = content["model"]
    for name in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(name):
            raise ValueError(f"the tokenizer has a {name}: expected byte-level BPE, as in ModernBERT and RoBERTa")
    pairs = joined(content, counts, config, readable)
    merges = [*model["merges"], *([pair.first, pair.second] for pair in pairs)]

    def model_with(ids: Ids, outside: Ids, replaced: Collection[str]) -> dict[str, Any]:
        kept = {word: number for word, number in model["vocab"].items() if word not in replaced}
        return {**model, "vocab": {**kept, **outside, **ids}, "merges": merges}

    return measured(grown(content, new_words(pairs, model["vocab"]), config, model_with), counts)


BPE = TokenizerModel(
    name="bpe",
    type="BPE",
    summary="byte-level, as in ModernBERT and RoBERTa, in a tokenizer.json",
    file="tokenizer.json",
    is_cased=True,
    fewest=len(SPECIAL_WORDS) + len(BYTE_LETTERS) + 1,
    not_for_it=dict.fromkeys(("character_coverage", "chinese_frequency"), "byte-level BPE can spell every character"),
    why_fewer="no more pairs occur {} times",
    parts=parts,
    train=train,
    content=lambda tokenizer: tokenizer.files()["tokenizer.json"],
    readable=readable,
    grow=grow,
)
