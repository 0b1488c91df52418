"""Every service on this machine, for demos and for testing one's own DAGs: ``overnight sandbox up``."""
