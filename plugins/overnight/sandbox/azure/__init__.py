"""Azure OpenAI's ingestion jobs on this machine, with an index to search in, for demos, tests and one's own DAGs."""

from overnight.sandbox.azure.app import create_app
from overnight.sandbox.azure.settings import Faults, Pace, Quirks, Settings

__all__ = ["Faults", "Pace", "Quirks", "Settings", "create_app"]
