"""The quantities of metrics.jsonl that are drawn as curves, with their titles: for `plot` and for the pages of runs."""

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
"""The same for tables with a number for each source of a mixture. A panel has one curve for each source."""
EXACT = ("learning_rate", "tokens_by_source")
"""Keys that are drawn without a running mean."""
