"""OpenAI batches, also of Azure OpenAI and compatible servers."""
