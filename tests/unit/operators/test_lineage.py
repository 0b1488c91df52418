"""How files are named for OpenLineage, and that nothing secret is in a name."""

from __future__ import annotations

import pytest

from overnight.ingest import LoadReport
from overnight.operators.lineage import LoadLineage, describe_job, name_file


@pytest.mark.parametrize(
    ("uri", "namespace", "name"),
    [
        ("/data/a.jsonl", "file", "/data/a.jsonl"),
        ("file:///data/a.jsonl", "file", "/data/a.jsonl"),
        ("s3://bucket/folder/a.jsonl", "s3://bucket", "folder/a.jsonl"),
        ("s3://key:secret@bucket/a.jsonl", "s3://bucket", "a.jsonl"),
        ("gs://bucket/a.jsonl", "gs://bucket", "a.jsonl"),
        ("https://user:secret@host:8443/a.jsonl?X-Amz-Signature=secret", "https://host:8443", "a.jsonl"),
        ("openai://file-1", "openai", "file-1"),
    ],
)
def test_a_file_is_named_as_the_specification_has_it(uri: str, namespace: str, name: str) -> None:
    assert name_file(uri) == (namespace, name)


def test_a_task_without_a_job_has_its_inputs_alone() -> None:
    lineage = describe_job(None, ["s3://bucket/in.jsonl"])
    assert [(one.namespace, one.name) for one in lineage.inputs] == [("s3://bucket", "in.jsonl")]
    assert lineage.run_facets == {}


def test_a_job_is_named_by_its_id_at_its_service() -> None:
    outcome = {"ref": {"service": "openai", "id": "batch_1", "conn_id": "c"}, "status": None, "results": None}
    facet = describe_job(outcome, []).run_facets["externalQuery"]
    assert (facet.externalQueryId, facet.source) == ("batch_1", "openai")


def test_unchanged_documents_are_none_that_were_written() -> None:
    class Load(LoadLineage):
        pass

    task = Load()
    task.note_load("http://localhost:9200", LoadReport(index="docs", submitted=10, indexed=2, unchanged=8))
    (index,) = task.get_openlineage_facets_on_complete(None).outputs
    assert index.outputFacets["outputStatistics"].rowCount == 2
