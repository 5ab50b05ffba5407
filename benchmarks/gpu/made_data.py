"""A data set of random words for a machine without Beam. Its pairs, masks and shards are made by the pipeline's functions.

Words have the frequencies of Zipf's law. Lengths of sentences and documents are those of an encyclopedia, so the examples
have the lengths, and therefore the cost, of real ones.
"""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bertloom import storage
from bertloom.arrays import id_type
from bertloom.manifest import FORMAT, manifest_sha256, manifest_text
from bertloom.shards import FORMAT_VERSION, ShardName, digest_of, shards_table
from pipeline.examples.configuration import ExamplesConfig
from pipeline.examples.shards import write_shard
from pipeline.stages.parquet import parquet_bytes
from pipeline.tokens import DOCUMENT, TokenBlock
from pipeline.vocabulary import SPECIAL_WORDS, Vocabulary, tokenizer_json

SEED = 1
FIRST_WORD = len(SPECIAL_WORDS) + 1
"""Id of the first word, after the special ones and the full stop."""
SENTENCE_TOKENS = 25
"""Mean length of a sentence, with its full stop."""
DOCUMENT_SENTENCES = 100
"""Mean number of sentences in a document."""


def make_data_set(folder: Path, *, num_tokens: int, num_words: int, lengths: tuple[int, ...]) -> Path:
    """Write a data set of one copy, whose examples have about this number of tokens at each length, and return its folder.

    Args:
        num_words: size of the vocabulary.
    """
    vocabulary = Vocabulary((*SPECIAL_WORDS, ".", *(f"w{number}" for number in range(num_words - FIRST_WORD))))
    config = ExamplesConfig(max_seq_length=lengths, dupe_factor=1, validation_fraction=0.0, seed=SEED)
    tokens = draw_text(num_tokens, vocabulary)
    rows: list[dict[str, Any]] = []
    pairs: dict[str, int] = {}
    for length in lengths:
        sentences = config.sentences(tokens, vocabulary.kinds, length)
        made, counts = config.make_pairs(sentences, length, copy=0)
        pairs |= {f"{name}/{length}": int(count) for name, count in counts.items()}
        name = ShardName(split="train", max_seq_length=length, copy=0, number=0)
        rows.append(write_shard(str(folder), name, sentences, made, SEED, config.masking(length, vocabulary)))
    shards = parquet_bytes(shards_table(rows))
    texts = {"vocab.txt": vocabulary.text, "tokenizer.json": tokenizer_json(vocabulary, True, None)}
    for file, content in {**texts, "shards.parquet": shards}.items():
        storage.write_whole(str(folder / file), [content])
    counters = dict.fromkeys(("documents_rejected", "documents_duplicate", "text_bytes"), 0)
    counters |= {"documents_in": len(tokens.documents), "documents_used": len(tokens.documents)}
    counters |= {"sentences": len(tokens.sentence_lengths), "tokens": len(tokens.ids)}
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "configuration": asdict(config),
        "masking": {"scheme": config.scheme.name, "can_be_redrawn": config.scheme.can_be_redrawn},
        "vocabulary": {"sha256": vocabulary.sha256, "size": num_words},
        "versions": {"numpy": np.__version__},
        "counters": {
            **counters,
            **{name: {} for name in ("rejected", "passed_over", "cleaned")},
            "pairs": pairs,
            "examples": {"train": sum(row["examples"] for row in rows), "validation": 0},
        },
        "notes": [],
        "inputs": [],
        "shards_parquet": {"sha256": hashlib.sha256(shards).hexdigest(), "rows": len(rows)},
        "shards_digest": digest_of(rows),
        "documents": {},
        "files": {"tokenizer.json": hashlib.sha256(texts["tokenizer.json"]).hexdigest()},
    }
    most = [config.max_predictions(length) for length in lengths]
    manifest["configuration"] |= {"max_seq_length": list(lengths), "max_predictions_per_seq": most}
    manifest["sha256"] = manifest_sha256(manifest)
    storage.write_whole(str(folder / "manifest.json"), [manifest_text(manifest)])
    return folder


def draw_text(num_tokens: int, vocabulary: Vocabulary) -> TokenBlock:
    """Return documents with about this number of tokens. The same arguments give the same documents."""
    draw = np.random.default_rng(SEED)
    num_sentences = max(num_tokens // SENTENCE_TOKENS, 8)
    # Lengths of both kinds are spread as in text: many short ones and a few long ones.
    drawn = draw.lognormal(np.log(SENTENCE_TOKENS) - 0.125, 0.5, num_sentences)
    lengths = np.clip(drawn.round(), 2, 400).astype(np.uint32)
    size = min(DOCUMENT_SENTENCES, num_sentences // 4)
    starts = np.flatnonzero(draw.random(num_sentences) < 1 / size)
    edges = np.unique([0, *starts.tolist(), num_sentences])
    total = int(lengths.sum())
    ranks = draw.random(total)
    num_words = len(vocabulary.words) - FIRST_WORD
    # The inverse of the distribution function of 1 / (rank + 1), for ranks from 0.
    words = FIRST_WORD + np.minimum(np.exp(ranks * np.log(num_words + 1)) - 1, num_words - 1).astype(np.int64)
    words[np.cumsum(lengths) - 1] = vocabulary.ids["."]
    documents = np.zeros(len(edges) - 1, DOCUMENT)
    documents["id"] = np.sort(draw.integers(0, 1 << 63, len(documents), dtype=np.uint64))
    documents["source_key"] = np.arange(len(documents))
    documents["num_sentences"] = np.diff(edges)
    documents["num_tokens"] = np.add.reduceat(lengths, edges[:-1])
    return TokenBlock(words.astype(id_type(len(vocabulary.words))), lengths, documents)
