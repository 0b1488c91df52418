"""The step of a nightly DAG that deletes what old runs left in a work folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from airflow.sdk import BaseOperator

from overnight.hooks.outcome import failing_for_good
from overnight.hooks.storage import DEFAULT_AWS_CONN_ID, connected_storage
from overnight.operators.parameters import check_parameters, require_truth

if TYPE_CHECKING:
    from airflow.sdk import Context

    from overnight.retention import CacheRetention
    from overnight.storage import Storage

_ACTIVE: Final = ("queued", "running")
# A run's folder has an underscore for each character that a file's name had better not have.
_TIME: Final = re.compile(r"T(\d\d)_(\d\d)_(\d\d(?:\.\d+)?)_(\d\d)_(\d\d)")


class CleanWorkFolderOperator(BaseOperator):
    """
    Delete what old, finished runs left in the work folder of pipelines, as ``overnight clean`` does.

    Only files that pipelines write are deleted. A run that Airflow is at work on is left, also one that was cleared
    long after its end. The XCom is ``{"files", "bytes", "runs", "spared"}``; with ``preview``, what would be deleted,
    and ``spared`` is empty. With ``cache_older_than`` it has ``cache``, too: how many answers (``entries``) have
    expired, and how many ``files`` and ``bytes`` of the cache were deleted.

    :param work_uri: The ``work_uri`` of the pipelines, or the folder of an ``overnight run``.
    :param older_than: A run goes when none of its files was written since: one day or more, or ``"30d"``, ``"6w"``.
    :param include_unfinished: Also runs without a report, or whose report says that parts were not loaded: clearing
        their tasks needs these files.
    :param keep: ``dag/run`` of runs that stay.
    :param cache_older_than: Answers of the result cache that were added so long ago expire: one day or more, or
        ``"365d"``, ``"52w"``; ``None`` leaves all of them.
    :param cache_grace: How long runs that have looked up such an answer can still read it: three days or more.
    :param cache_uri: The cache's folder, when it is not ``<work_uri>/cache``.
    :param preview: Delete nothing, and say what would be deleted.
    :param aws_conn_id: The connection for ``s3://`` URIs.
    """

    template_fields: Sequence[str] = (
        "work_uri", "older_than", "include_unfinished", "keep", "cache_older_than", "cache_grace", "cache_uri",
        "preview", "aws_conn_id",
    )  # fmt: skip

    def __init__(
        self,
        *,
        work_uri: str,
        older_than: timedelta | str = "30d",
        include_unfinished: bool | str = False,
        keep: Sequence[str] = (),
        cache_older_than: timedelta | str | None = None,
        cache_grace: timedelta | str = "7d",
        cache_uri: str | None = None,
        preview: bool | str = False,
        aws_conn_id: str | None = DEFAULT_AWS_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.work_uri = work_uri
        self.older_than = older_than
        self.include_unfinished = include_unfinished
        self.keep = keep
        self.cache_older_than = cache_older_than
        self.cache_grace = cache_grace
        self.cache_uri = cache_uri
        self.preview = preview
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """List, ask Airflow about each run that is old enough, and delete."""
        from overnight.retention import CacheRetention, Retention, clean, make_plan  # noqa: PLC0415 - not at parse
        from overnight.validation import parse_age  # noqa: PLC0415 - not at parse

        with failing_for_good():
            check_parameters(self)
            age = self.older_than
            retention = Retention(
                age if isinstance(age, timedelta) else parse_age(str(age)),
                include_unfinished=require_truth(self.include_unfinished, "include_unfinished"),
                keep=self.keep,
                is_active=_ask_airflow(context),
            )
            cache_retention = CacheRetention.parse(self.cache_older_than, self.cache_grace, self.cache_uri)
            is_preview = require_truth(self.preview, "preview")
            storage = connected_storage(self.aws_conn_id)
            plan = make_plan(self.work_uri, storage, retention)
            for decision, count in plan.count_runs().items():
                self.log.info("Runs, %s: %d.", decision, count)
            if is_preview:
                self.log.info("Nothing is deleted. It would be: %s", ", ".join(plan.old_runs) or "nothing")
                done = {"files": plan.old_files, "bytes": plan.old_bytes, "runs": len(plan.old_runs), "spared": []}
            else:
                cleaned = clean(plan, storage)
                self.log.info("Deleted %d files (%d bytes) of %d runs.", cleaned.files, cleaned.bytes, cleaned.runs)
                done = {**cleaned._asdict(), "spared": list(cleaned.spared)}
            if cache_retention is not None:
                done["cache"] = self._clean_cache(plan.work_uri, storage, cache_retention, is_preview=is_preview)
        return done

    def _clean_cache(
        self, work_uri: str, storage: Storage, retention: CacheRetention, *, is_preview: bool
    ) -> dict[str, int]:
        from overnight.cache import locate_cache  # noqa: PLC0415 - not at parse
        from overnight.retention import clean_cache, plan_cache  # noqa: PLC0415 - not at parse

        # What a template made of a value that is not set.
        cache_uri = self.cache_uri if self.cache_uri != "None" else None
        plan = plan_cache(locate_cache(work_uri, cache_uri), storage, retention)
        if is_preview:
            return {"entries": plan.entries, **plan.measure()["to_delete"]}
        done = clean_cache(plan, storage)
        return {"entries": done.entries, "files": done.files, "bytes": done.bytes}


def _ask_airflow(context: Context) -> Callable[[str], bool]:
    """Return what says of a folder ``dag/run`` whether the run is queued or running."""
    count = context["ti"].get_dr_count

    @cache
    def has_active(dag_id: str) -> bool:
        return bool(count(dag_id=dag_id, states=list(_ACTIVE)))

    def is_active(name: str) -> bool:
        dag_id, _, folder = name.partition("/")
        run_id = _TIME.sub(r"T\1:\2:\3+\4:\5", folder)
        if run_id == folder and "_" in folder:
            # What the run is called cannot be told, so any that is active may be this one.
            return has_active(dag_id)
        return bool(count(dag_id=dag_id, run_ids=[run_id], states=list(_ACTIVE)))

    return is_active
