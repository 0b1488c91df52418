"""Around a batch transform: which inputs still need one, and which outputs are loaded together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson
from airflow.sdk import BaseOperator
from pydantic import TypeAdapter, ValidationError

from overnight.errors import JobFailedError, SpecError
from overnight.hooks.outcome import failing_for_good
from overnight.hooks.storage import DEFAULT_AWS_CONN_ID, connected_storage
from overnight.operators.parameters import check_parameters, require_count, require_mapping, require_truth

if TYPE_CHECKING:
    from airflow.sdk import Context

    from overnight.storage import Storage

INPUTS = "_manifests/inputs.json"
"""Below the output folder: every input of the run, done or not."""


class ListTransformInputsOperator(BaseOperator):
    """
    List the inputs of a transform, and write the manifest of those that have no output yet.

    An output counts when it is at least as new as its input. So clearing this step of a run, and what follows it,
    transforms again only what is missing or has changed.

    The XCom is ``{"manifest", "inputs", "done", "todo"}``; ``manifest`` is ``None`` when nothing is left to do.

    :param input_uri: A prefix ending in ``/``, or a glob, of ``s3://`` objects.
    :param output_uri: The run's own folder for outputs.
    :param allow_empty: Whether there may be no input: then nothing is left to do. Otherwise that is refused.
    :param aws_conn_id: The connection for S3.
    """

    template_fields: Sequence[str] = ("input_uri", "output_uri", "allow_empty", "aws_conn_id")

    def __init__(
        self,
        *,
        input_uri: str,
        output_uri: str,
        allow_empty: bool | str = False,
        aws_conn_id: str | None = DEFAULT_AWS_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.input_uri = input_uri
        self.output_uri = output_uri
        self.allow_empty = allow_empty
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """List, compare, and write the manifest."""
        from overnight.services.sagemaker.results import match_outputs  # noqa: PLC0415 - not at parse
        from overnight.services.sagemaker.spec import MANIFESTS, write_manifest  # noqa: PLC0415 - not at parse
        from overnight.storage import get_folder  # noqa: PLC0415 - not at parse

        with failing_for_good():
            check_parameters(self)
            storage = connected_storage(self.aws_conn_id)
            prefix, output = get_folder(self.input_uri), f"{self.output_uri.rstrip('/')}/"
            listing = storage.list_files(self.input_uri)
            inputs = {file.uri: file.modified for file in listing.files}
            if not inputs and not require_truth(self.allow_empty, "allow_empty"):
                raise SpecError(
                    f"No object matches {self.input_uri}: there is nothing to transform. Where there may be none, set "
                    f"allow_empty. {listing.remark}".rstrip()
                )
            outputs = {file.uri: file.modified for file in storage.list_files(output).files}
            matched = match_outputs(prefix, list(inputs), output, outputs)
            todo = [
                uri
                for uri, written in inputs.items()
                if (made := outputs.get(matched.get(uri, ""))) is None or written is None or made < written
            ]
            with storage.open(f"{output}{INPUTS}", "wb") as file:
                file.write(orjson.dumps(list(inputs)))
            manifest = write_manifest(todo, f"{output}{MANIFESTS}", prefix=prefix, storage=storage) if todo else None
        self.log.info(
            "%d inputs, %d of them with an output already. %s", len(inputs), len(inputs) - len(todo), listing.remark
        )
        return {"manifest": manifest, "inputs": len(inputs), "done": len(inputs) - len(todo), "todo": len(todo)}


class PlanTransformLoadsOperator(BaseOperator):
    """
    Cut the outputs of a transform into loads, and name the inputs without one.

    The XCom is a list with one ``{"request", "requests"}`` for each load, fit for ``expand_kwargs``: the ingestion
    request, and how many documents it has. The XCom ``missing`` is ``{"count", "uri", "inputs"}``: the documents of the
    inputs without an output, and the file that names these inputs.

    :param input_uri: As for :class:`ListTransformInputsOperator`, and
    :param output_uri: the same.
    :param request: The ingestion request without its sources.
    :param files_per_load: How many output files one load takes.
    :param allowed_failures: How many inputs may be without an output: a count, a ratio or a percentage.
    :param aws_conn_id: The connection for S3.
    """

    template_fields: Sequence[str] = (
        "input_uri",
        "output_uri",
        "request",
        "files_per_load",
        "allowed_failures",
        "aws_conn_id",
    )

    def __init__(
        self,
        *,
        input_uri: str,
        output_uri: str,
        request: Mapping[str, Any],
        files_per_load: int = 1,
        allowed_failures: float | str = 0,
        aws_conn_id: str | None = DEFAULT_AWS_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.input_uri = input_uri
        self.output_uri = output_uri
        self.request = request
        self.files_per_load = files_per_load
        self.allowed_failures = allowed_failures
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Look which outputs are there."""
        from overnight.services.sagemaker.results import match_outputs  # noqa: PLC0415 - not at parse
        from overnight.storage import get_folder  # noqa: PLC0415 - not at parse

        with failing_for_good():
            check_parameters(self)
            size = require_count(self.files_per_load, "files_per_load")
            request = require_mapping(self.request, "request")
            storage = connected_storage(self.aws_conn_id)
            prefix, output = get_folder(self.input_uri), f"{self.output_uri.rstrip('/')}/"
            with storage.open(f"{output}{INPUTS}", "rb") as file:
                inputs = _read_inputs(f"{output}{INPUTS}", file.read())
            there = {file.uri for file in storage.list_files(output).files}
            matched = match_outputs(prefix, inputs, output, there)
            outputs = list(matched.values())
            missing = [uri for uri in inputs if uri not in matched]
            self._tell_missing(context, storage, missing, len(inputs))
            groups = [outputs[start : start + size] for start in range(0, len(outputs), size)]
            return [
                {
                    "request": {**request, "data_source": {"type": "s3", "source": _one_source(group)}},
                    "requests": sum(count_lines(storage, uri) for uri in group),
                }
                for group in groups
            ]

    def _tell_missing(self, context: Context, storage: Storage, missing: list[str], total: int) -> None:
        from overnight.jobs.allowance import Allowance  # noqa: PLC0415 - not at parse
        from overnight.services.sagemaker.spec import MANIFESTS  # noqa: PLC0415 - not at parse

        missing_documents: dict[str, Any] = {"count": 0, "uri": None, "inputs": len(missing)}
        if missing:
            uri = f"{self.output_uri.rstrip('/')}/{MANIFESTS}/missing.jsonl"
            with storage.open(uri, "wb") as file:
                for source in missing:
                    documents = count_lines(storage, source)
                    missing_documents["count"] += documents
                    line = {"uri": source, "documents": documents, "reason": "the transform job made no output of it"}
                    file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
            missing_documents["uri"] = uri
            self.log.warning("%d of %d inputs have no output: %s", len(missing), total, ", ".join(missing[:20]))
        context["ti"].xcom_push(key="missing", value=missing_documents)
        allowed = Allowance.parse(self.allowed_failures)
        if not allowed.allows(len(missing), total):
            raise JobFailedError(
                f"{len(missing)} of {total} inputs have no output, more than allowed_failures={allowed} lets pass; "
                f"{missing_documents['uri']} names them."
            )


def _read_inputs(uri: str, content: bytes) -> list[str]:
    try:
        return TypeAdapter(list[str]).validate_json(content)
    except ValidationError:
        raise SpecError(
            f"{uri} is not the list of inputs that ListTransformInputsOperator writes. Clear that task; it writes it "
            "again."
        ) from None


def count_lines(storage: Storage, uri: str) -> int:
    """Count the lines of a file that are not blank."""
    with storage.open_plain(uri) as file:
        return sum(1 for line in file if line.strip())


def _one_source(uris: Sequence[str]) -> list[Any]:
    # A single file stays a plain URI: that is all the cluster's own ingestion can take.
    return [uris[0]] if len(uris) == 1 else [list(uris)]
