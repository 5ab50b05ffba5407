"""Unigram, as in XLM-R and ALBERT: training, and more words for a tokenizer of its kind.

Words are separated by white space and have "▁" in front. Of all ways to make a word from pieces, the most probable one is
taken. SentencePiece, the original, trains these models. The library `tokenizers` could train them, too, but it adds
probabilities in the order of a hash table, so the same text would give another model in every process.

New words join old pieces that follow each other often, as for BPE. The logarithm of a new piece's probability is the sum of
those of its two parts and a little more (`BONUS`), so it wins over them, and the longer of two new pieces wins over the
shorter. It is never below the smallest of the old pieces, because the library derives that of [UNK] from the smallest. So
the tokens of a text that has none of the new pieces as a part of a word stay exactly the same.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from bertloom.tokenizer_files import TokenizerFile
from pipeline.tokenizer_models.growth import Growth, GrowthConfig, Ids, grown, measured
from pipeline.tokenizer_models.merging import joined, new_words
from pipeline.tokenizer_models.tokenizer_model import TokenizerModel
from pipeline.tokenizer_models.training import TrainingConfig, casing_steps, kept_characters, limited, made
from pipeline.vocabulary import MIN_WORDS, SPECIAL_WORDS

MAX_DISTINCT_CHARACTERS = 1 << 22
"""Most characters of the distinct words that training reads: about 5 minutes."""
NUM_THREADS = 4
"""Threads of the trainer. Another number adds in another order, so it is the same on every machine."""
BONUS = 1e-4
"""What a new piece has more than its parts. It is above the rounding of sums, and below most differences between pieces."""
NOT_FOR_TRAINING = "\u2585\u2047\t\n\0"
"""Characters that SentencePiece keeps for itself."""


def parts(config: TrainingConfig) -> dict[str, Any]:
    """Return XLM-R's pre-tokenizer, and NFKC in the place of its table of characters, which is almost the same."""
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    steps = [*casing_steps(config), {"type": "NFKC"}]
    return {
        "normalizer": {"type": "Sequence", "normalizers": steps} if len(steps) > 1 else steps[0],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "decoder": metaspace,
    }


def train(counts: Mapping[str, int], config: TrainingConfig) -> TokenizerFile:
    """Return a new tokenizer: the special words, and the pieces that make the text most probable.

    The most frequent characters that make up `character_coverage` of the text are kept, and the Chinese ones that occur
    `chinese_frequency` times. Others become [UNK].
    """
    import sentencepiece

    limit = limited(counts, MAX_DISTINCT_CHARACTERS)
    characters = kept_characters(counts, config.vocab_size - len(SPECIAL_WORDS), config)
    runs = spelled(limit, characters)
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(f"{run}\t{runs[run]}" for run in sorted(runs)),
        input_format="tsv",
        model_writer=file,
        model_type="unigram",
        vocab_size=config.vocab_size - len(SPECIAL_WORDS) + 1,
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        unk_id=0,
        bos_id=-1,
        eos_id=-1,
        num_threads=NUM_THREADS,
        minloglevel=2,
    )
    made_pieces = sentencepiece.SentencePieceProcessor(model_proto=file.getvalue())
    pieces = [(made_pieces.id_to_piece(i), made_pieces.get_score(i)) for i in range(1, made_pieces.get_piece_size())]
    vocabulary = [*((word, 0.0) for word in SPECIAL_WORDS), *pieces]
    model = {"type": "Unigram", "unk_id": SPECIAL_WORDS.index("[UNK]"), "vocab": vocabulary, "byte_fallback": False}
    return made(parts(config), model, mask_takes_space=True)


def spelled(counts: Mapping[str, int], characters: list[str]) -> Counter[str]:
    """Return the parts of words between characters that are not kept, and how often each occurs."""
    known = "".join(set(characters) - {*NOT_FOR_TRAINING})
    runs: Counter[str] = Counter()
    for word, count in counts.items():
        for run in re.findall(f"[{re.escape(known)}]+", word):
            runs[run] += count
    return runs


def readable(word: str) -> str:
    """Return a word as people read it."""
    return word.replace("▁", " ")


def grow(content: Mapping[str, Any], counts: Mapping[str, int], config: GrowthConfig) -> Growth:
    """Return the tokenizer with the pieces that a text with these counts needs most."""
    model = content["model"]
    scores = dict(model["vocab"])
    lowest = min(scores.values())
    pairs = joined(content, counts, config, readable)
    new = new_words(pairs, scores)
    for pair in pairs:
        score = max(lowest, scores[pair.first] + scores[pair.second] + BONUS)
        scores[pair.word] = max(score, scores.get(pair.word, score))

    def model_with(ids: Ids, outside: Ids, replaced: Collection[str]) -> dict[str, Any]:
        rows = {number: [word, score] for number, (word, score) in enumerate(model["vocab"]) if word not in replaced}
        rows |= {number: [word, lowest] for word, number in outside.items()}
        rows |= {number: [word, scores[word]] for word, number in ids.items()}
        return {**model, "vocab": [rows[number] for number in range(len(rows))]}

    return measured(grown(content, new, config, model_with), counts)


UNIGRAM = TokenizerModel(
    name="unigram",
    type="Unigram",
    summary="as in XLM-R and ALBERT, in a tokenizer.json",
    file="tokenizer.json",
    is_cased=True,
    fewest=MIN_WORDS + 1,
    not_for_it={"min_frequency": "Unigram chooses pieces by their probability and merges none"},
    why_fewer="the text has no more pieces",
    packages=("sentencepiece",),
    parts=parts,
    train=train,
    content=lambda tokenizer: tokenizer.files()["tokenizer.json"],
    readable=readable,
    grow=grow,
)
