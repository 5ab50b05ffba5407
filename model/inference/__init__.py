"""A trained model at work: predictions, scores, embeddings."""
