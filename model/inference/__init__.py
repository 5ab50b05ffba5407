"""Predictions, scores and embeddings of a trained model."""
