"""The steps of ``overnight run``: documents, OpenAI batches, an index; by the code that the operators use."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from overnight.cli.addresses import OPENAI_CONN_ID, make_openai_client
from overnight.cli.run_progress import RunDisplay
from overnight.cli.work_folder import WorkFolder
from overnight.costs.estimate import CostEstimate
from overnight.costs.prices import PriceTable
from overnight.errors import OvernightError, SpecError, shorten
from overnight.ingest.loading import load
from overnight.ingest.map.field_map import compile_field_map
from overnight.ingest.read.openers import openai_opener
from overnight.ingest.report.load_report import LoadReport
from overnight.ingest.request import IngestRequest, LoadOptions
from overnight.ingest.write.index_preparation import prepare_index
from overnight.ingest.write.sink import VerificationError
from overnight.ingest.write.target import OpenSearchTarget
from overnight.jobs import JobRecord, JobRef, JobState, compute_fingerprint
from overnight.jobs.allowance import Allowance
from overnight.jobs.attach import Attempt, Conclusion, Event
from overnight.jobs.record_store import RecordStore
from overnight.jobs.runner import begin, run_attempt
from overnight.jobs.wait import describe_unexpected
from overnight.jobs.wait_settings import WaitSettings
from overnight.services.openai.choices import OnBadDocument
from overnight.services.openai.connection import OpenAIConnection
from overnight.services.openai.dimension import measure_vectors
from overnight.services.openai.input import BuiltInput, InputPart
from overnight.services.openai.joined_fields import find_unreadable, list_vector_fields
from overnight.services.openai.limits import Limits
from overnight.services.openai.preparation import check_rejected, prepare_input, price_input
from overnight.services.openai.results import count_loadable, list_item_files
from overnight.services.openai.spec import OpenAIBatchSpec
from overnight.services.openai.template import RequestTemplate
from overnight.storage import Storage, redact
from overnight.templates.job_costs import JobCosts
from overnight.templates.report import Excluded, JobReport, PartReport, PipelineReport
from overnight.transport.http import HttpTransport


@dataclass(frozen=True)
class RunRequest:
    """
    What a run is asked to do.

    :param fields: ``field_map`` and ``ingest_fields`` of the load, which joins each document with its answer.
    :param given_field_map: The user's own, if there is one.
    :param dimension: What the vectors must be, and a new index gets.
    :param index_body: What a missing index is created with.
    :param load_options: Fields of :class:`~overnight.ingest.request.LoadOptions`.
    :param timeout: Seconds after which the waiting ends; the jobs run on.
    """

    documents: Sequence[str]
    index: str
    template: RequestTemplate
    fields: Mapping[str, Any]
    given_field_map: Mapping[str, Any] | None = None
    dimension: int | None = None
    index_body: Mapping[str, Any] | None = None
    prices: str | None = None
    max_cost: str | None = None
    max_tokens: str | None = None
    on_bad_document: OnBadDocument = "fail"
    allowed_failures: str = "0"
    limits: Limits = field(default_factory=Limits)
    interval: float = 30.0
    timeout: float | None = None
    load_options: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """
        Refuse what would be paid for and could not be loaded; nothing is asked for.

        :raises SpecError: it says why.
        """
        Allowance.parse(self.allowed_failures)
        unreadable = find_unreadable(self.template.endpoint, self.given_field_map)
        if unreadable is not None:
            raise SpecError(f"{unreadable} (--field-map).")
        request = self.build_load("documents", ["results"])
        compile_field_map(request.field_map, request.ingest_fields, 2)
        LoadOptions.of(self.load_options)

    def build_load(self, documents_uri: str, result_uris: Sequence[str]) -> IngestRequest:
        """Return the load of a part's documents, each joined with its answer."""
        return IngestRequest.of(
            {"index_name": self.index, "data_source": {"source": [documents_uri, list(result_uris)]}, **self.fields}
        )


