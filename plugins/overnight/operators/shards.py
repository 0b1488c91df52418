"""One big file as mapped tasks: cut it between its lines, and load the shards side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from overnight.errors import SpecError
from overnight.hooks.outcome import failing_for_good
from overnight.hooks.storage import DEFAULT_AWS_CONN_ID, connected_storage
from overnight.operators.load import parse_request
from overnight.operators.parameters import check_parameters, require_count

if TYPE_CHECKING:
    from airflow.sdk import Context

SHARD_BYTES = 256 << 20


class CutShardsOperator(BaseOperator):
    """
    Cut the files of a request into shards, for an executor to spread their loads over machines.

    The XCom is a list with one ``{"request"}`` for each shard, fit for ``expand_kwargs`` of
    :class:`~overnight.operators.load.OpenSearchLoadOperator`. A file that is not larger than ``shard_bytes`` is one
    shard. Only the lengths of the files and what lies around the cuts is read.

    :param request: The ingestion request, with one source: an uncompressed file, a glob, a prefix, or a list of them. A
        join cannot be cut: what is in one shard has its partner in any other.
    :param shard_bytes: About how large a shard is.
    :param aws_conn_id: The connection for ``s3://`` URIs.
    """

    template_fields: Sequence[str] = ("request", "shard_bytes", "aws_conn_id")

    def __init__(
        self,
        *,
        request: Mapping[str, Any],
        shard_bytes: int = SHARD_BYTES,
        aws_conn_id: str | None = DEFAULT_AWS_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.request = request
        self.shard_bytes = shard_bytes
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Look where the lines around the cuts end."""
        from overnight.ingest import cut  # noqa: PLC0415 - not at parse

        with failing_for_good():
            check_parameters(self)
            size = require_count(self.shard_bytes, "shard_bytes")
            sources = parse_request(self.request).data_source.uris
            if len(sources) > 1:
                raise SpecError(
                    f"A request with {len(sources)} sources joins them, and a join cannot be cut into shards: rows of "
                    "one shard have their partners in others. Load it as one task."
                )
            storage = connected_storage(self.aws_conn_id)
            shards = [shard for uri in sources[0] for shard in cut(uri, size, storage)]
        self.log.info("%d shards of %d bytes in all.", len(shards), sum(shard.size for shard in shards))
        data_source = self.request["data_source"]
        return [
            {"request": {**self.request, "data_source": {**data_source, "source": [shard.uri]}}} for shard in shards
        ]
