"""
Batch ingestion of ML Commons: the cluster itself reads JSON Lines from S3 or OpenAI and indexes them.

API: https://docs.opensearch.org/2.19/ml-commons-plugin/api/async-batch-ingest/. It came with 2.17 and went with 3.0.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final, Literal

from pydantic import Field, JsonValue

from overnight.errors import ServiceError, SpecError, UnavailableError, UnsupportedError
from overnight.jobs import FoundJob, JobKey, JobRecord, JobRef, JobState, JobStatus, ResultManifest
from overnight.jobs.service import JobSpec, Service
from overnight.services.ml_commons.causes import NO_HANDLER, NO_TASK_INDEX, ask
from overnight.services.ml_commons.connection import (
    ML,
    SEARCH_LAG,
    created_at,
    get_task,
    get_tasks,
    make_task_index,
    quote_answer,
    read_task_id,
    tasks_since,
)
from overnight.services.ml_commons.status import read_ingestion
from overnight.transport.flow import Flow, Pause
from overnight.transport.http import HttpCall, Retry
from overnight.transport.opensearch import OpenSearchConnection, ServerVersion, index_exists

log = logging.getLogger(__name__)

Engine = Literal["auto", "server", "client"]
"""Where a batch ingestion is carried out: in the cluster, or by our own load on the Airflow worker."""

SINCE: Final = (2, 17)
SWAPPED_SINCE: Final = (2, 19)
UNTIL: Final = (3, 0)
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
_ENDPOINT: Final = f"{ML}/_batch_ingestion"
_S3_OBJECT: Final = re.compile(r"s3://[a-zA-Z0-9.-]+/[^*?\[\]]*[^*?\[\]/]")
_UNCUT: Final = re.compile(r"source\[\d+\][^$]*\$(?!\.)")
_REGION: Final = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")


class MLCommonsIngestSpec(JobSpec):
    """
    One batch ingestion, without its credential.

    :param index_name: An index that is there; the server would make a missing one, with embeddings as plain numbers.
    :param field_map: Field of the document to JSONPath.
    :param ingest_fields: More JSONPaths; the last segment of each is the field's name.
    :param source_type: ``s3`` or ``openAI``.
    :param sources: ``s3://bucket/key`` of one object, or OpenAI file ids.
    :param connector_id: A connector whose credential the cluster uses instead of ours.
    """

    index_name: str = Field(min_length=1)
    field_map: Mapping[str, JsonValue]
    ingest_fields: tuple[str, ...] = ()
    source_type: Literal["s3", "openAI"]
    sources: tuple[str, ...] = Field(min_length=1)
    connector_id: str | None = None

    @property
    def is_repeatable(self) -> bool:
        """Whether a second run writes the same documents again and not others beside them."""
        return "_id" in self.field_map


@dataclass(frozen=True)
class S3Credential:
    """
    What the cluster reads S3 with.

    :param session_token: Of temporary credentials; they must outlive the ingestion.
    """

    access_key: str
    secret_key: str
    region: str
    session_token: str | None = None

    def __repr__(self) -> str:
        return f"S3Credential(region={self.region!r})"


@dataclass(frozen=True)
class OpenAICredential:
    """The key that the cluster reads OpenAI's files with."""

    key: str

    def __repr__(self) -> str:
        return "OpenAICredential()"


Credential = S3Credential | OpenAICredential


@dataclass(frozen=True)
class Choice:
    """The engine that carries out a request, and why."""

    engine: Literal["server", "client"]
    why: str


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
        call = HttpCall("POST", _ENDPOINT, json=self._body(spec, version), retry=Retry.REJECTED)
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
        """Look at the task once; an old one also at whether any node is left that could be working on it."""
        task = yield from get_task(ref.id)
        return read_ingestion(task, (yield from _boots()) if _is_old(task) else ())

    def list_statuses(self, wanted: Collection[str]) -> Flow[Mapping[str, JobStatus]]:
        """Search the tasks, and look at the nodes once for all the old ones."""
        tasks = yield from get_tasks(wanted)
        boots = (yield from _boots()) if any(_is_old(task) for task in tasks) else ()
        return {task["task_id"]: read_ingestion(task, boots if _is_old(task) else ()) for task in tasks}

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
        task = yield from get_task(ref.id)
        detail = {name: task[name] for name in ("create_time", "last_update_time") if type(task.get(name)) is int}
        return ResultManifest(ref=ref, detail=detail)

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


