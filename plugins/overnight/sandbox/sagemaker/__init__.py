"""SageMaker's batch transform on this machine, for demos, for tests, and for trying out one's own DAGs."""

from overnight.sandbox.sagemaker.app import create_app
from overnight.sandbox.sagemaker.settings import Faults, Limits, Pace, Settings

__all__ = ["Faults", "Limits", "Pace", "Settings", "create_app"]
