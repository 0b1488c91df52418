"""The index around a load, as DAG steps: create it, verify it, swap it in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import msgspec
from airflow.sdk import BaseOperator
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from overnight.errors import SpecError
from overnight.hooks.assets import add_index_event
from overnight.hooks.opensearch import OpenSearchHook
from overnight.hooks.outcome import failing_for_good
from overnight.ingest.choices import Sync
from overnight.operators.parameters import check_parameters, require_mapping

if TYPE_CHECKING:
    from airflow.sdk import Context


def _parse_none(value: Any) -> Any:
    """Return ``None`` for what Jinja makes of it."""
    return None if value in ("None", "") else value


OptionalCount: TypeAlias = Annotated[Annotated[int, Field(ge=0)] | None, BeforeValidator(_parse_none)]


class _Arguments(BaseModel):
    """Templated arguments after rendering, when they may be texts: ``"False"``, ``"10"``."""

    # Built by the first task: a DAG that is parsed has nothing rendered yet.
    model_config = ConfigDict(frozen=True, defer_build=True)


class CreateArguments(_Arguments):
    """Arguments of :class:`OpenSearchCreateIndexOperator`."""

    sync: Sync
    create: bool
    dimension: OptionalCount
    vectors: dict[str, Annotated[int, Field(ge=1)]] | None


class VerifyArguments(_Arguments):
    """Arguments of :class:`OpenSearchVerifyIndexOperator`."""

    at_least: int = Field(ge=0)
    count: OptionalCount
    dimensions: dict[str, int] | None


class SwapArguments(_Arguments):
    """Arguments of :class:`OpenSearchSwapAliasOperator`."""

    drop_old: bool


class OpenSearchCreateIndexOperator(BaseOperator):
    """
    Make sure that an index or data stream is there before anything is submitted or paid for.

    :param index_name: The index or alias.
    :param create: Create it when it is missing. Otherwise a missing index fails the task, since OpenSearch would guess
        plain floats for vectors.
    :param body: ``settings`` and ``mappings`` of the new index; with ``data_stream`` (``{}``) among them, a data stream
        and its index template are created.
    :param dimension: Put into every ``knn_vector`` field of the body, and held against those of an existing index.
    :param vectors: What will be written: length of the vectors, by field. A field that the index has with another
        length, or has not as a vector, is refused; a ``knn_vector`` of the body without a dimension gets it.
    :param sync: ``mirror`` or ``preview`` for a run that ends with an
        :class:`~overnight.operators.mirror.OpenSearchMirrorOperator`: the XCom then has a ``baseline`` of what is in
        the index, and an index whose documents cannot be deleted by their ids is refused.
    :param conn_id: The OpenSearch connection.
    """

    template_fields: Sequence[str] = ("index_name", "create", "body", "dimension", "vectors", "sync", "conn_id")

    def __init__(
        self,
        *,
        index_name: str,
        create: bool = True,
        body: Mapping[str, Any] | None = None,
        dimension: int | None = None,
        vectors: Mapping[str, int] | None = None,
        sync: str = "upsert",
        conn_id: str = OpenSearchHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.index_name = index_name
        self.sync = sync
        self.create = create
        self.body = body
        self.dimension = dimension
        self.vectors = vectors
        self.conn_id = conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Create the index if asked to, and return its name and vector dimensions."""
        from overnight.ingest.mirror import read_sync_baseline  # noqa: PLC0415 - not at parse
        from overnight.ingest.write.index_preparation import prepare_index  # noqa: PLC0415 - not at parse
        from overnight.ingest.write.opensearch_sink import OpenSearchSink  # noqa: PLC0415 - not at parse

        with failing_for_good():
            check_parameters(self)
            given = CreateArguments.model_validate(
                {"create": self.create, "dimension": self.dimension, "vectors": self.vectors, "sync": self.sync}
            )
        with failing_for_good(), closing(OpenSearchHook(self.conn_id).target()) as target:
            if given.create and not self.body:
                raise SpecError("To create the index, give its settings and mappings (index_body).")
            found = prepare_index(
                target,
                self.index_name,
                body=require_mapping(self.body, "body") if given.create else None,
                dimension=given.dimension,
                vectors=given.vectors,
            )
            baseline = read_sync_baseline(OpenSearchSink(target), found) if given.sync != "upsert" else None
        self.log.info(
            "The index %s is ready. Its vector fields: %s.",
            found.name,
            ", ".join(f"{name} of {length}" for name, length in found.dimensions.items()) or "none",
        )
        return {
            "index": found.name,
            "dimensions": dict(found.dimensions),
            **({"baseline": msgspec.to_builtins(baseline)} if baseline is not None else {}),
        }


