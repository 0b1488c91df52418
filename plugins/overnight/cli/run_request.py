"""What ``overnight run`` is asked to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from overnight.errors import SpecError
from overnight.ingest.map.field_map import compile_field_map
from overnight.ingest.request import IngestRequest, LoadOptions
from overnight.jobs.allowance import Allowance
from overnight.services.openai.choices import OnBadDocument
from overnight.services.openai.joined_fields import find_unreadable
from overnight.services.openai.limits import Limits
from overnight.services.openai.result_cache import ResultCache
from overnight.services.openai.template import RequestTemplate


@dataclass(frozen=True)
class RunRequest:
    """
    What a run is asked to do.

    :param fields: ``field_map`` and ``ingest_fields`` of the load, which joins each document with its answer.
    :param given_field_map: The user's own, if there is one.
    :param dimension: What the vectors must be, and a new index gets.
    :param index_body: What a missing index is created with.
    :param conn_id: The OpenAI connection of Airflow's; ``None`` for what the environment names.
    :param cache: Of answers that were paid for.
    :param cache_older_than: The age at which cleans let its answers expire.
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
    conn_id: str | None = None
    cache: ResultCache = ResultCache()  # noqa: RUF009 - a tuple
    cache_older_than: timedelta | None = None
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
        request = self.build_load(["documents"], ["results"])
        compile_field_map(request.field_map, request.ingest_fields, 2)
        LoadOptions.of(self.load_options)

    def build_load(self, documents_uris: Sequence[str], result_uris: Sequence[str]) -> IngestRequest:
        """Return the load of a part's documents, each joined with its answer."""
        sources = [list(documents_uris), list(result_uris)]
        return IngestRequest.of({"index_name": self.index, "data_source": {"source": sources}, **self.fields})
