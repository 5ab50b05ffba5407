"""The quantities of metrics.jsonl that are drawn as curves, with their titles: for `plot` and for the pages of runs."""

from collections.abc import Iterable

from model.loading.sources import MAX_SOURCES

PANELS = (
    ("loss", "loss (nats)"),
    ("mlm_loss", "MLM loss"),
    ("nsp_loss", "NSP loss"),
    ("mlm_accuracy", "MLM accuracy"),
    ("nsp_accuracy", "NSP accuracy"),
    ("gradient_norm", "gradient norm"),
    ("learning_rate", "learning rate"),
    ("tokens_per_second", "real tokens per second"),
    ("mfu", "MFU"),
    ("accuracy", "accuracy"),
    ("macro_f1", "macro F1"),
    ("micro_f1", "micro F1"),
    ("f1", "F1"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("exact_match", "exact match"),
    ("matthews", "Matthews correlation"),
    ("pearson", "Pearson's correlation"),
    ("spearman", "Spearman's correlation"),
    ("ndcg_at_10", "nDCG@10"),
    ("mrr_at_10", "MRR@10"),
    ("recall_at_10", "recall@10"),
    ("accuracy_at_1", "accuracy@1"),
)
"""Keys of metrics.jsonl and the titles of their panels. Keys that no run has are omitted."""
SOURCE_PANELS = (("loss_by_source", "MLM loss by source"), ("tokens_by_source", "tokens read by source"))
"""The panels of tables with a number for each source of a mixture. Such a panel has one curve for each source."""
EXACT = ("learning_rate", "tokens_by_source")
"""Keys that are drawn without a running mean."""


def all_sources(keys: Iterable[str]) -> list[str]:
    """Return the sources of these keys of `model.runs.sinks.numbers`, at most 32, in the order in which a run names them.

    `tokens_by_source` has this order. A line may have losses of some sources only.

    >>> all_sources(["loss", "loss_by_source/books", "tokens_by_source/web", "tokens_by_source/books"])
    ['web', 'books']
    """
    names = [key.partition("/") for key in sorted(keys, key=lambda key: not key.startswith("tokens_by_source/"))]
    tables = [key for key, _ in SOURCE_PANELS]
    return list(dict.fromkeys(name for table, slash, name in names if slash and table in tables))[:MAX_SOURCES]
