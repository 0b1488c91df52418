"""
Batch ingestion of ML Commons: the cluster itself reads JSON Lines from S3 or OpenAI and indexes them.

API: https://docs.opensearch.org/2.19/ml-commons-plugin/api/async-batch-ingest/. It came with 2.17 and went with 3.0.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final

from overnight.errors import NotFoundError, ServiceError, SpecError, UnavailableError, UnsupportedError
from overnight.jobs import FoundJob, JobKey, JobRecord, JobRef, JobState, JobStatus, ResultManifest
from overnight.jobs.queue import ListedJob
from overnight.jobs.service import Service
from overnight.services.ml_commons import queue
from overnight.services.ml_commons.answers import (
    SEARCH_LAG,
    ask,
    created_at,
    get_task,
    get_tasks,
    make_task_index,
    quote_answer,
    read_task_id,
    tasks_since,
)
from overnight.services.ml_commons.causes import NO_TASK_INDEX
from overnight.services.ml_commons.connection import ML
from overnight.services.ml_commons.ingest.credential import Credential, on_the_wire
from overnight.services.ml_commons.ingest.engine import ENDPOINT
from overnight.services.ml_commons.ingest.results import build_result_manifest
from overnight.services.ml_commons.ingest.spec import MLCommonsIngestSpec
from overnight.services.ml_commons.status import PARTLY_INDEXED, read_ingestion
from overnight.transport.errors import add_remedy
from overnight.transport.flow import Flow, Pause
from overnight.transport.http import HttpCall, Retry
from overnight.transport.opensearch import OpenSearchConnection, ServerVersion, index_exists

log = logging.getLogger(__name__)

CURE_TRIES: Final = 5
MAX_MILLISECONDS: Final = 10**14
"""Of a time that Python can hold."""
SETTLE_INTERVAL: Final = 15.0
SETTLE_FOR: Final = timedelta(hours=1)
"""How long a submit waits for ingestions that may be its own earlier try's."""
CLOCK_SKEW: Final = timedelta(minutes=1)
"""How far the cluster's clock may be behind ours."""
YOUNG: Final = timedelta(minutes=5)
"""Up to this age a task is not suspected of having died with its node."""