def choose_engine(
    wanted: Engine,
    version: ServerVersion,
    source_type: str | None,
    sources: Sequence[str | Sequence[str]],
    *,
    paths: Iterable[str] = (),
    endpoint: bool = True,
) -> Choice:
    """
    Decide where a request is carried out.

    :param wanted: ``auto`` takes the server wherever it gives the right documents.
    :param source_type: The request's ``data_source.type``.
    :param paths: Every path of the field map.
    :param endpoint: Whether the server was seen to have the endpoint.
    :raises SpecError: ``server`` was wanted, and cannot do it; the text names the remedy.
    """
    hindrance = _hindrance(version, endpoint) or _unfit(version, source_type, sources) or _unread(paths)
    if wanted == "client":
        return Choice("client", "engine='client' was asked for")
    if hindrance is None:
        return Choice("server", f"{version} has batch ingestion, and this request is one it carries out rightly")
    if wanted == "server":
        raise SpecError(
            f"engine='server' cannot carry out this request: {hindrance}. Use engine='client' or 'auto': the same "
            "request then runs on the Airflow worker."
        )
    return Choice("client", hindrance)


def _hindrance(version: ServerVersion, endpoint: bool) -> str | None:
    if version.distribution == "serverless":
        return "OpenSearch Serverless has no ML Commons batch ingestion"
    if version.distribution != "opensearch" or version.release < SINCE:
        return f"{version} has no batch ingestion; it came with OpenSearch 2.17"
    if version.release >= UNTIL:
        return f"{version} has no batch ingestion any more; OpenSearch 3.0 removed it"
    if not endpoint:
        return f"this {version} does not have the endpoint {_ENDPOINT}, so ML Commons is not installed"
    return None


def _unfit(version: ServerVersion, source_type: str | None, sources: Sequence[str | Sequence[str]]) -> str | None:
    if source_type not in ("s3", "openAI"):
        return f"batch ingestion reads S3 and OpenAI files, not {source_type or 'sources of mixed kinds'}"
    if not all(isinstance(uri, str) for uri in sources):
        return "batch ingestion reads one file for each source, not lists of files"
    if source_type == "s3":
        if not all(_S3_OBJECT.fullmatch(str(uri)) for uri in sources):
            return "batch ingestion reads single S3 objects; it knows neither globs nor prefixes"
        if len(sources) > 1 and version.release >= SWAPPED_SINCE:
            return (
                f"batch ingestion of several S3 sources is broken in {version}: it fails with 'Connection pool shut "
                "down' after the first of them was indexed"
            )
    return None


def _unread(paths: Iterable[str]) -> str | None:
    unread = [path for path in paths if _UNCUT.search(path)]
    if unread:
        return f"batch ingestion reads 'source[N].' only where '$.' follows, and fails for {unread[0]!r}"
    return None


def has_endpoint() -> Flow[bool]:
    """
    Ask whether the server has batch ingestion, starting nothing.

    A path that is there for POST alone refuses a GET with 405; one that is not there at all has no handler.
    """
    try:
        yield from ask(HttpCall("GET", _ENDPOINT))
    except UnsupportedError as error:
        return error.code != NO_HANDLER
    return True


def on_the_wire(credential: Credential, version: ServerVersion) -> dict[str, str]:
    """
    Write a credential as the server reads it.

    From 2.19.0 on the plugin passes region and session token on in swapped order, so that the request as it is
    documented always fails with ``region must not be null``. There the two trade places; without a token the region
    stands in its place alone. 2.17 and 2.18 read what is documented.

    :raises SpecError: there is no region, or one that cannot be.
    """
    if isinstance(credential, OpenAICredential):
        return {"openAI_key": credential.key}
    if not _REGION.fullmatch(credential.region):
        raise SpecError(
            f"The S3 region {credential.region!r} is not a region such as us-east-1; put region_name into the AWS "
            "connection's extra."
        )
    wire = {"access_key": credential.access_key, "secret_key": credential.secret_key}
    region, token = credential.region, credential.session_token
    if SWAPPED_SINCE <= version.release < UNTIL:
        log.info(
            "%s swaps region and session_token of an S3 ingestion, so they are sent the other way round: the region as "
            "session_token%s.",
            version,
            ", the token as region" if token else ", and no region",
        )
        return {**wire, "session_token": region, **({"region": token} if token else {})}
    return {**wire, "region": region, **({"session_token": token} if token else {})}


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
