"""
How long what pipelines wrote into a work folder, or ``overnight run`` into its own, is kept, and its deletion.

:mod:`~overnight.retention.layout` knows the files, :mod:`~overnight.retention.own_run` who is at work in a run's own
folder, :mod:`~overnight.retention.plan` decides which may go, and :mod:`~overnight.retention.clean` deletes them.
:mod:`~overnight.retention.result_cache` does both for a result cache.
"""

from overnight.retention.clean import Cleaned, clean
from overnight.retention.plan import CleaningPlan, Retention, make_plan
from overnight.retention.result_cache import CacheCleaned, CachePlan, CacheRetention, clean_cache, plan_cache

__all__ = [
    "CacheCleaned",
    "CachePlan",
    "CacheRetention",
    "Cleaned",
    "CleaningPlan",
    "Retention",
    "clean",
    "clean_cache",
    "make_plan",
    "plan_cache",
]
