"""Whether Airflow can keep what a task knows of its job from one try to the next."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from packaging.version import Version

from overnight.doctor.finding import Finding, fail, ok, warn
from overnight.doctor.versions import AIRFLOW, find_version

SINCE: Final = Version("3.3")
_FEW_DAYS: Final = 3
"""A job of a slow service may take a day, and be looked for on the next."""


def check_task_state() -> Finding:
    """Look at Airflow's version and the settings of its task state store."""
    from airflow.sdk.configuration import conf  # noqa: PLC0415 - Airflow may be missing, which is then the finding

    airflow = find_version(AIRFLOW)
    if airflow is None or airflow < SINCE:
        return fail(
            f"Airflow {airflow or '(not installed)'} has no task state store, so a retry cannot know its job by its "
            f"record. Install apache-airflow>={SINCE}, or set durable=False."
        )
    for section, option in (("state_store", "backend"), ("workers", "state_store_backend")):
        path = conf.get(section, option, fallback="") or ""
        module, _, name = path.rpartition(".")
        try:
            found = not path or hasattr(import_module(module), name)
        except (ImportError, ValueError):
            found = False
        if not found:
            return fail(
                f"[{section}] {option} names {path}, which cannot be imported here. Correct "
                f"AIRFLOW__{section.upper()}__{option.upper()}, or install its package."
            )
    days = conf.getint("state_store", "default_retention_days", fallback=30)
    if 0 < days < _FEW_DAYS:
        return warn(
            f"Airflow keeps a task's state for {days} days only; a retry after that looks for its job at the service. "
            "Raise AIRFLOW__STATE_STORE__DEFAULT_RETENTION_DAYS."
        )
    if conf.getboolean("state_store", "clear_on_success", fallback=False):
        return warn(
            "Airflow deletes a task's state when it succeeds, so on_clear='reuse' finds nothing. Set "
            "AIRFLOW__STATE_STORE__CLEAR_ON_SUCCESS=False if you use it."
        )
    kept = f"{days} days" if days else "for good"
    return ok(f"Airflow {airflow} keeps the record of each job ({kept}).")
