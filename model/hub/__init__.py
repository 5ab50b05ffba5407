"""Conversion to and from Hugging Face transformers: weights, tokenizer, configuration, initial weights, ONNX."""