class OpenSearchVerifyIndexOperator(BaseOperator):
    """
    Check an index after a load, before anybody relies on it.

    :param index_name: The index or alias.
    :param at_least: The number of documents it must hold or exceed.
    :param count: The exact number of documents it must hold.
    :param dimensions: What its vector fields must be, by name.
    :param query: A search body that must find something.
    :param conn_id: The OpenSearch connection.
    """

    template_fields: Sequence[str] = ("index_name", "at_least", "count", "dimensions", "query", "conn_id")

    def __init__(
        self,
        *,
        index_name: str,
        at_least: int = 0,
        count: int | None = None,
        dimensions: Mapping[str, int] | None = None,
        query: Mapping[str, Any] | None = None,
        conn_id: str = OpenSearchHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.index_name = index_name
        self.at_least = at_least
        self.count = count
        self.dimensions = dimensions
        self.query = query
        self.conn_id = conn_id

    def execute(self, context: Context) -> int:
        """Verify, and return how many documents the index holds."""
        from overnight.ingest.write import index  # noqa: PLC0415 - not at parse

        with failing_for_good():
            check_parameters(self)
            given = VerifyArguments.model_validate(
                {"at_least": self.at_least, "count": self.count, "dimensions": self.dimensions}
            )
        with failing_for_good(), closing(OpenSearchHook(self.conn_id).target()) as target:
            found = index.verify(
                target,
                self.index_name,
                count=given.count,
                at_least=given.at_least,
                dimensions=given.dimensions,
                query=self.query,
            )
            url = target.url
        self.log.info("%s holds %d documents.", self.index_name, found)
        if given.at_least:
            # Nothing was loaded otherwise, and who waits for the index has nothing to do.
            add_index_event(context, self.outlets, url, self.index_name, {"documents": found})
        return found


class OpenSearchSwapAliasOperator(BaseOperator):
    """
    Point an alias at a new index, in one step for everybody who searches.

    :param alias: What people search.
    :param index_name: The index it shall stand for.
    :param drop_old: Delete the indices that it stood for.
    :param conn_id: The OpenSearch connection.
    """

    template_fields: Sequence[str] = ("alias", "index_name", "drop_old", "conn_id")

    def __init__(
        self,
        *,
        alias: str,
        index_name: str,
        drop_old: bool = False,
        conn_id: str = OpenSearchHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.alias = alias
        self.index_name = index_name
        self.drop_old = drop_old
        self.conn_id = conn_id

    def execute(self, context: Context) -> list[str]:
        """Swap, and return the indices that the alias stood for."""
        from overnight.ingest.write import index  # noqa: PLC0415 - not at parse

        with failing_for_good():
            check_parameters(self)
            given = SwapArguments.model_validate({"drop_old": self.drop_old})
        with failing_for_good(), closing(OpenSearchHook(self.conn_id).target()) as target:
            old = index.swap_alias(target, self.alias, self.index_name, drop_old=given.drop_old)
        self.log.info("%s stands for %s now; before: %s.", self.alias, self.index_name, ", ".join(old) or "nothing")
        return old
