"""OpenAI batches as DAG steps: build the input, run the batch, sort its outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, cast

from airflow.sdk import BaseOperator

from overnight.errors import JobFailedError, SpecError, shorten
from overnight.hooks.job import hook_for
from overnight.hooks.openai import OpenAIHook
from overnight.hooks.outcome import failing_for_good
from overnight.hooks.storage import DEFAULT_AWS_CONN_ID, connected_storage
from overnight.operators.job import JobOperator, has_item_outcomes
from overnight.operators.parameters import check_parameters, require_count, require_truth
from overnight.services.openai.choices import CacheMode, OnBadDocument
from overnight.services.openai.template import RequestTemplate
from overnight.validation import parse_parameter

if TYPE_CHECKING:
    from airflow.sdk import Context

    from overnight.hooks.job import JobHook
    from overnight.jobs import JobRecord, JobRef, JobStatus, ResultManifest
    from overnight.jobs.client import JobClient
    from overnight.output_schema import OutputSchema
    from overnight.services.openai.cached_answers import CachedService
    from overnight.services.openai.repair import InvalidAnswers
    from overnight.services.openai.request_function import RequestFunction
    from overnight.services.openai.result_cache import ResultCache
    from overnight.services.openai.service import OpenAIBatchService, OpenAIBatchSpec
    from overnight.storage import Storage
    from overnight.transport.http import HttpTransport


ESTIMATE_KEY = "estimate"
"""The XCom of :class:`OpenAIBatchInputOperator` with what the parts cost."""
REUSED_KEY = "reused"
"""The XCom of what was not sent: of ``prepare`` a list of parts, of a load the usage that came with their answers."""


class OpenAIBatchInputOperator(BaseOperator):
    """
    Turn documents into batch input, in as many parts as the service's limits ask for.

    The XCom is a list with one ``{"uri", "documents_uri", "requests", "bytes", …}``
    (:class:`~overnight.services.openai.input.InputPart`) for each part, fit for ``expand_kwargs``. The same documents
    give the same files, so a retry changes nothing. The XCom ``rejected`` has the rejected ones' ``{"count", "uri"}``,
    and ``estimate`` what the parts are and cost (:class:`~overnight.costs.estimate.CostEstimate`).

    With a cache, documents whose answers are there are in no part. The XCom ``reused`` has them, as a list of one
    ``{"uri", "documents_uri", "documents", …}`` (:class:`~overnight.services.openai.input.ReusedPart`) for each load.

    :param documents: JSONL files of one object a line: a URI, a glob, a prefix ending in ``/``, or a list of these.
    :param target: The folder, as a URI, that the parts are written to.
    :param template: How a document becomes a request: the fields of a
        :class:`~overnight.services.openai.input.RequestTemplate`.
    :param on_bad_document: ``"fail"`` for the whole input, naming every bad line, or ``"reject"`` the bad documents:
        ``<target>/rejected.jsonl`` has them.
    :param allowed_failures: How many documents may be rejected: a count (``10``), a ratio (``0.05``) or a percentage
        (``"5%"``); ``None`` for any number.
    :param limits: What the service takes in one batch: fields of :class:`~overnight.services.openai.input.Limits`.
    :param allow_empty: Whether there may be no file, or no document in them: then there are no parts. Otherwise
        that is refused.
    :param max_cost: What all parts may cost together (``"5 USD"``, or a number in the currency of the prices). More is
        refused, and so is what has no bound that is known.
    :param max_tokens: How many tokens of input, and of output as far as the requests limit it, all parts may have.
    :param prices: Instead of, or beside, the prices that come with the package:
        :meth:`overnight.costs.prices.PriceTable.of`.
    :param cache_uri: The folder of a cache of answers that were paid for (docs/cache.md).
    :param cache: What is done with it: ``"write"`` and ``"read"`` send only what is not in it, ``"refresh"`` sends
        everything, as ``"off"`` does. When left out, ``"write"`` with a ``cache_uri`` and ``"off"`` without one.
    :param conn_id: With a cache, the OpenAI connection that the batches will have: answers are those of its server.
    :param aws_conn_id: The connection for ``s3://`` URIs.
    """

    template_fields: Sequence[str] = (
        "documents", "target", "template", "on_bad_document", "allowed_failures", "limits", "allow_empty",
        "max_cost", "max_tokens", "prices", "cache_uri", "cache", "conn_id", "aws_conn_id",
    )  # fmt: skip

    def __init__(
        self,
        *,
        documents: str | Sequence[str],
        target: str,
        template: Mapping[str, Any] | RequestTemplate,
        on_bad_document: OnBadDocument = "fail",
        allowed_failures: float | str | None = None,
        limits: Mapping[str, int] | None = None,
        allow_empty: bool | str = False,
        max_cost: float | str | None = None,
        max_tokens: int | str | None = None,
        prices: Mapping[str, Any] | str | None = None,
        cache_uri: str | None = None,
        cache: CacheMode | str | None = None,
        conn_id: str | None = None,
        aws_conn_id: str | None = DEFAULT_AWS_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.allow_empty = allow_empty
        self.documents = documents
        self.target = target
        self.template = template.model_dump() if isinstance(template, RequestTemplate) else template
        self.on_bad_document = on_bad_document
        self.allowed_failures = allowed_failures
        self.limits = limits
        self.max_cost = max_cost
        self.max_tokens = max_tokens
        self.prices = prices
        self.cache_uri = cache_uri
        self.cache = cache
        self.conn_id = conn_id
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Write the parts and return what they are."""
        from overnight.costs.prices import PriceTable  # noqa: PLC0415 - not at parse
        from overnight.jobs.allowance import Allowance  # noqa: PLC0415 - not at parse
        from overnight.services.openai.input import Limits  # noqa: PLC0415 - not at parse
        from overnight.services.openai.preparation import (  # noqa: PLC0415 - not at parse
            check_rejected,
            describe_reused,
            prepare_input,
        )
        from overnight.services.openai.result_cache import ResultCache  # noqa: PLC0415 - not at parse
        from overnight.storage import redact  # noqa: PLC0415 - not at parse

        with failing_for_good():
            check_parameters(self)
            cache = ResultCache.parse(self.cache, self.cache_uri)
            allowed = Allowance.parse(self.allowed_failures) if self.allowed_failures is not None else None
            storage = connected_storage(self.aws_conn_id)
            service = self._open_cache(cache, storage) if cache.is_on else None
            patterns = [self.documents] if isinstance(self.documents, str) else list(self.documents)
            listing = storage.match_files(patterns)
            uris = [file.uri for file in listing.files]
            allow_empty = require_truth(self.allow_empty, "allow_empty")
            if not uris and not allow_empty:
                raise SpecError(
                    f"No file matches {self.documents!r}; check the address and the connection's rights. Where there "
                    f"may be no documents, set allow_empty. {listing.remark}".rstrip()
                )
            template = self.build_template()
            built, estimate = prepare_input(
                uris,
                template,
                self.target,
                storage=storage,
                prices=PriceTable.of(self.prices, storage),
                limits=parse_parameter(Limits, self.limits or {}, "limits"),
                on_bad=self.on_bad_document,
                cache=service,
                mode=cache.mode,
            )
            if not built.documents and not allow_empty:
                names = shorten(", ".join(map(redact, uris)), 500)
                raise SpecError(f"There is no document in {names}. Where there may be none, set allow_empty.")
        self.log.info(
            "Documents: %d. Files: %d. Parts: %d. Blank lines, which are skipped: %d.",
            built.documents,
            len(uris),
            len(built.parts),
            built.blank_lines,
        )
        if cache.is_on:
            self.log.info("%s", describe_reused(built))
        # An empty list, too: a mapped task wants one.
        reused = [part.model_dump(mode="json") for part in built.reused]
        context["ti"].xcom_push(key=REUSED_KEY, value=reused)
        context["ti"].xcom_push(key=ESTIMATE_KEY, value=estimate.model_dump(mode="json"))
        for line in estimate.describe():
            self.log.info("%s", line)
        context["ti"].xcom_push(key="rejected", value={"count": built.rejected, "uri": built.rejected_uri})
        with failing_for_good():
            rejected = check_rejected(built, allowed)
        if rejected is not None:
            self.log.warning("%s", rejected)
        with failing_for_good():
            estimate.check(max_cost=self.max_cost, max_tokens=self.max_tokens)
        return [part.model_dump(mode="json") for part in built.parts]

    def build_template(self) -> RequestTemplate | RequestFunction:
        """
        Return how a document becomes a request.

        :raises SpecError: it is none.
        """
        return parse_parameter(RequestTemplate, self.template, "template")

    def _open_cache(self, cache: ResultCache, storage: Storage) -> CachedService:
        with OpenAIHook(self.conn_id).client() as client:
            return cache.open(client, storage)


