"""The ``overnight`` command."""
