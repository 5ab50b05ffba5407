"""Tasks for fine-tuning: the rows, heads, updates and metrics of each."""
