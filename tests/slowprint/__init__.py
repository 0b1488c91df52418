"""A seventh service, added as docs/adding-a-service.md says: a print shop that prints overnight."""
