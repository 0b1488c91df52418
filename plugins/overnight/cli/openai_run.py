"""The steps of ``overnight run``: documents, OpenAI batches, an index; by the code that the operators use."""

from __future__ import annotations

import queue
import threading
import time
from functools import partial
from typing import cast

from overnight.cli.addresses import OPENAI_CONN_ID, make_openai_client
from overnight.cli.run_parts import PartLoader, PartRun, ReusedRun
from overnight.cli.run_progress import RunDisplay
from overnight.cli.run_request import RunRequest
from overnight.cli.work_folder import WorkFolder
from overnight.costs.estimate import CostEstimate
from overnight.costs.prices import PriceTable
from overnight.errors import OvernightError, SpecError, shorten
from overnight.ingest.write.index_preparation import prepare_index
from overnight.ingest.write.target import OpenSearchTarget
from overnight.jobs import JobRef, JobState, compute_fingerprint
from overnight.jobs.allowance import Allowance
from overnight.jobs.attach import Attempt, Conclusion
from overnight.jobs.client import JobClient
from overnight.jobs.runner import begin, run_attempt
from overnight.jobs.wait import describe_unexpected
from overnight.jobs.wait_settings import WaitSettings
from overnight.services.openai.connection import OpenAIConnection
from overnight.services.openai.dimension import measure_vectors
from overnight.services.openai.input import BuiltInput
from overnight.services.openai.joined_fields import list_vector_fields
from overnight.services.openai.preparation import check_rejected, describe_reused, prepare_input, price_input
from overnight.services.openai.result_cache import describe_lost, keep_rounds, warn_instead
from overnight.services.openai.service import OpenAIBatchService
from overnight.services.openai.spec import OpenAIBatchSpec
from overnight.storage import Storage, redact
from overnight.templates.job_costs import JobCosts, price_reused
from overnight.templates.report import Excluded, PipelineReport
from overnight.transport.http import HttpTransport


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
        self.reused: list[ReusedRun] = []
        self._folder = folder
        self._run_id = run_id
        self._connection = connection
        self._conn_id = request.conn_id or OPENAI_CONN_ID
        self._target = target
        self._storage = storage
        self._display = display
        self._prices = PriceTable.of(request.prices, storage)
        self._ended: queue.SimpleQueue[PartRun] = queue.SimpleQueue()
        self._loader = PartLoader(
            request, connect=connection.transport, target=target, storage=storage, display=display
        )

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
        sent = [part.report() for part in self.parts]
        reports = [*sent, *(part.report() for part in self.reused)]
        return PipelineReport.of(
            reports,
            index=self.request.index,
            not_sent=Excluded(count=built.rejected, uri=built.rejected_uri),
            saved=price_reused(reports, self._prices),
            estimate=estimate,
            cost=JobCosts.of(sent, estimate, self._prices).total,
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
                # Whether answers are added is of no matter to what is sent.
                "cache": [request.cache.uri, request.cache.mode == "refresh"] if request.cache.is_on else None,
            }
        )
        # Written anew, the documents would be other files to a load that goes on at its checkpoint.
        is_known = all(file.version for file in listing.files)
        if request.cache.is_on and not is_known:
            unknown = next(file.uri for file in listing.files if not file.version)
            raise SpecError(
                f"Nothing says whether {redact(unknown)} has changed, so another start could not tell which documents "
                "the jobs are of, once some answers are in the cache. Copy it to a disk or an object store, or leave "
                "--cache and --cache-uri out."
            )
        built = self._folder.read_input(fingerprint) if is_known else None
        if built is not None:
            estimate = price_input(built, request.template, self._prices)
        else:
            self._folder.forget_input()
            service = None
            if request.cache.is_on:
                with self._make_client() as client:
                    service = request.cache.open(client, self._storage)
            built, estimate = prepare_input(
                [file.uri for file in listing.files],
                request.template,
                self._folder.uri,
                storage=self._storage,
                prices=self._prices,
                limits=request.limits,
                on_bad=request.on_bad_document,
                cache=service,
                mode=request.cache.mode,
            )
            self._folder.write_input(fingerprint, built)
        if not built.documents:
            raise SpecError(f"There is no document in {shorten(', '.join(request.documents), 500)}.")
        if request.cache.is_on:
            self._display.say(describe_reused(built))
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
        self._folder.refuse_other_jobs(specs, self._conn_id)
        settings = WaitSettings.parse(
            poll_interval=self.request.interval, allowed_failures=self.request.allowed_failures
        )
        for number, (part, spec) in enumerate(zip(built.parts, specs, strict=True)):
            name = f"part {number}" if len(specs) > 1 else "the batch"
            records = self._folder.open_records(number)
            attempt: Attempt[OpenAIBatchSpec] = begin(
                self._make_client(),
                records,
                f"overnight run {self._run_id} part-{number:05d}",
                settings,
            )
            run = PartRun(part, spec, attempt, records, name=name)
            attempt.on_event = run.note
            attempt.on_status = partial(self._display.show_status, name)
            self.parts.append(run)
        for number, reused in enumerate(built.reused):
            name = f"reused answers {number}" if len(built.reused) > 1 else "reused answers"
            self.reused.append(ReusedRun(reused, name=name))

    def _make_client(self) -> JobClient[OpenAIBatchService]:
        return make_openai_client(self._connection, self._storage, self.request.limits, self._conn_id)

    def _prepare_index(self) -> None:
        """Have the index ready for the vectors that will be written, before anything is paid for."""
        request = self.request
        body, endpoint = request.template.body, request.template.endpoint
        fields = list_vector_fields(request.fields["field_map"]) if endpoint.endswith("/embeddings") else []
        vectors: dict[str, int] = {}
        if fields:
            with self._make_client() as client:
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
        """Wait for all jobs at once, and load each part when its job has ended; what is in the cache meanwhile."""
        until = time.monotonic() + self.request.timeout if self.request.timeout is not None else None
        for part in self.parts:
            # Nothing waits for them when the command ends: their jobs run on, and the records are written.
            threading.Thread(target=self._wait, args=(part,), name=part.name, daemon=True).start()
        for reused in self.reused:
            self._loader.load_reused(reused)
            if reused.error is not None:
                self._display.say(f"{reused.name}: {reused.error}")
        for _ in self.parts:
            try:
                ended = self._ended.get(timeout=max(until - time.monotonic(), 0) if until is not None else None)
            except queue.Empty:
                raise WaitTimeoutError(f"Not over after {self.request.timeout:g} s.") from None
            self._display.finish(ended.name)
            if ended.error is None:
                self._loader.load_results(ended)
            if ended.error is not None:
                self._display.say(f"{ended.name}: {ended.error}")
            self._keep(ended)

    def _wait(self, part: PartRun) -> None:
        try:
            part.conclusion = run_attempt(part.attempt, part.spec, self._measure, part.record)
            if part.conclusion.error is not None:
                part.error = _describe_end(part.conclusion, self.request)
        except OvernightError as error:
            part.error = error
        except Exception as error:  # of a thread: it is shown by the one that waits for it
            part.error = OvernightError(f"Something failed that should not: {describe_unexpected(error)}.")
        self._ended.put(part)

    def _keep(self, part: PartRun) -> None:
        """Add what the job has finished to the cache, also of one that did not succeed: it is paid for."""
        cache, conclusion = self.request.cache, part.conclusion
        if not cache.adds or conclusion is None:
            return
        with warn_instead(describe_lost(conclusion.ref), self._display.say):
            added = keep_rounds(
                part.attempt.client,
                cache,
                conclusion.ref,
                conclusion.results,
                input_uri=part.part.uri,
                former_rounds=0,
                endpoint=part.spec.endpoint,
                storage=self._storage,
            )
            self._display.say(f"{part.name}: answers that were added to the cache: {added:,}.")


def _describe_end(conclusion: Conclusion, request: RunRequest) -> OvernightError:
    """Return why a job's end is no success, and what to do in a shell about it."""
    status, error = conclusion.status, conclusion.error
    if status is None or not status.state.is_terminal:
        return OvernightError(f"{error} Start the same run again to go on.")
    text = f"{conclusion.ref} ended {status.describe()}."
    if status.state in (JobState.SUCCEEDED, JobState.PARTIAL, JobState.EXPIRED) and status.counts.succeeded:
        return OvernightError(
            f"{text} More of its requests are without a result than --allowed-failures {request.allowed_failures} lets "
            "pass. What succeeded is paid for: start the same run again with a larger number, and it is loaded."
        )
    mended = "" if error is not None and error.retryable else " once that is mended"
    text = f"{text} The same run, started again{mended}, submits it anew, which is paid for."
    if request.cache.adds and conclusion.results is not None:
        text += " What it has finished is in the cache: with another --work only the rest of it is submitted."
    return OvernightError(text)
