"""A warning if removing accents changes many words of a text, measured on the first documents of some of its splits.

BERT removes accents from lower-cased text. English, French or German lose little. In Japanese, Korean, Hindi or Vietnamese
most words change, and different words become the same.
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import islice

from pipeline.inputs.documents import read_documents
from pipeline.inputs.sources import Split
from pipeline.text.records import Document

MAX_CHANGED = 0.2
"""Share of words that accents may change without a warning. In the texts of its test,
French has 0.15, Hindi 0.44 and Vietnamese 0.70."""
SPLITS, DOCUMENTS, BYTES = 8, 10, 4_000
"""How much is counted: splits, documents of each, and bytes of each document."""
READ_BYTES = 400_000
"""Text of a split after which no other document is read: documents may be as long as books."""


def accent_warning(
    splits: Sequence[Split], do_lower_case: bool, strip_accents: bool | None, is_own: bool = False
) -> str:
    """Return a warning if removing accents, which was not asked for, changes many words of these splits; otherwise "".

    is_own: whether the files of a tokenizer decide, and not flags.
    """
    removes = do_lower_case if strip_accents is None else strip_accents
    if not removes or (strip_accents is not None and not is_own):
        return ""
    from tokenizers.normalizers import BertNormalizer  # not at the top: --help does not need it

    counts = _count_words(splits)
    remove = BertNormalizer(strip_accents=True, lowercase=False, handle_chinese_chars=False).normalize_str
    accented = (word for word in counts if not word.isascii())
    changed = {word: without for word in accented if (without := remove(word)) != word}
    share = sum(counts[word] for word in changed) / max(1, counts.total())
    if share <= MAX_CHANGED:
        return ""
    shown = sorted(changed, key=lambda word: (-counts[word] * (len(word) > 1), word))[:3]
    examples = ", ".join(_change(word, changed[word]) for word in shown)
    changes = f"changes {share:.0%} of the words of the first texts ({examples})"
    if is_own:
        return f"removing accents, as this tokenizer does, {changes}. To keep the accents, take another tokenizer"
    return (
        f"removing accents, which is the default with lower-casing, {changes}. To keep the accents, give --strip-accents "
        f"False to build-vocab and to preprocess"
    )


def _change(word: str, without: str) -> str:
    if unicodedata.normalize("NFC", without) == word:  # Korean
        return f"{word} becomes the {len(without)} letters {' '.join(without)}"
    return f"{word} becomes {without}"


def _count_words(splits: Sequence[Split]) -> Counter[str]:
    """Return how often each lower-cased word occurs in a few documents; words are BERT's, without punctuation."""
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    normalizer, cutter = BertNormalizer(strip_accents=False, lowercase=True), BertPreTokenizer()
    counts: Counter[str] = Counter()
    for split in splits[:: max(1, len(splits) // SPLITS)][:SPLITS]:
        records, num_bytes = read_documents(split, is_whole=False), 0
        for record in islice((record for record in records if isinstance(record, Document)), DOCUMENTS):
            text = normalizer.normalize_str(record.text[:BYTES].decode(errors="ignore"))
            counts.update(word for word, _ in cutter.pre_tokenize_str(text))
            num_bytes += len(record.text)
            if num_bytes >= READ_BYTES:
                break
    for word in [word for word in counts if not any(map(str.isalpha, word))]:
        del counts[word]
    return counts
