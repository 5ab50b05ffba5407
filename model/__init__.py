"""The model and its training: BERT, its data loader, optimizer, checkpoints. Never imports Beam, pipeline or jobs."""
