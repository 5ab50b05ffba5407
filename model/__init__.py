"""BERT in PyTorch: the model, the loader of shards, the training step, checkpoints. No Beam, `pipeline`, `jobs`."""