@dataclass(eq=False)
class PartRun:
    """
    One part on its way: its job, and then its load.

    :param event: What was done about its job at this start.
    :param error: Why there is no conclusion, or no load.
    """

    part: InputPart
    spec: OpenAIBatchSpec
    attempt: Attempt[OpenAIBatchSpec]
    records: RecordStore
    name: str
    event: Event | None = None
    record: JobRecord | None = None
    conclusion: Conclusion | None = None
    error: OvernightError | None = None
    load: LoadReport | None = None
    accepted: bool = False

    def note(self, event: Event) -> None:
        """Keep what was done about its job."""
        self.event = event

    def find_job(self) -> JobRef | None:
        """Return its job, which its thread may have submitted meanwhile."""
        record = self.records.get()
        return record.ref if record is not None else None

    def report(self) -> PartReport:
        """Return what became of it."""
        ref = self.conclusion.ref if self.conclusion is not None else self.find_job()
        ended = self.conclusion
        outcome = {
            "ref": ref,
            "status": ended.status.model_dump() if ended is not None and ended.status is not None else None,
            "results": ended.results.model_dump() if ended is not None and ended.results is not None else None,
        }
        return PartReport(
            submitted=self.part.requests,
            load=self.load,
            accepted=self.accepted,
            job=JobReport.of(outcome) if ref is not None else None,
        )


class WaitTimeoutError(OvernightError):
    """The jobs were not over in time, and run on."""

    retryable = True


