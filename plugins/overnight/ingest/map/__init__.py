"""From lines to documents: field map, decoder, join."""
