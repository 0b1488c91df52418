"""Azure OpenAI ingestion jobs."""
