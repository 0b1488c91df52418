"""
How long what pipelines wrote into a work folder is kept, and its deletion.

:mod:`~overnight.retention.layout` knows the files, :mod:`~overnight.retention.plan` decides which may go, and
:mod:`~overnight.retention.clean` deletes them.
"""

from overnight.retention.clean import Cleaned, clean
from overnight.retention.plan import CleaningPlan, Retention, make_plan

__all__ = ["Cleaned", "CleaningPlan", "Retention", "clean", "make_plan"]
