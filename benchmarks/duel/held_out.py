"""The texts of the duel: which documents are held out, and the held-out tokens with one fixed set of masks.

A document is held out by a hash of its text, so equal documents are on the same side. Both sides train on the same file
of the other documents.

The judge reads two forms of the held-out text. `segments`: [CLS], up to 126 tokens of one document, [SEP], as bertloom's
examples are. `running text`: all documents as [CLS] … [SEP], joined and cut every 128 tokens, as run_mlm.py makes them.
So neither side is judged only on the form that it has not seen.
"""

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tokenizers import BertWordPieceTokenizer

MAX_SEQ_LENGTH = 128
MASKED_SHARE = 0.15
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

Pieces = dict[str, np.ndarray]
"""Of one form: `input_ids`, `attention_mask` and `labels`, int64 (pieces, 128); a label is -100 where nothing is asked."""


def read_texts(paths: Iterable[str]) -> Iterator[str]:
    """Yield the field `text` of each line of .jsonl and .jsonl.gz files."""
    for path in paths:
        if not path.endswith((".jsonl", ".jsonl.gz")):
            raise SystemExit(f"{path}: the duel reads JSON Lines with a field `text`, .jsonl or .jsonl.gz")
        with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as file:
            yield from (json.loads(line)["text"] for line in file)


def is_held_out(text: str, share: float) -> bool:
    """Return whether a document belongs to this share of all documents, by a hash of its text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") < share * 2**64


def split_texts(texts: Iterable[str], share: float, train: Path) -> list[str]:
    """Write the documents to train on as JSON Lines, and return the held-out ones, each once."""
    held_out: dict[str, None] = {}
    num_train = 0
    with train.open("w", encoding="utf-8") as file:
        for text in texts:
            if is_held_out(text, share):
                held_out[text] = None
            else:
                num_train += 1
                file.write(json.dumps({"text": text}) + "\n")
    if not held_out or not num_train:
        raise SystemExit(
            f"{num_train:,} documents to train on and {len(held_out):,} held out: the duel needs both; give more documents, "
            f"or another --held-out than {share:g}"
        )
    return list(held_out)


def make_pieces(texts: Sequence[str], vocab: str, num_pieces: int, seed: int = 1) -> dict[str, Pieces]:
    """Return at most this number of pieces of the held-out texts in each form, chosen and masked by the seed."""
    tokenizer = BertWordPieceTokenizer(vocab, lowercase=True)
    cls, sep, pad = (tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]", "[PAD]"))
    documents = [encoding.ids for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
    size = MAX_SEQ_LENGTH - 2
    segments = [
        [cls, *ids[at : at + size], sep] for ids in documents for at in range(0, len(ids), size) if len(ids) - at >= 2
    ]
    running = [token for ids in documents for token in (cls, *ids, sep)]
    cut = [running[at : at + MAX_SEQ_LENGTH] for at in range(0, len(running) - MAX_SEQ_LENGTH + 1, MAX_SEQ_LENGTH)]
    special = [tokenizer.token_to_id(name) for name in SPECIAL]
    words = np.setdiff1d(np.arange(tokenizer.get_vocab_size()), special)
    found = {}
    for number, (form, pieces) in enumerate([("segments", segments), ("running text", cut)]):
        if not pieces:
            raise SystemExit(
                f"the held-out documents are too short for {form} of {MAX_SEQ_LENGTH} tokens: give more text"
            )
        random = np.random.default_rng([seed, number])
        chosen = [pieces[at] for at in random.permutation(len(pieces))[:num_pieces]]
        found[form] = mask(chosen, random, special, words, mask_id=tokenizer.token_to_id("[MASK]"), pad=pad)
    return found


def mask(
    pieces: Sequence[Sequence[int]],
    random: np.random.Generator,
    special: Sequence[int],
    words: np.ndarray,
    *,
    mask_id: int,
    pad: int,
) -> Pieces:
    """Return the pieces padded, with 15 % of their words to predict: 80 % of these are [MASK], 10 % another word."""
    shape = (len(pieces), MAX_SEQ_LENGTH)
    ids, attention = np.full(shape, pad, np.int64), np.zeros(shape, np.int64)
    for row, piece in enumerate(pieces):
        ids[row, : len(piece)] = piece
        attention[row, : len(piece)] = 1
    asked = (random.random(shape) < MASKED_SHARE) & (attention == 1) & ~np.isin(ids, special)
    labels = np.where(asked, ids, -100)
    kind, replacements = random.random(shape), random.choice(words, shape)
    shown = np.where(kind < 0.8, mask_id, np.where(kind < 0.9, replacements, ids))
    return {"input_ids": np.where(asked, shown, ids), "attention_mask": attention, "labels": labels}


def save_pieces(forms: dict[str, Pieces], path: Path) -> None:
    """Write the pieces as a .npz file with arrays FORM/NAME."""
    np.savez(path, **{f"{form}/{name}": values for form, pieces in forms.items() for name, values in pieces.items()})
