"""Cut documents into chunks, between what parsed them and what embeds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from pydantic import ValidationError

from overnight.errors import SpecError
from overnight.hooks.outcome import failing_for_good
from overnight.hooks.storage import DEFAULT_AWS_CONN_ID, connected_storage
from overnight.operators.parameters import check_parameters, require_truth
from overnight.validation import describe_faults, parse_parameter

if TYPE_CHECKING:
    from airflow.sdk import Context


class ChunkDocumentsOperator(BaseOperator):
    """
    Cut the documents of JSONL files into chunks, one JSONL file of ``{"id", "text", "chunk", "chunks", …}``.

    Needs the ``chunking`` extra. The XCom is a :class:`~overnight.chunking.ChunkReport`: ``uri``, ``documents``,
    ``chunks``, ``empty``. Running it again replaces the file by the same.

    :param documents: JSONL files of one document a line: a URI, a glob, a prefix ending in ``/``, a list of these, or
        the XCom of a task that collected results (its ``output``), whose ``output`` files are meant; templated.
        ``None``, as a task that was skipped leaves it, is no file.
    :param target: The file, as a URI, that the chunks are written to.
    :param config: Fields of :class:`~overnight.chunking.ChunkConfig`: ``max_size``, ``overlap``, ``model`` …
    :param allow_empty: Whether there may be no file: the file of chunks is empty then. Otherwise that is refused.
    :param aws_conn_id: The connection for ``s3://`` URIs.
    """

    template_fields: Sequence[str] = ("documents", "target", "config", "allow_empty", "aws_conn_id")

    def __init__(
        self,
        *,
        documents: str | Sequence[str] | Mapping[str, Any] | None,
        target: str,
        config: Mapping[str, Any] | None = None,
        allow_empty: bool | str = False,
        aws_conn_id: str | None = DEFAULT_AWS_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.documents = documents
        self.target = target
        self.config = config
        self.allow_empty = allow_empty
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Cut, and return the report."""
        from overnight.chunking import ChunkConfig, cut  # noqa: PLC0415 - not at parse

        with failing_for_good():
            check_parameters(self)
            storage = connected_storage(self.aws_conn_id)
            listing = storage.match_files(self._patterns())
            uris = [file.uri for file in listing.files]
            if not uris and not require_truth(self.allow_empty, "allow_empty"):
                raise SpecError(
                    f"No file matches {self.documents!r}; check the address and the connection's rights. Where there "
                    f"may be no files, set allow_empty. {listing.remark}".rstrip()
                )
            report = cut(uris, self.target, parse_parameter(ChunkConfig, self.config or {}, "config"), storage)
        self.log.info("%d documents of %d files: %d chunks.", report.documents, len(uris), report.chunks)
        if report.empty:
            self.log.warning("%d documents have no text: %s …", report.empty, ", ".join(report.empty_ids))
        return report.model_dump(mode="json")

    def _patterns(self) -> list[str]:
        from overnight.jobs import ResultManifest  # noqa: PLC0415 - not at parse

        if self.documents is None:
            return []
        if isinstance(self.documents, str):
            return [self.documents]
        if not isinstance(self.documents, Mapping):
            return list(self.documents)
        try:
            manifest = ResultManifest.model_validate(self.documents.get("results") or self.documents)
        except ValidationError as error:
            raise SpecError(
                "documents is neither an address nor the XCom of a task that collected results. Give such a task a "
                f"results_uri. {describe_faults(error)}"
            ) from None
        return manifest.uris("output")
