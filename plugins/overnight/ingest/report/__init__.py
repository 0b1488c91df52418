"""What became of each document: counts and dead letters."""
