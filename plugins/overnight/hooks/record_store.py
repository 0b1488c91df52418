"""A job's record in Airflow's task state store, which outlives the tries of a task instance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from overnight.jobs.record import JobRecord

RECORD: Final = "overnight_job"
"""The key of the :class:`~overnight.jobs.record.JobRecord`."""


class TaskStateRecordStore:
    """
    A :class:`~overnight.jobs.record_store.RecordStore` over ``context["task_state_store"]``.

    :param store: Airflow's store of one task instance.
    :param key: Of the record in it.
    """

    def __init__(self, store: Any, key: str = RECORD) -> None:
        self._store = store
        self._key = key

    def get(self) -> JobRecord | None:
        """
        Return what an earlier try wrote last, or ``None``.

        :raises SpecError: the store holds something else.
        """
        from overnight.jobs.record_store import parse_record  # noqa: PLC0415 - not at parse

        stored = self._store.get(self._key)
        return parse_record(stored, f"Airflow's task state store under {self._key!r}") if stored is not None else None

    def set(self, record: JobRecord) -> None:
        """Write the record in place of the one before."""
        self._store.set(self._key, record.model_dump(mode="json"))