class OpenAIBatchOperator(JobOperator["OpenAIBatchSpec"]):
    """
    Run one OpenAI batch and wait for its end.

    The input file is validated, line by line, before anything is uploaded. It works with OpenAI, Azure OpenAI and
    compatible servers; the connection makes the difference.

    :param input_uri: A JSONL file of batch requests on a disk or in an object store; or
    :param input_file_id: a file that is at the service already.
    :param input_sha256: Digest of the file at ``input_uri``, with ``input_bytes`` and ``input_requests`` as
        :class:`OpenAIBatchInputOperator` has them for each part. A try that only attaches does not read the file then;
        one that submits does, and refuses a file that has changed.
    :param endpoint: ``/v1/embeddings``, ``/v1/chat/completions`` …; every line's ``url`` must be the same.
    :param completion_window: ``24h`` is the only one that OpenAI has.
    :param metadata: Your own tags, at most 12 pairs.
    :param input_expires_after: Seconds after which the service deletes the uploaded file.
    :param output_expires_after: The same for the result files.
    :param limits: What the service takes in one batch: fields of :class:`~overnight.services.openai.input.Limits`.
    :param resubmit: In how many further rounds lines go out again that expired, have no result, or failed for a reason
        that may pass; refusals of content never. ``None``: what is left of an expired batch that finished some lines
        goes out once, and nothing else. Each round is a batch of its own. Its files are written beside
        ``input_uri``, and the XCom has the results of all rounds, each line counted once.
    :param output_schema: What an answer must be (docs/structured-outputs.md): an import path
        (``package.module.Model``) or a JSON Schema. ``resubmit`` then sends requests again whose answer is not that.
        The load that follows needs it, too: what the last round leaves is rejected there.
    :param repair: Whether these requests go out with the invalid answer, and what is wrong with it, as further
        messages.
    :param cache_uri: The folder of a cache that the batch's usable answers are added to when it is over, those of a
        batch that did not succeed as well (docs/cache.md). That they could not be is a warning, and no failure.
    :param cache: ``"write"`` adds answers that are not there, ``"refresh"`` replaces those that are; ``"read"`` and
        ``"off"`` add nothing. When left out, ``"write"`` with a ``cache_uri`` and ``"off"`` without one.
    :param conn_id: An OpenAI connection, ``openai_default`` when left out.
    :param aws_conn_id: The connection for ``s3://`` URIs.

    All further parameters are those of :class:`~overnight.operators.job.JobOperator`.
    """

    template_fields: Sequence[str] = (
        "input_uri",
        "input_file_id",
        "input_sha256",
        "input_bytes",
        "input_requests",
        "endpoint",
        "metadata",
        "input_expires_after",
        "output_expires_after",
        "limits",
        "resubmit",
        "output_schema",
        "repair",
        "cache_uri",
        "cache",
        "aws_conn_id",
        *JobOperator.template_fields,
    )
    hook_class: ClassVar[type[JobHook[Any]]] = OpenAIHook

    def __init__(
        self,
        *,
        input_uri: str | None = None,
        input_file_id: str | None = None,
        input_sha256: str | None = None,
        input_bytes: int | str | None = None,
        input_requests: int | str | None = None,
        endpoint: str,
        completion_window: str = "24h",
        metadata: Mapping[str, str] | None = None,
        input_expires_after: int | str | None = None,
        output_expires_after: int | str | None = None,
        limits: Mapping[str, int] | None = None,
        resubmit: int | str | None = None,
        output_schema: str | Mapping[str, Any] | None = None,
        repair: bool | str = False,
        cache_uri: str | None = None,
        cache: CacheMode | str | None = None,
        aws_conn_id: str | None = DEFAULT_AWS_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.resubmit = resubmit
        self.output_schema = output_schema
        self.repair = repair
        self.cache_uri = cache_uri
        self.cache = cache
        self.input_uri = input_uri
        self.input_file_id = input_file_id
        self.input_sha256 = input_sha256
        self.input_bytes = input_bytes
        self.input_requests = input_requests
        self.endpoint = endpoint
        self.completion_window = completion_window
        self.metadata = metadata
        self.input_expires_after = input_expires_after
        self.output_expires_after = output_expires_after
        self.limits = limits
        self.aws_conn_id = aws_conn_id

    def make_client(self) -> JobClient[OpenAIBatchService]:
        """Return a client that reads the input through ``aws_conn_id``."""
        from overnight.services.openai.input import Limits  # noqa: PLC0415 - not at parse

        hook = OpenAIHook(
            self.conn_id,
            storage=connected_storage(self.aws_conn_id),
            limits=parse_parameter(Limits, self.limits or {}, "limits"),
        )
        return hook.client()

    def list_inputs(self) -> Sequence[str]:
        """Return the file of requests, if it is not at the service."""
        return [self.input_uri] if self.input_uri is not None else []

    def build_spec(self, context: Context) -> OpenAIBatchSpec:
        """Validate the parameters and, when its digest is not known, the whole input file."""
        from overnight.services.openai.service import OpenAIBatchSpec  # noqa: PLC0415 - not at parse

        self._parse_cache()
        resubmit = self._parse_resubmit()
        if require_truth(self.repair, "repair") and not (resubmit and self.output_schema):
            raise SpecError(
                "repair sends requests again whose answers are not what output_schema says, so it needs output_schema "
                "and a number of rounds (resubmit). Nothing was submitted."
            )
        self._find_schema()
        spec = OpenAIBatchSpec(
            input_uri=self.input_uri,
            input_file_id=self.input_file_id,
            input_sha256=self.input_sha256,
            input_bytes=self.input_bytes,
            input_requests=self.input_requests,
            endpoint=self.endpoint,
            completion_window=self.completion_window,
            metadata=self.metadata or {},
            input_expires_after=_parse_seconds(self.input_expires_after, "input_expires_after"),
            output_expires_after=_parse_seconds(self.output_expires_after, "output_expires_after"),
        )
        return spec if spec.input_sha256 is not None else self._measure(spec)

    def prepare_submit(self, spec: OpenAIBatchSpec) -> OpenAIBatchSpec:
        """Validate the whole input file, if that was not done by :meth:`build_spec`."""
        if self.input_sha256 is None:
            return spec
        measured = self._measure(spec)
        if measured.input_sha256 != spec.input_sha256:
            raise SpecError(
                f"{spec.input_uri} has changed since its digest was taken. Nothing was submitted. Clear the task that "
                "wrote it, too, so that documents and requests belong together again."
            )
        return measured

    def plan_round(
        self, client: JobClient[OpenAIBatchService], record: JobRecord, status: JobStatus, number: int
    ) -> OpenAIBatchSpec | None:
        """Write down what the round came to, and what goes out again."""
        from overnight.jobs import JobState  # noqa: PLC0415 - not at parse
        from overnight.services.openai.input import Limits  # noqa: PLC0415 - not at parse
        from overnight.services.openai.results import chunks_from  # noqa: PLC0415 - not at parse
        from overnight.services.openai.rounds import Round  # noqa: PLC0415 - not at parse

        resubmit = self._parse_resubmit()
        if resubmit is None:
            # What an expired batch finished is paid for.
            resubmit = 1 if number or (status.state is JobState.EXPIRED and status.counts.succeeded) else 0
        # The first round of a batch that succeeded leaves nothing to do, but for answers that are to be looked at; a
        # further one has files to join.
        schema = self._find_schema()
        is_done = status.state is JobState.SUCCEEDED and not number and schema is None
        if not resubmit or is_done or not has_item_outcomes(status) or self.input_uri is None:
            return None
        storage = connected_storage(self.aws_conn_id)
        manifest: ResultManifest = client.run(client.service.results(record.job))
        chunks = chunks_from(cast("HttpTransport", client.transport), storage)
        ended = Round(self.input_uri, number)
        limits = parse_parameter(Limits, self.limits or {}, "limits")
        with self._find_invalid(schema) as answers:
            again = ended.collect(
                manifest,
                chunks,
                status.state,
                storage,
                last=number >= resubmit,
                answers=answers,
                max_bytes=limits.bytes,
            )
            if answers is not None and answers.count:
                self.log.info("%s: %d answers are not what the schema says.", record.job, answers.count)
        if not again:
            return None
        self.log.info("%s: %d lines go out again, in round %d of %d.", record.job, again, number + 1, resubmit)
        return self.build_round_spec(number + 1)

    def build_round_spec(self, number: int) -> OpenAIBatchSpec:
        """Return the spec of a further round, whose input :meth:`plan_round` has written."""
        from overnight.services.openai.rounds import Round  # noqa: PLC0415 - not at parse
        from overnight.services.openai.service import OpenAIBatchSpec  # noqa: PLC0415 - not at parse

        return self._measure(
            OpenAIBatchSpec(
                input_uri=Round(str(self.input_uri), number).requests_uri,
                endpoint=self.endpoint,
                completion_window=self.completion_window,
                metadata=self.metadata or {},
                input_expires_after=_parse_seconds(self.input_expires_after, "input_expires_after"),
                output_expires_after=_parse_seconds(self.output_expires_after, "output_expires_after"),
            )
        )

    def merge_rounds(self, refs: Sequence[JobRef]) -> tuple[JobStatus, ResultManifest]:
        """Return what all rounds come to, each line counted once."""
        from overnight.services.openai.rounds import merge_rounds  # noqa: PLC0415 - not at parse

        return merge_rounds(refs, str(self.input_uri), connected_storage(self.aws_conn_id))

    def keep_results(self, client: JobClient[OpenAIBatchService], ref: JobRef, results: ResultManifest | None) -> None:
        """Add the usable answers of all rounds to the cache; a failure to do so is a warning."""
        from overnight.services.openai.result_cache import (  # noqa: PLC0415 - not at parse
            ResultCache,
            describe_lost,
            keep_rounds,
            warn_instead,
        )

        cache = ResultCache.parse(self.cache, self.cache_uri)
        if not cache.adds or self.input_uri is None:
            return
        # An answer that is not what was asked for is no answer to anybody.
        with warn_instead(describe_lost(ref)), self._find_invalid(self._find_schema()) as answers:
            keep_rounds(
                client,
                cache,
                ref,
                results,
                input_uri=self.input_uri,
                former_rounds=len(self._rounds),
                endpoint=self.endpoint,
                storage=connected_storage(self.aws_conn_id),
                examine=answers.examine if answers is not None else None,
            )

    def _parse_cache(self) -> ResultCache:
        """
        Parse what is done with the cache.

        :raises SpecError: there is no such word, or the other parameters leave nothing to add to it.
        """
        from overnight.services.openai.result_cache import ResultCache  # noqa: PLC0415 - not at parse

        cache = ResultCache.parse(self.cache, self.cache_uri)
        if cache.adds and (self.input_uri is None or not self.wait_for_completion):
            raise SpecError(
                f"cache={cache.mode} needs input_uri, which has what was asked, and wait_for_completion: the answers "
                "are added at the batch's end. Give these, or set cache to off. Nothing was submitted."
            )
        return cache

    def _parse_resubmit(self) -> int | None:
        """
        Parse the number of further rounds; ``None`` for what is left of an expired batch alone.

        :raises SpecError: it is none, or rounds are not possible with the other parameters.
        """
        if self.resubmit in (None, "", "None"):
            return None
        try:
            resubmit = int(self.resubmit)
        except (TypeError, ValueError, OverflowError):
            resubmit = -1
        if resubmit < 0:
            raise SpecError(f"resubmit={shorten(repr(self.resubmit), 200)} is no number of rounds; give 0 or more.")
        if resubmit and (self.input_uri is None or not self.wait_for_completion):
            raise SpecError(
                "resubmit needs input_uri, beside which the rounds are written, and wait_for_completion. Nothing was "
                "submitted."
            )
        return resubmit

    def _find_schema(self) -> OutputSchema | None:
        """
        Find what an answer must be.

        :raises SpecError: it is no schema, or answers of the endpoint have no text.
        """
        if self.output_schema in (None, "", "None"):
            return None
        # Their libraries take a tenth of a second to import, which each file of DAGs would pay for.
        from overnight.output_schema import OutputSchema  # noqa: PLC0415
        from overnight.services.openai.structured import get_answer_path  # noqa: PLC0415

        get_answer_path(self.endpoint)
        return OutputSchema.parse(self.output_schema)

    def _find_invalid(self, schema: OutputSchema | None) -> AbstractContextManager[InvalidAnswers | None]:
        if schema is None:
            return nullcontext()
        from overnight.services.openai.repair import InvalidAnswers  # noqa: PLC0415

        return InvalidAnswers(schema, self.endpoint, repair=require_truth(self.repair, "repair"))

    def _measure(self, spec: OpenAIBatchSpec) -> OpenAIBatchSpec:
        from overnight.services.openai.input import Limits  # noqa: PLC0415 - not at parse

        return spec.measured(connected_storage(self.aws_conn_id), parse_parameter(Limits, self.limits or {}, "limits"))


def _parse_seconds(value: int | str | None, name: str) -> int | None:
    return None if value in (None, "", "None") else require_count(value, name)


class OpenAIBatchResultsOperator(BaseOperator):
    """
    Sort the outcomes of a batch: every input line ends as succeeded, failed, expired or missing.

    The XCom is the counts and the URIs. ``retry.jsonl`` is batch input again: give it to another
    :class:`OpenAIBatchOperator` to pay for the lines that failed, and only for those.

    What the service refused for its content is not in it, since it would be refused again.

    :param job: The job: the XCom of the task that ran it (its ``output``), templated.
    :param target: The folder, as a URI, for ``outcomes.jsonl`` (one line for each input line without a usable result,
        with the service's code and message), ``retry.jsonl`` (those input lines, byte for byte) and
        ``succeeded.jsonl`` (the usable result lines, which outlive the service's own files).
    :param allowed_failures: How many lines may be without a usable result: a count, a ratio or a percentage.
    :param input_uri: The batch's input, where the service has deleted its copy, or to read it from nearer by.
    :param aws_conn_id: The connection for ``s3://`` URIs.
    """

    template_fields: Sequence[str] = ("job", "target", "allowed_failures", "input_uri", "aws_conn_id")

    def __init__(
        self,
        *,
        job: Any,
        target: str,
        allowed_failures: float | str = 0,
        input_uri: str | None = None,
        aws_conn_id: str | None = DEFAULT_AWS_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job = job
        self.target = target
        self.allowed_failures = allowed_failures
        self.input_uri = input_uri
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Read the results once, streaming, and write the outcomes."""
        from overnight.jobs import JobRef, JobState  # noqa: PLC0415 - not at parse
        from overnight.jobs.allowance import Allowance  # noqa: PLC0415 - not at parse
        from overnight.services.openai.results import chunks_from, join_results  # noqa: PLC0415 - not at parse

        with failing_for_good():
            check_parameters(self)
            allowed = Allowance.parse(self.allowed_failures)
            ref = JobRef.read(self.job)
            target = self.target.rstrip("/")
            uris = {name: f"{target}/{name}.jsonl" for name in ("outcomes", "retry", "succeeded")}
            with hook_for(ref).client() as client:
                status = client.run(client.service.status(ref))
                manifest: ResultManifest = client.run(client.service.results(ref))
                storage = connected_storage(self.aws_conn_id)
                counts = join_results(
                    manifest,
                    chunks_from(cast("HttpTransport", client.transport), storage),
                    outcomes_uri=uris["outcomes"],
                    retry_uri=uris["retry"],
                    succeeded_uri=uris["succeeded"],
                    ended=JobState(status.state),
                    input_uri=self.input_uri,
                    storage=storage,
                )
            self.log.info("%s: %s", ref, counts)
            if not allowed.allows(counts.unsuccessful, counts.submitted):
                raise JobFailedError(
                    f"{counts.unsuccessful} of the {counts.submitted} lines of {ref} have no usable result, more than "
                    f"allowed_failures={allowed} lets pass. {uris['outcomes']} names each with its reason, and "
                    f"{uris['retry']} is the input to submit {'all' if not counts.refused else 'the others'} again"
                    + (f"; {counts.refused} were refused for their content." if counts.refused else ".")
                )
        return {"ref": ref.model_dump(mode="json"), "counts": counts.model_dump(), "uris": uris}
