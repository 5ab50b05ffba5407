"""What a pretrained BERT is fine-tuned for: rows, heads, updates and measures of each task."""
