"""The models of tokenizers: how each is trained, and how it gets more words. One file per model."""
