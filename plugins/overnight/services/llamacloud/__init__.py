"""LlamaCloud batches v2."""
