"""
Adapters that common-ai chooses by the prefix of ``model_id``: ``azure:``, ``openai-responses:`` and ``overnight:``.

The contract is experimental in common-ai 1.0 (``airflow.providers.common.ai.batch.base``). What of Overnight's own
lifecycle it has no words for is in docs/common-ai.md.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Final, cast
from urllib.parse import urlsplit

from airflow.providers.common.ai.batch.base import (
    BatchAdapter,
    BatchRequest,
    BatchState,
    ExtractedOutput,
    RawResultItem,
    SubmitResult,
)
from airflow.providers.common.ai.batch.output_schema import OutputSpec
from airflow.providers.common.ai.exceptions import (
    LLMBatchInputError,
    LLMBatchLimitExceededError,
    LLMBatchModelMismatchError,
)

from overnight.common_ai.requests import (
    ChatDialect,
    Dialect,
    RequestDefaults,
    ResponsesDialect,
    build_lines,
    build_output_directive,
)
from overnight.common_ai.results import extract_output, to_batch_state, to_raw_items
from overnight.errors import NotFoundError, SpecError
from overnight.jobs import JobKey, JobRef, JobState
from overnight.jobs.client import JobClient
from overnight.services.openai.choices import AuthStyle
from overnight.services.openai.connection import DEFAULT_BASE_URL, OpenAIConnection
from overnight.services.openai.limits import Limits
from overnight.services.openai.result_line import Result, read_result
from overnight.services.openai.results import chunks_from, read_result_lines
from overnight.services.openai.service import OpenAIBatchService, OpenAIBatchSpec
from overnight.transport.http import HttpTransport

log = logging.getLogger(__name__)

LOOK_BACK: Final = timedelta(hours=48)
"""How far back the service's list is read for a batch of the same task and input before another is submitted: a
batch runs for 24 hours at most, and a task may be tried again a day later."""
_MAX_OUTPUT: Final = 1024
_LIMITS: Final = Limits()
_LOST: Final = frozenset({JobState.FAILED, JobState.CANCELLING, JobState.CANCELLED})
"""States of a batch that is not attached to: nothing ran, or somebody stopped it."""


class BatchNotFoundError(NotFoundError):
    """
    The service has no such batch.

    The operator recognises that by ``status_code``, and submits another.
    """

    status_code: ClassVar[int] = 404


class OpenAIServiceAdapter(BatchAdapter):
    """
    What the adapters share: Overnight's own service for OpenAI's protocol behind common-ai's contract.

    The contract hands over a connection's password and host and nothing else: its extra, port and schema do not count.

    :param api_key: The connection's password.
    :param base_url: The connection's host, a URL up to and including the version.
    :param client: Instead of both, a client of the service.
    :raises SpecError: the address cannot be used, or the key is missing.
    """

    max_requests: ClassVar[int] = _LIMITS.requests
    max_payload_bytes: ClassVar[int] = _LIMITS.bytes
    allows_per_request_model: ClassVar[bool] = False
    dialect: ClassVar[Dialect]
    auth_style: ClassVar[AuthStyle] = "bearer"

    def __init__(
        self,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        client: JobClient[OpenAIBatchService] | None = None,
    ) -> None:
        super().__init__(api_key=api_key, base_url=base_url, client=client)
        if client is None:
            address = self.check_address(base_url)
            connection = OpenAIConnection(api_key, base_url=address, auth_style=self.auth_style)
            client = JobClient(OpenAIBatchService(self.name), connection.transport())
        self._batches = client

    def check_address(self, base_url: str | None) -> str:
        """Return the address to call; OpenAI's own without any."""
        return base_url or DEFAULT_BASE_URL

    def validate_requests(
        self,
        requests: list[BatchRequest],
        *,
        model: str,
        output_spec: OutputSpec,
        idempotency_key: str,
        system_prompt: str = "",
        max_tokens: int = _MAX_OUTPUT,
        request_params: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Refuse a batch that the service would refuse.

        :raises LLMBatchInputError: it is over a limit, or names several models.
        """
        self.check_custom_id_length(idempotency_key, len(requests))
        if len(requests) > self.max_requests:
            raise LLMBatchLimitExceededError(
                f"A batch takes at most {self.max_requests:,} requests; these are {len(requests):,}. Split them across "
                "mapped task instances with .expand()."
            )
        defaults = RequestDefaults(model, system_prompt, max_tokens, request_params or {})
        size = 0
        for line in self._build_lines(requests, defaults, output_spec, "0" * len(idempotency_key)):
            size += len(line)
            if size > self.max_payload_bytes:
                raise LLMBatchLimitExceededError(
                    f"A batch takes at most {self.max_payload_bytes:,} bytes, and these {len(requests):,} requests are "
                    "more, with the schema of output_type in each. Split them across mapped task instances with "
                    ".expand()."
                )

    def submit(
        self,
        requests: list[BatchRequest],
        *,
        model: str,
        idempotency_key: str,
        input_fingerprint: str,
        output_spec: OutputSpec,
        system_prompt: str = "",
        max_tokens: int = _MAX_OUTPUT,
        request_params: dict[str, Any] | None = None,
        completion_window: str = "24h",
        **kwargs: Any,
    ) -> SubmitResult:
        """
        Attach to the batch of this task and input that the service lists, or create one, once.

        An answer that is lost is looked for in the service's list before anything is created again.

        :raises LLMBatchInputError: the input would be rejected; nothing was uploaded.
        :raises ServiceError: it is not known, or not so, that the batch exists.
        """
        service = self._batches.service
        key = _build_key(self.name, idempotency_key, input_fingerprint)
        found = self._batches.run(service.find(key, datetime.now(UTC) - LOOK_BACK))
        if found is not None and found.state not in _LOST:
            log.info("%s is of this task and input already; attaching to it instead of paying for another.", found.ref)
            return SubmitResult(batch_id=found.ref.id, provider_input_ref=None)
        if found is not None:
            key = key.model_copy(update={"generation": found.generation + 1})
        defaults = RequestDefaults(model, system_prompt, max_tokens, request_params or {})
        with tempfile.TemporaryDirectory(prefix="overnight-") as folder:
            file = Path(folder) / "requests.jsonl"
            with file.open("wb") as lines:
                lines.writelines(self._build_lines(requests, defaults, output_spec, idempotency_key))
            try:
                spec = OpenAIBatchSpec(
                    input_uri=str(file),
                    endpoint=self.dialect.endpoint,
                    completion_window=completion_window,
                    metadata={"idempotency_key": idempotency_key, "input_fingerprint": input_fingerprint[:16]},
                )
                ref = self._batches.run(service.submit(spec, key))
            except SpecError as error:
                raise LLMBatchInputError(str(error)) from error
        return SubmitResult(batch_id=ref.id, provider_input_ref=None)

    def get_batch(self, batch_id: str) -> BatchState:
        """
        Return a batch's state.

        A batch that is not found but listed as running is running: gateways answer 404 once in a while, and the
        operator would pay for another batch.

        :raises BatchNotFoundError: the service does not have it.
        """
        service = self._batches.service
        try:
            return to_batch_state(self._batches.run(service.status(self._ref(batch_id))))
        except NotFoundError as error:
            listed = self._batches.run(service.list_statuses([batch_id]))
            if batch_id in listed:
                return to_batch_state(listed[batch_id])
            raise BatchNotFoundError(str(error), status=error.status, code=error.code) from error

    def cancel_batch(self, batch_id: str) -> None:
        """Ask for a batch's end; one that is over is no error."""
        self._batches.run(self._batches.service.cancel(self._ref(batch_id)))

    def iter_results(self, batch_id: str) -> Iterator[RawResultItem]:
        """Return the results as they are read, of the output file and then of the error file."""
        manifest = self._batches.run(self._batches.service.results(self._ref(batch_id)))
        chunks = chunks_from(cast("HttpTransport", self._batches.transport))

        def read() -> Iterator[Result]:
            for kind in ("output", "error"):
                for number, line in enumerate(read_result_lines(chunks, manifest.uris(kind)), 1):
                    if line:
                        yield read_result(line, kind, number)

        return to_raw_items(read(), batch_id)

    def build_output_directive(self, spec: OutputSpec) -> dict[str, Any]:
        """Return what asks for answers of a schema, ``strict`` where the service takes it so."""
        return build_output_directive(self.dialect, spec)

    def extract_output(self, raw: RawResultItem, spec: OutputSpec) -> ExtractedOutput:
        """Return the answer's text."""
        return extract_output(raw, is_structured=spec.is_structured)

    def find_orphaned_batch(self, idempotency_key: str, input_fingerprint: str, not_before: str) -> str | None:
        """
        Return the batch of this task and input that was created since a time, if it was not stopped.

        A server that lists no batches has no way to find one: ``None``, which is logged.

        :raises ServiceError: the list cannot be read.
        """
        since = datetime.fromisoformat(not_before) if not_before else datetime.now(UTC) - LOOK_BACK
        key = _build_key(self.name, idempotency_key, input_fingerprint)
        found = self._batches.run(self._batches.service.find(key, since))
        return found.ref.id if found is not None and found.state not in _LOST else None

    def close(self) -> None:
        """Close the connections."""
        self._batches.transport.close()

    def _ref(self, batch_id: str) -> JobRef:
        return self._batches.service.ref(batch_id)

    def _build_lines(
        self, requests: list[BatchRequest], defaults: RequestDefaults, output_spec: OutputSpec, key: str
    ) -> Iterator[bytes]:
        models = [
            self.resolve_request_model(request.get("model"), default_bare_model=defaults.model, request_index=index)
            for index, request in enumerate(requests)
        ]
        if len(set(models)) > 1:
            raise LLMBatchModelMismatchError(
                f"A batch has one model, and these requests name {', '.join(sorted(set(models)))}. Give each model a "
                "task of its own."
            )
        directive = self.build_output_directive(output_spec)
        return build_lines(self.dialect, requests, models, defaults, directive=directive, key=key)


class CompatibleBatchAdapter(OpenAIServiceAdapter):
    """
    ``overnight:<model>``: chat batches of OpenAI and of any server that speaks its protocol in a dialect of its own.

    Beside what common-ai's own adapter does: a create whose answer is lost is not sent twice, downloads resume where
    they broke off, and result lines are read in whatever form compatible servers write them.
    """

    name: ClassVar[str] = "overnight"
    conn_types: ClassVar[frozenset[str]] = frozenset({"overnight_openai", "pydanticai"})
    dialect: ClassVar[Dialect] = ChatDialect()


class OpenAIResponsesBatchAdapter(OpenAIServiceAdapter):
    """``openai-responses:<model>``: batches of ``/v1/responses``, for models and parameters that chat does not have."""

    name: ClassVar[str] = "openai-responses"
    conn_types: ClassVar[frozenset[str]] = frozenset({"overnight_openai", "pydanticai"})
    dialect: ClassVar[Dialect] = ResponsesDialect()


class AzureOpenAIBatchAdapter(OpenAIServiceAdapter):
    """``azure:<deployment>``: chat batches of Azure OpenAI, by common-ai's own connection to it or by Overnight's."""

    name: ClassVar[str] = "azure"
    conn_types: ClassVar[frozenset[str]] = frozenset({"overnight_openai", "pydanticai_azure"})
    dialect: ClassVar[Dialect] = ChatDialect()
    auth_style: ClassVar[AuthStyle] = "api-key"

    def check_address(self, base_url: str | None) -> str:
        """
        Return the address to call.

        :raises SpecError: it is not that of the v1 API, the only one that needs no version, which does not come here.
        """
        if base_url is None or not urlsplit(base_url).path.rstrip("/").endswith("/openai/v1"):
            raise SpecError(
                "Azure OpenAI: the connection's host must be the address of the v1 API, "
                "https://<resource>.openai.azure.com/openai/v1. The adapters of common-ai are given no API version."
            )
        return base_url


def _build_key(adapter: str, idempotency_key: str, input_fingerprint: str) -> JobKey:
    """
    Return the identity of a batch: of a task instance and what it asks for.

    Another input of the same task is a batch of its own, and not a later generation of the same.
    """
    fingerprint = input_fingerprint[:16]
    return JobKey(
        dag_id="common-ai", task_id=adapter, run_id=f"{idempotency_key}-{fingerprint}", fingerprint=fingerprint
    )
