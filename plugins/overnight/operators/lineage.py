"""
What an OpenLineage server is sent: which files and which job an index was loaded from, and how many documents.

Airflow's OpenLineage provider calls the methods here when a task ends, well or badly; without it nobody does. Datasets
are named as `OpenLineage's naming rules <https://openlineage.io/docs/spec/naming>`_ have it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from overnight.hooks.assets import name_cluster

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage

    from overnight.ingest import LoadReport

_LOCAL: Final = ("", "file")


class LoadLineage:
    """What a task that loads adds for lineage: its sources, its index, and how much was written."""

    _loaded: tuple[str, LoadReport] | None = None

    def note_load(self, url: str, report: LoadReport) -> None:
        """Keep what was loaded, and into which cluster, until the task's end."""
        self._loaded = (url, report)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return the files that were read, and the index with the numbers of documents and bytes."""
        from airflow.providers.common.compat.openlineage.facet import (  # noqa: PLC0415
            Dataset,
            OutputDataset,
            OutputStatisticsOutputDatasetFacet,
        )
        from airflow.providers.openlineage.extractors import OperatorLineage  # noqa: PLC0415

        if self._loaded is None:
            # A load that the cluster carries out is a job.
            inherited = getattr(super(), "get_openlineage_facets_on_complete", None)
            return inherited(task_instance) if inherited is not None else OperatorLineage()
        url, report = self._loaded
        statistics = OutputStatisticsOutputDatasetFacet(rowCount=report.indexed, size=report.bytes)
        namespace = name_cluster(url)
        return OperatorLineage(
            inputs=[Dataset(*name_file(source.uri)) for source in report.sources if source.uri],
            outputs=[OutputDataset(namespace, report.index, outputFacets={"outputStatistics": statistics})],
        )

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return the same: also a task that fails for its failed documents has written the others."""
        return self.get_openlineage_facets_on_complete(task_instance)


def describe_job(outcome: Mapping[str, Any] | None, inputs: Iterable[str]) -> OperatorLineage[Any, Any]:
    """
    Return the lineage of a task with a job at a service.

    :param outcome: The job's XCom; ``None`` when there is no job.
    :param inputs: URIs of the job's input.
    """
    from airflow.providers.common.compat.openlineage.facet import Dataset, ExternalQueryRunFacet  # noqa: PLC0415
    from airflow.providers.openlineage.extractors import OperatorLineage  # noqa: PLC0415

    from overnight.jobs import JobRef  # noqa: PLC0415 - not at parse

    datasets = [Dataset(*name_file(uri)) for uri in inputs]
    if outcome is None:
        return OperatorLineage(inputs=datasets)
    ref = JobRef.read(outcome)
    return OperatorLineage(
        inputs=datasets,
        run_facets={"externalQuery": ExternalQueryRunFacet(externalQueryId=ref.id, source=ref.service)},
    )


def name_file(uri: str) -> tuple[str, str]:
    """Return the namespace and the name of a file, without what can be secret in its address."""
    from overnight.storage import get_scheme, redact  # noqa: PLC0415 - not at parse

    scheme = get_scheme(uri)
    if scheme in _LOCAL:
        return "file", uri.removeprefix("file://")
    parts = urlsplit(redact(uri))
    if not parts.path:
        # openai://file-1
        return parts.scheme, parts.netloc
    return f"{parts.scheme}://{parts.netloc}", parts.path.lstrip("/")
