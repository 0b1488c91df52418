"""Batch ingestion: the cluster itself reads JSON Lines from S3 or OpenAI and indexes them."""
