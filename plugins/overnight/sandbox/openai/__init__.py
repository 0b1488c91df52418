"""OpenAI's Files and Batches API on this machine, for demos, for tests, and for trying out one's own DAGs."""

from overnight.sandbox.openai.app import create_app
from overnight.sandbox.openai.settings import Faults, Limits, Pace, Quirks, Settings

__all__ = ["Faults", "Limits", "Pace", "Quirks", "Settings", "create_app"]
