"""OpenSearch ML Commons: batch prediction, batch ingestion, connectors and models."""
