"""Delete from an index what its source no longer has, as a DAG step behind the loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec
import orjson
from airflow.sdk import BaseOperator
from pydantic import BaseModel, ConfigDict

from overnight.errors import SpecError
from overnight.hooks.opensearch import OpenSearchHook
from overnight.hooks.outcome import failing_for_good
from overnight.hooks.storage import DEFAULT_AWS_CONN_ID, connected_storage
from overnight.ingest.choices import Sync
from overnight.operators.load import REPORT_KEY
from overnight.operators.parameters import check_parameters, require_mapping, require_truth
from overnight.validation import parse_parameter

if TYPE_CHECKING:
    from airflow.sdk import Context

    from overnight.ingest import MirrorReport
    from overnight.ingest.map.rows import RowReader
    from overnight.ingest.mirror import MirrorOptions
    from overnight.ingest.read.sources import Source
    from overnight.ingest.write.stored import Baseline
    from overnight.storage import Storage

BASELINE_KEY = "baseline"
"""In the XCom of ``OpenSearchCreateIndexOperator``: what the index had when the run began."""


class _Arguments(BaseModel):
    """Templated arguments after rendering."""

    # Built by the first task: a DAG that is parsed has nothing rendered yet.
    model_config = ConfigDict(frozen=True, defer_build=True)

    sync: Sync
    sync_filter: dict[str, Any] | None


class OpenSearchMirrorOperator(BaseOperator):
    """
    Delete the documents of an index that its source no longer has, behind all loads of a run.

    The ids of the whole source are read again and compared with those of the index, in bounded memory. Only what the
    index had before the run began and nobody wrote since is deleted. The XCom is a
    :class:`~overnight.ingest.MirrorReport`.

    :param index_name: The index or alias that was loaded into; no data stream.
    :param documents: The whole source: a URI, a glob, a prefix ending in ``/``, or a list of these.
    :param id_path: JSONPath of a document's id.
    :param sync: ``mirror`` deletes, ``preview`` says what that would delete, ``upsert`` does nothing.
    :param max_deletes: How many documents may be deleted, of those that the index has: a count (``10``), a ratio
        (``0.05``) or a percentage (``"5%"``). With more the task fails, deletes none, and names them.
    :param sync_filter: A query for the documents of this source, where the index has those of others, too.
    :param baseline: The XCom of the :class:`~overnight.operators.index.OpenSearchCreateIndexOperator` that ran, with
        ``sync``, before the source was read. Without it a document that another run has added meanwhile is deleted.
    :param deletes_uri: A JSON Lines file for each document that the source does not have; written before any delete.
    :param files: The XCom of the job that made the documents of files: the chunks of a file that failed are left.
    :param allow_empty: Whether the source may have no file. ``max_deletes`` counts then, too.
    :param conn_id: The OpenSearch connection.
    :param aws_conn_id: The connection for ``s3://`` URIs.
    """

    template_fields: Sequence[str] = (
        "index_name",
        "documents",
        "id_path",
        "sync",
        "max_deletes",
        "sync_filter",
        "baseline",
        "deletes_uri",
        "files",
        "allow_empty",
        "conn_id",
        "aws_conn_id",
    )

    def __init__(
        self,
        *,
        index_name: str,
        documents: str | Sequence[str],
        id_path: str = "$.id",
        sync: str = "mirror",
        max_deletes: float | str = "10%",
        sync_filter: Mapping[str, Any] | None = None,
        baseline: Any = None,
        deletes_uri: str | None = None,
        files: Any = None,
        allow_empty: bool | str = False,
        conn_id: str = OpenSearchHook.default_conn_name,
        aws_conn_id: str | None = DEFAULT_AWS_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.index_name = index_name
        self.documents = documents
        self.id_path = id_path
        self.sync = sync
        self.max_deletes = max_deletes
        self.sync_filter = sync_filter
        self.baseline = baseline
        self.deletes_uri = deletes_uri
        self.files = files
        self.allow_empty = allow_empty
        self.conn_id = conn_id
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Compare, and delete what is allowed; fail for good when that is less than what there is."""
        from overnight.ingest import DeletesRefusedError  # noqa: PLC0415 - not at parse
        from overnight.ingest.mirror import MirrorOptions  # noqa: PLC0415 - not at parse
        from overnight.jobs.allowance import Allowance  # noqa: PLC0415 - not at parse

        with failing_for_good():
            check_parameters(self)
            given = parse_parameter(_Arguments, {"sync": self.sync, "sync_filter": self.sync_filter}, "sync")
            if given.sync == "upsert":
                self.log.info("sync is 'upsert': documents that the source no longer has stay in the index.")
                return {"sync": given.sync}
            allowed = Allowance.parse(self.max_deletes, "max_deletes")
            storage = connected_storage(self.aws_conn_id)
            keeps, unreadable = find_failed_files(self.files, storage)
            options = MirrorOptions(
                allowed,
                scope=given.sync_filter,
                deletes_uri=self.deletes_uri,
                dry_run=given.sync == "preview",
                baseline=self._parse_baseline(),
                keeps=keeps,
                unreadable=unreadable,
            )
            try:
                found = self._mirror(storage, options)
            except DeletesRefusedError as error:
                self._log_report(error.mirror)
                context["ti"].xcom_push(key=REPORT_KEY, value=error.mirror.model_dump(mode="json"))
                raise
        self._log_report(found)
        return {"sync": given.sync, **found.model_dump(mode="json")}

    def _mirror(self, storage: Storage, options: MirrorOptions) -> MirrorReport:
        from overnight.ingest.map.field_map import SourceMap  # noqa: PLC0415 - not at parse
        from overnight.ingest.map.rows import RowReader  # noqa: PLC0415 - not at parse
        from overnight.ingest.mirror import mirror  # noqa: PLC0415 - not at parse
        from overnight.ingest.read.sources import SourceReader  # noqa: PLC0415 - not at parse
        from overnight.ingest.write.index import inspect_index  # noqa: PLC0415 - not at parse
        from overnight.ingest.write.opensearch_sink import OpenSearchSink  # noqa: PLC0415 - not at parse
        from overnight.jsonpath import JsonPath  # noqa: PLC0415 - not at parse

        reader = SourceReader(storage)
        rows = RowReader(SourceMap(JsonPath.parse(self.id_path), {}))
        patterns = [self.documents] if isinstance(self.documents, str) else list(self.documents)
        listing = storage.match_files(patterns)
        if not listing.files and not require_truth(self.allow_empty, "allow_empty"):
            raise SpecError(
                f"No file matches {self.documents!r}; check the address and the connection's rights. Where there may "
                f"be no documents, set allow_empty. {listing.remark}".rstrip()
            )
        sources: list[tuple[Source, RowReader]] = []
        if listing.files:
            sources.append((reader.resolve(0, [file.uri for file in listing.files]), rows))
        with closing(OpenSearchHook(self.conn_id).target()) as target:
            index = inspect_index(target, self.index_name)
            return mirror(index, sources, sink=OpenSearchSink(target), reader=reader, options=options)

    def _parse_baseline(self) -> Baseline | None:
        from overnight.ingest.write.stored import Baseline  # noqa: PLC0415 - not at parse

        if self.baseline is None:
            return None
        found = require_mapping(self.baseline, "baseline").get(BASELINE_KEY)
        try:
            return msgspec.convert(found, Baseline)
        except msgspec.ValidationError:
            raise SpecError(
                "baseline is not the XCom of an OpenSearchCreateIndexOperator with sync. Clear that task, and what "
                "follows it."
            ) from None

    def _log_report(self, report: MirrorReport) -> None:
        for line in report.describe():
            self.log.info("%s", line)


def find_failed_files(outcome: Any, storage: Storage) -> tuple[Callable[[str], bool], int]:
    """
    Return what tells the chunks of files that a job has no result of, and how many such files have no address.

    :param outcome: The XCom of the job's task; ``None`` of one that was skipped.
    """
    from overnight.chunking import build_stem  # noqa: PLC0415 - not at parse
    from overnight.jobs import ResultManifest  # noqa: PLC0415 - not at parse

    stems: set[str] = set()
    nameless = 0
    results = require_mapping(outcome, "files").get("results") if outcome is not None else None
    manifest = parse_parameter(ResultManifest, results, "the results of files") if results is not None else None
    for uri in manifest.uris("error") if manifest is not None else ():
        with storage.open(uri) as file:
            for line in file:
                source_uri = orjson.loads(line).get("source_uri")
                if source_uri is None:
                    nameless += 1
                else:
                    stems.add(build_stem(str(source_uri)))

    def keeps(key: str) -> bool:
        stem, hyphen, number = key.rpartition("-")
        return bool(hyphen) and number.isdecimal() and stem in stems

    return keeps, nameless
