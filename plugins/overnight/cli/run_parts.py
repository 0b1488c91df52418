"""The parts of an ``overnight run``: what becomes of each, and its load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from overnight.cli.run_progress import RunDisplay
from overnight.cli.run_request import RunRequest
from overnight.costs.usage_cost import AnswerUsage
from overnight.errors import OvernightError
from overnight.ingest.loading import load
from overnight.ingest.read.openers import OpenTransport, transport_opener
from overnight.ingest.read.stored_answers import ReusedSource, StoredAnswers, build_repeated_uri
from overnight.ingest.report.load_report import LoadReport
from overnight.ingest.request import LoadOptions
from overnight.ingest.write.sink import VerificationError
from overnight.ingest.write.target import OpenSearchTarget
from overnight.jobs import JobRecord, JobRef
from overnight.jobs.attach import Attempt, Conclusion, Event
from overnight.jobs.record_store import RecordStore
from overnight.services.openai.input import InputPart, ReusedPart
from overnight.services.openai.results import count_loadable, list_item_files
from overnight.services.openai.service import OpenAIBatchService
from overnight.services.openai.spec import OpenAIBatchSpec
from overnight.storage import Storage
from overnight.templates.report import JobReport, PartReport


@dataclass(kw_only=True)
class LoadedPart:
    """
    What is known of any part's load.

    :param error: Why there is none, or why it is no success.
    :param usage: What the answers were paid for with that were not paid for again, as far as they were loaded.
    """

    name: str
    error: OvernightError | None = None
    load: LoadReport | None = None
    accepted: bool = False
    usage: tuple[AnswerUsage, ...] = ()


@dataclass(eq=False)
class PartRun(LoadedPart):
    """
    One part on its way: its job, and then its load.

    :param event: What was done about its job at this start.
    :param error: Why there is no conclusion, or no load.
    """

    part: InputPart
    spec: OpenAIBatchSpec
    attempt: Attempt[OpenAIBatchSpec]
    records: RecordStore
    event: Event | None = None
    record: JobRecord | None = None
    conclusion: Conclusion | None = None

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
            reused=self.part.repeated,
            load=self.load,
            accepted=self.accepted,
            reused_usage=self.usage,
            job=JobReport.of(outcome) if ref is not None else None,
        )


@dataclass(eq=False)
class ReusedRun(LoadedPart):
    """A part whose answers are in the cache."""

    part: ReusedPart

    def report(self) -> PartReport:
        """Return what became of it."""
        return PartReport(
            submitted=0,
            reused=self.part.documents,
            load=self.load,
            accepted=self.accepted,
            reused_usage=self.usage,
        )


class PartLoader:
    """
    Loads the parts of a run; an error is kept with its part, and the others go on.

    :param connect: Opens a transport to the server that has the results.
    """

    def __init__(
        self,
        request: RunRequest,
        *,
        connect: OpenTransport,
        target: OpenSearchTarget,
        storage: Storage,
        display: RunDisplay,
    ) -> None:
        self._request = request
        self._connect = connect
        self._target = target
        self._storage = storage
        self._display = display

    def load_results(self, run: PartRun) -> None:
        """Load a part whose job ended well."""
        results = run.conclusion.results if run.conclusion is not None else None
        if results is None:
            raise ValueError(f"{run.name} has no results")
        part, uris, repeated = run.part, list_item_files(results), {}
        documents = [part.documents_uri]
        if part.repeated_uri is not None and part.repeated_documents_uri is not None:
            documents.append(part.repeated_documents_uri)
            repeated = {part.repeated_uri: uris}
        self._load(
            run,
            documents,
            [*uris, *map(build_repeated_uri, repeated)],
            StoredAnswers((), repeated, storage=self._storage, connect=self._connect),
            count=count_loadable(results, part.repeated),
        )

    def load_reused(self, run: ReusedRun) -> None:
        """Load a part whose answers are in the cache."""
        cache = self._request.cache
        source = ReusedSource(
            reused=run.part,
            template=self._request.template,
            cache_uri=cache.uri,
            # With read, nothing is written into the cache.
            cache_older_than=self._request.cache_older_than if cache.mode == "write" else None,
        )
        self._load(
            run,
            [run.part.documents_uri],
            [source.uri],
            StoredAnswers([source], {}, storage=self._storage, connect=self._connect),
            count=run.part.documents,
        )

    def _load(
        self,
        run: PartRun | ReusedRun,
        documents: Sequence[str],
        results: Sequence[str],
        answers: StoredAnswers,
        *,
        count: int | None,
    ) -> None:
        """:param count: How many results there must be, where that is known."""
        own = {
            "dead_letter_uri": run.part.dead_letter_uri,
            "checkpoint_uri": run.part.checkpoint_uri,
            "allowed_failures": self._request.allowed_failures,
            "format": [None, OpenAIBatchService.name],
            "result_counts": [None, count],
        }
        if "format" in self._request.load_options:
            del own["result_counts"]
        try:
            run.load = load(
                self._request.build_load(documents, results),
                target=self._target,
                storage=self._storage,
                openers={"openai": transport_opener(self._connect), **answers.openers},
                looks=answers.looks,
                options=LoadOptions.of({**own, **self._request.load_options}),
                on_progress=lambda progress: self._display.show_load(f"{run.name}, load", progress),
            )
            excess = run.load.excess(self._request.allowed_failures)
            run.accepted = excess is None
            run.error = OvernightError(excess) if excess is not None else None
        except VerificationError as error:
            run.error = error
            run.load = LoadReport.model_validate(error.report) if error.report is not None else None
        except OvernightError as error:
            run.error = error
        finally:
            run.usage = tuple(answers.usage)
            self._display.finish(f"{run.name}, load")