class OpenAIRun:
    """
    One start of ``overnight run``.

    :param folder: The work folder, claimed.
    :param run_id: Of the folder.
    :param connection: To OpenAI, or a compatible server.
    :param target: The OpenSearch.
    :param display: Is told what happens.
    """

    def __init__(
        self,
        request: RunRequest,
        folder: WorkFolder,
        run_id: str,
        *,
        connection: OpenAIConnection,
        target: OpenSearchTarget,
        storage: Storage,
        display: RunDisplay,
    ) -> None:
        self.request = request
        self.parts: list[PartRun] = []
        self._folder = folder
        self._run_id = run_id
        self._connection = connection
        self._target = target
        self._storage = storage
        self._display = display
        self._prices = PriceTable.of(request.prices, storage)
        self._ended: queue.SimpleQueue[PartRun] = queue.SimpleQueue()

    @property
    def unfinished(self) -> list[JobRef]:
        """The jobs that were submitted and whose end is not known."""
        jobs = (part.find_job() for part in self.parts if part.conclusion is None)
        return [job for job in jobs if job is not None]

    @property
    def has_submitted(self) -> bool:
        """Whether there is a job, of this start or an earlier one."""
        return any(part.find_job() is not None for part in self.parts)

    def carry_out(self) -> PipelineReport:
        """
        Prepare, submit, wait, load; return the report, also of parts that failed.

        :raises SpecError: something is refused, and nothing was submitted.
        :raises WaitTimeoutError: ``timeout`` passed; the jobs run on.
        :raises ServiceError: a job could not be submitted; those before it run on, and another start goes on.
        """
        built, estimate = self._prepare()
        self._make_parts(built)
        self._prepare_index()
        self._submit()
        self._wait_and_load()
        reports = [part.report() for part in self.parts]
        return PipelineReport.of(
            reports,
            index=self.request.index,
            not_sent=Excluded(count=built.rejected, uri=built.rejected_uri),
            estimate=estimate,
            cost=JobCosts.of(reports, estimate, self._prices).total,
        )

    def _prepare(self) -> tuple[BuiltInput, CostEstimate]:
        """Have the batch input in the work folder, within the limits of cost."""
        request = self.request
        listing = self._storage.match_files(request.documents)
        if not listing.files:
            raise SpecError(f"No file matches {shorten(', '.join(request.documents), 500)}. {listing.remark}".rstrip())
        fingerprint = compute_fingerprint(
            {
                "files": [[file.uri, file.size, file.version] for file in listing.files],
                "template": request.template.model_dump(mode="json"),
                "limits": request.limits.model_dump(mode="json"),
                "on_bad": request.on_bad_document,
            }
        )
        # Written anew, the documents would be other files to a load that goes on at its checkpoint.
        is_known = all(file.version for file in listing.files)
        built = self._folder.read_input(fingerprint) if is_known else None
        if built is not None:
            estimate = price_input(built, request.template, self._prices)
        else:
            self._folder.forget_input()
            built, estimate = prepare_input(
                [file.uri for file in listing.files],
                request.template,
                self._folder.uri,
                storage=self._storage,
                prices=self._prices,
                limits=request.limits,
                on_bad=request.on_bad_document,
            )
            self._folder.write_input(fingerprint, built)
        if not built.documents:
            raise SpecError(f"There is no document in {shorten(', '.join(request.documents), 500)}.")
        for line in estimate.describe():
            self._display.say(line)
        rejected = check_rejected(built, Allowance.parse(request.allowed_failures))
        if rejected is not None:
            self._display.say(rejected)
        estimate.check(max_cost=request.max_cost, max_tokens=request.max_tokens)
        return built, estimate

    def _make_parts(self, built: BuiltInput) -> None:
        specs = [
            OpenAIBatchSpec(
                input_uri=part.uri,
                input_sha256=part.sha256,
                input_bytes=part.bytes,
                input_requests=part.requests,
                endpoint=self.request.template.endpoint,
            )
            for part in built.parts
        ]
        self._folder.refuse_other_jobs(specs, OPENAI_CONN_ID)
        settings = WaitSettings.parse(
            poll_interval=self.request.interval, allowed_failures=self.request.allowed_failures
        )
        for number, (part, spec) in enumerate(zip(built.parts, specs, strict=True)):
            name = f"part {number}" if len(specs) > 1 else "the batch"
            records = self._folder.open_records(number)
            attempt: Attempt[OpenAIBatchSpec] = begin(
                make_openai_client(self._connection, self._storage, self.request.limits),
                records,
                f"overnight run {self._run_id} part-{number:05d}",
                settings,
            )
            run = PartRun(part, spec, attempt, records, name)
            attempt.on_event = run.note
            attempt.on_status = partial(self._display.show_status, name)
            self.parts.append(run)

    def _prepare_index(self) -> None:
        """Have the index ready for the vectors that will be written, before anything is paid for."""
        request = self.request
        body, endpoint = request.template.body, request.template.endpoint
        fields = list_vector_fields(request.fields["field_map"]) if endpoint.endswith("/embeddings") else []
        vectors: dict[str, int] = {}
        if fields:
            client = self.parts[0].attempt.client
            base_url = cast("HttpTransport", client.transport).base_url
            length = client.run(measure_vectors(base_url, endpoint, body, dimension=request.dimension))
            vectors = dict.fromkeys(fields, length) if length is not None else {}
        prepare_index(
            self._target, request.index, body=request.index_body, dimension=request.dimension, vectors=vectors
        )

    def _submit(self) -> None:
        """Submit all jobs, or attach to those of an earlier start, before any of them is waited for."""
        for part in self.parts:
            part.record = part.attempt.attach_or_submit(part.spec, self._measure)
            requests = f"{part.part.requests:,} requests"
            if part.record.is_waiting:
                self._display.say(f"{part.name}: {requests} wait for room in the service's queue.")
            elif part.event == "attached":
                self._display.say(
                    f"{part.name}: {part.record.job} of an earlier start, {requests}. Nothing is paid again."
                )
            else:
                self._display.say(f"{part.name}: submitted {part.record.job}, {requests}.")

    def _measure(self, spec: OpenAIBatchSpec) -> OpenAIBatchSpec:
        """Validate a part that is about to be uploaded, line by line."""
        measured = spec.measured(self._storage, self.request.limits)
        if measured.input_sha256 != spec.input_sha256:
            raise SpecError(
                f"{redact(str(spec.input_uri))} has changed since it was written, and was not submitted. Delete "
                f"{redact(self._folder.uri)}/input.json and start again: it is written anew."
            )
        return measured

    def _wait_and_load(self) -> None:
        """Wait for all jobs at once, and load each part when its job has ended."""
        until = time.monotonic() + self.request.timeout if self.request.timeout is not None else None
        for part in self.parts:
            # Nothing waits for them when the command ends: their jobs run on, and the records are written.
            threading.Thread(target=self._wait, args=(part,), name=part.name, daemon=True).start()
        for _ in self.parts:
            try:
                ended = self._ended.get(timeout=max(until - time.monotonic(), 0) if until is not None else None)
            except queue.Empty:
                raise WaitTimeoutError(f"Not over after {self.request.timeout:g} s.") from None
            self._display.finish(ended.name)
            if ended.error is None:
                self._load(ended)
            if ended.error is not None:
                self._display.say(f"{ended.name}: {ended.error}")

    def _wait(self, part: PartRun) -> None:
        try:
            part.conclusion = run_attempt(part.attempt, part.spec, self._measure, part.record)
            if part.conclusion.error is not None:
                part.error = _describe_end(part.conclusion, self.request.allowed_failures)
        except OvernightError as error:
            part.error = error
        except Exception as error:  # of a thread: it is shown by the one that waits for it
            part.error = OvernightError(f"Something failed that should not: {describe_unexpected(error)}.")
        self._ended.put(part)

    def _load(self, part: PartRun) -> None:
        """Load a part whose job ended well; an error is kept with it, and the others go on."""
        results = part.conclusion.results if part.conclusion is not None else None
        if results is None:
            raise ValueError(f"{part.name} has no results")
        own = {
            "dead_letter_uri": part.part.dead_letter_uri,
            "checkpoint_uri": part.part.checkpoint_uri,
            "allowed_failures": self.request.allowed_failures,
            "format": [None, results.ref.service],
            "result_counts": [None, count_loadable(results)],
        }
        if "format" in self.request.load_options:
            del own["result_counts"]
        key = self._connection.api_key
        try:
            part.load = load(
                self.request.build_load(part.part.documents_uri, list_item_files(results)),
                target=self._target,
                storage=self._storage,
                openers={"openai": openai_opener(key, self._connection.base_url)},
                options=LoadOptions.of({**own, **self.request.load_options}),
                on_progress=lambda progress: self._display.show_load(f"{part.name}, load", progress),
            )
            excess = part.load.excess(self.request.allowed_failures)
            part.accepted = excess is None
            part.error = OvernightError(excess) if excess is not None else None
        except VerificationError as error:
            part.error = error
            part.load = LoadReport.model_validate(error.report) if error.report is not None else None
        except OvernightError as error:
            part.error = error
        finally:
            self._display.finish(f"{part.name}, load")


def _describe_end(conclusion: Conclusion, allowed: str) -> OvernightError:
    """Return why a job's end is no success, and what to do in a shell about it."""
    status, error = conclusion.status, conclusion.error
    if status is None or not status.state.is_terminal:
        return OvernightError(f"{error} Start the same run again to go on.")
    text = f"{conclusion.ref} ended {status.describe()}."
    if status.state in (JobState.SUCCEEDED, JobState.PARTIAL, JobState.EXPIRED) and status.counts.succeeded:
        return OvernightError(
            f"{text} More of its requests are without a result than --allowed-failures {allowed} lets pass. What "
            "succeeded is paid for: start the same run again with a larger number, and it is loaded."
        )
    mended = "" if error is not None and error.retryable else " once that is mended"
    return OvernightError(f"{text} The same run, started again{mended}, submits it anew, which is paid for.")