class MLCommonsIngestService(Service[MLCommonsIngestSpec]):
    """
    The five verbs for batch ingestions. Two of them the server does not have: it neither cancels nor tells tasks apart.

    :param conn_id: The OpenSearch connection that every reference names.
    :param config: The same connection's facts, for the version.
    :param credential: Asked for at submit only; ``None`` when a connector has it.
    """

    name: ClassVar[str] = "ml_commons_ingest"

    def __init__(
        self,
        conn_id: str,
        config: OpenSearchConnection,
        credential: Callable[[str], Credential] | None = None,
    ) -> None:
        super().__init__(conn_id)
        self._config = config
        self._credential = credential
        self.doubtful_since: datetime | None = None
        """When an earlier try meant to submit something that may run still: see :meth:`submit`."""

    def find(self, key: JobKey, since: datetime, record: JobRecord | None = None) -> Flow[FoundJob | None]:
        """
        Return ``None``: nothing in an ingestion task says whose it is, and a stranger's must not be taken for ours.

        An ingestion that an earlier try submitted without recording it, or that it abandoned for another spec, may
        still run: from ``record`` this keeps since when, and :meth:`submit` waits for those.
        """
        if record is not None and record.ending is None:
            self.doubtful_since = record.intent_at
        return None
        yield  # pragma: no cover - makes this a flow

    def submit(self, spec: MLCommonsIngestSpec, key: JobKey) -> Flow[JobRef]:
        """
        Start the ingestion, unless one that may be this task's own runs already.

        Ingestion tasks bear no name. After an unrecorded submit (:attr:`doubtful_since`, or a lost answer) those that
        began since are waited for, whoever's they are; documents with an ``_id`` are then simply written again.

        :raises SpecError: the index is missing, or the documents have no ``_id`` and a second run would double them.
        :raises UnavailableError: those ingestions do not end, or the answer was lost.
        """
        del key
        if not (yield from index_exists(spec.index_name)):
            raise SpecError(
                f"The index {spec.index_name!r} does not exist. The server would create it, with embeddings as plain "
                "floats that no k-NN query can use: create it with its mapping first."
            )
        version = yield from self._config.version()
        if self.doubtful_since is not None:
            yield from self._settle(spec, self.doubtful_since)
        call = HttpCall("POST", ENDPOINT, json=self._body(spec, version), retry=Retry.REJECTED)
        began = datetime.now(UTC)
        try:
            answer = yield from self._cured(call)
        except UnavailableError as error:
            log.warning("The answer to the ingestion's creation is lost: %s", error)
            yield Pause(SEARCH_LAG)
            yield from self._settle(spec, began)
            answer = yield from self._cured(call)
        task_id = read_task_id(answer)
        if task_id is None:
            raise UnavailableError(
                f"The cluster answered a _batch_ingestion without a task id: {quote_answer(answer)}. A retry waits for "
                "the ingestions that began since before it starts another."
            )
        return self.ref(task_id)

    def status(self, ref: JobRef) -> Flow[JobStatus]:
        """
        Look at the task once; an old one also at whether any node is left that could be working on it.

        :raises NotFoundError: the cluster does not know the task (any more); what it indexed is there.
        """
        try:
            task = yield from get_task(ref.id)
        except NotFoundError as error:
            raise NotFoundError(add_remedy(str(error), PARTLY_INDEXED), status=error.status, code=error.code) from error
        return read_ingestion(task, (yield from _boots()) if _is_old(task) else ())

    def list_statuses(self, wanted: Collection[str]) -> Flow[Mapping[str, JobStatus]]:
        """Search the tasks, and look at the nodes once for all the old ones."""
        tasks = yield from get_tasks(wanted)
        boots = (yield from _boots()) if any(_is_old(task) for task in tasks) else ()
        return {task["task_id"]: read_ingestion(task, boots if _is_old(task) else ()) for task in tasks}

    def list_queue(self, queue_name: str, /) -> Flow[Collection[ListedJob]]:
        """List the ingestions that the cluster is at, whoever started them."""
        del queue_name
        return (yield from queue.list_queue("BATCH_INGEST"))

    def cancel(self, ref: JobRef) -> Flow[JobStatus]:
        """
        Say that this cannot be done, and what is left.

        :raises UnsupportedError: the ingestion runs.
        """
        status = yield from self.status(ref)
        if status.state.is_terminal:
            return status
        raise UnsupportedError(
            f"ML Commons cannot cancel a batch ingestion: {ref.id} runs on inside of the cluster until it ends by "
            "itself, and what it has indexed stays in the index. Documents with an _id are overwritten by another run; "
            "to be rid of them, delete them or drop the index once the task is COMPLETED or FAILED "
            f"(GET {ML}/tasks/{ref.id})."
        )

    def results(self, ref: JobRef) -> Flow[ResultManifest]:
        """Return a manifest without files: the results are documents in the index, and the server counts none."""
        return build_result_manifest(ref, (yield from get_task(ref.id)))

    def _body(self, spec: MLCommonsIngestSpec, version: ServerVersion) -> dict[str, Any]:
        body: dict[str, Any] = {
            "index_name": spec.index_name,
            "field_map": spec.field_map,
            "data_source": {"type": spec.source_type, "source": list(spec.sources)},
        }
        if spec.ingest_fields:
            body["ingest_fields"] = list(spec.ingest_fields)
        if spec.connector_id:
            body["connector_id"] = spec.connector_id
        elif self._credential is not None:
            body["credential"] = on_the_wire(self._credential(spec.source_type), version)
        return body

    def _cured(self, call: HttpCall) -> Flow[Any]:
        """Send the request, making the task index that a fresh cluster lacks."""
        for attempt in range(1, CURE_TRIES + 1):
            try:
                return (yield from ask(call))
            except ServiceError as error:
                if error.code != NO_TASK_INDEX or attempt == CURE_TRIES:
                    raise
            if attempt == 1:
                log.info(
                    "This cluster never ran an ML task and so lacks its task index; training a tiny model makes it."
                )
                yield from make_task_index()
            yield Pause(SEARCH_LAG)
        raise AssertionError("unreachable")

    def _settle(self, spec: MLCommonsIngestSpec, since: datetime) -> Flow[None]:
        """Wait until no ingestion runs that an unrecorded submit may have started."""
        waited = timedelta()
        while True:
            suspects = yield from tasks_since("BATCH_INGEST", since - CLOCK_SKEW)
            if suspects and not spec.is_repeatable:
                ids = ", ".join(task["task_id"] for task in suspects)
                raise SpecError(
                    f"An earlier try may have started one of the ingestions {ids}, and without an _id in the field_map "
                    "another run would double its documents. If they are not in the index, run the task once with "
                    "durable=False. With an _id in the field_map this cannot happen."
                )
            boots = (yield from _boots()) if suspects else ()
            live = [task for task in suspects if read_ingestion(task, boots).state is JobState.RUNNING]
            if not live:
                return
            if waited >= SETTLE_FOR:
                ids = ", ".join(task["task_id"] for task in live)
                raise UnavailableError(
                    f"The ingestions {ids}, of which one may be this task's own, have been running for more than "
                    f"{SETTLE_FOR}. Nothing was started beside them; a retry waits on."
                )
            log.info("An ingestion that may be an earlier try's runs; waiting for its end: %s", live[0]["task_id"])
            yield Pause(SETTLE_INTERVAL)
            waited += timedelta(seconds=SETTLE_INTERVAL)


def _is_old(task: Mapping[str, Any]) -> bool:
    now = datetime.now(UTC)
    return task.get("state") == "CREATED" and now - created_at(task, now) > YOUNG


def _boots() -> Flow[tuple[datetime, ...]]:
    """Return when each node was started; nothing where that may not be asked."""
    try:
        answer = yield HttpCall("GET", "_nodes/jvm", params={"filter_path": "nodes.*.jvm.start_time_in_millis"})
    except ServiceError as error:
        log.debug("The nodes' start times are not to be had: %s", error)
        return ()
    nodes = answer.get("nodes") if isinstance(answer, dict) else None
    boots = []
    for node in nodes.values() if isinstance(nodes, dict) else ():
        jvm = node.get("jvm") if isinstance(node, dict) else None
        started = jvm.get("start_time_in_millis") if isinstance(jvm, dict) else None
        if type(started) is not int or not 0 <= started < MAX_MILLISECONDS:
            # One unknown node may be the one that works on the task.
            return ()
        boots.append(datetime.fromtimestamp(started / 1000, UTC))
    return tuple(boots)
