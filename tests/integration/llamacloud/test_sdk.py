"""The official SDK cannot tell the emulator from the service, for every call that is used here."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import llama_cloud
import pytest
from llama_cloud import LlamaCloud
from llama_cloud.types import ExtractV2Job
from pypdf import PdfWriter

from overnight.sandbox.services import KEY
from patience import PATIENCE

from .conftest import Bench

SCHEMA = {"type": "object", "properties": {"invoice_number": {"type": "integer"}, "paid": {"type": "boolean"}}}
INVOICE = b"Invoice number: 4711\nPaid: yes\n"


@pytest.fixture
def sdk(bench: Bench) -> LlamaCloud:
    return LlamaCloud(api_key=KEY, base_url=bench.url, max_retries=0, _strict_response_validation=True)


def until(look: Callable[[], Any], done: Callable[[Any], bool]) -> Any:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        seen = look()
        if done(seen):
            return seen
        time.sleep(0.05)
    raise AssertionError(f"waited too long; the last look: {seen}")


def ended(thing: Any) -> bool:
    return thing.status in ("COMPLETED", "FAILED", "CANCELLED")


def parsed(sdk: LlamaCloud, job_id: str) -> Any:
    return until(lambda: sdk.parsing.get(job_id, expand=["markdown", "text"]), lambda seen: ended(seen.job))


def a_directory(sdk: LlamaCloud, contents: dict[str, bytes], **options: Any) -> str:
    directory = sdk.beta.directories.create(name="a directory", **options)
    for name, content in contents.items():
        sdk.beta.directories.files.upload(directory.id, upload_file=(name, content), unique_id=name)
    return directory.id


def a_batch(sdk: LlamaCloud, directory_id: str, configuration_id: str = "cfg-PARSE_AGENTIC") -> Any:
    return a_job_batch(sdk, directory_id, {"type": "parse_v2", "configuration_id": configuration_id})


def a_job_batch(sdk: LlamaCloud, directory_id: str, job: Any) -> Any:
    return sdk.batches.create(source_directory_id=directory_id, config={"job": job})


def test_a_batch_is_created_retrieved_and_its_results_followed(sdk: LlamaCloud) -> None:
    directory = a_directory(sdk, {"one.md": b"# One\n\nfirst", "two.txt": b"second"})
    created = a_batch(sdk, directory)
    assert created.status == "PENDING"
    assert created.source_directory_id == directory
    batch = until(lambda: sdk.batches.get(created.id, expand=["results"]), ended)
    assert batch.status == "COMPLETED"
    assert sdk.batches.get(created.id).results is None
    names = {file.id: file.display_name for file in sdk.beta.directories.files.list(directory)}
    found = {}
    for result in batch.results:
        job = parsed(sdk, result.job_reference.id)
        found[names[result.source_directory_file_id]] = job.markdown.pages[0].markdown
    assert found == {"one.md": "# One\n\nfirst", "two.txt": "second"}


def test_batches_are_listed_by_page_and_filter(sdk: LlamaCloud) -> None:
    directory = a_directory(sdk, {"a.txt": b"a"})
    ids = [a_batch(sdk, directory).id for _ in range(5)]
    pages = list(sdk.batches.list(source_directory_id=directory, page_size=2).iter_pages())
    assert [len(page.items) for page in pages] == [2, 2, 1]
    assert [batch.id for page in pages for batch in page.items] == ids[::-1]
    until(
        lambda: list(sdk.batches.list(source_directory_id=directory, status="COMPLETED")), lambda found: len(found) == 5
    )
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert not list(sdk.batches.list(source_directory_id=directory, created_at_on_or_after=tomorrow))
    assert len(list(sdk.batches.list(source_directory_id=directory, created_at_on_or_before=tomorrow))) == 5
    with pytest.raises(llama_cloud.BadRequestError):
        sdk.batches.list(page_token="nonsense")


def test_a_batch_is_cancelled_once(sdk: LlamaCloud, bench: Bench) -> None:
    bench.set("pace", mapping_per_second=5.0, jobs_per_second=1.0)
    batch = a_batch(sdk, a_directory(sdk, {f"{n}.txt": b"x" for n in range(30)}))
    until(lambda: sdk.batches.get(batch.id), lambda seen: seen.status == "RUNNING")
    sdk.batches.cancel(batch.id)
    cancelled = until(lambda: sdk.batches.get(batch.id, expand=["results"]), ended)
    assert cancelled.status == "CANCELLED"
    assert len(cancelled.results) < 30
    with pytest.raises(llama_cloud.ConflictError):
        sdk.batches.cancel(batch.id)


def test_a_throttled_batch_runs_later(sdk: LlamaCloud, bench: Bench) -> None:
    bench.set("faults", batch_throttled={"share": 1.0}, throttled_seconds=0.5)
    batch = a_batch(sdk, a_directory(sdk, {"a.txt": b"a"}))
    until(lambda: sdk.batches.get(batch.id), lambda seen: seen.status == "THROTTLED")
    assert until(lambda: sdk.batches.get(batch.id), ended).status == "COMPLETED"


def test_a_failed_batch_has_no_results(sdk: LlamaCloud, bench: Bench) -> None:
    bench.set("faults", batch_failed={"share": 1.0})
    batch = a_batch(sdk, a_directory(sdk, {"a.txt": b"a"}))
    assert until(lambda: sdk.batches.get(batch.id, expand=["results"]), ended).results is None


def test_files_fail_one_by_one_in_a_completed_batch(sdk: LlamaCloud, bench: Bench) -> None:
    bench.set(
        "faults",
        files_failed={"share": 1.0, "name": "^failed"},
        files_unmapped={"share": 1.0, "name": "^unmapped"},
        files_missing={"share": 1.0, "name": "^missing"},
    )
    contents = {f"{name}.txt": b"x" for name in ("good", "failed", "unmapped", "missing")}
    directory = a_directory(sdk, contents)
    created = a_batch(sdk, directory)
    batch = until(lambda: sdk.batches.get(created.id, expand=["results"]), ended)
    assert batch.status == "COMPLETED"
    names = {file.id: file.display_name for file in sdk.beta.directories.files.list(directory)}
    results = {names[result.source_directory_file_id]: result for result in batch.results}
    assert set(results) == {"good.txt", "failed.txt", "unmapped.txt"}
    assert results["unmapped.txt"].error_message
    assert results["unmapped.txt"].job_reference is None
    job = until(lambda: sdk.parsing.get(results["failed.txt"].job_reference.id), lambda job: ended(job.job))
    assert job.job.status == "FAILED"
    assert job.job.error_message


def test_a_batch_wants_files_but_not_too_many_and_a_fitting_configuration(sdk: LlamaCloud, bench: Bench) -> None:
    with pytest.raises(llama_cloud.BadRequestError, match="no files"):
        a_batch(sdk, a_directory(sdk, {}))
    directory = a_directory(sdk, {"a.txt": b"a", "b.txt": b"b"})
    with pytest.raises(llama_cloud.NotFoundError):
        a_batch(sdk, directory, "cfg-unknown")
    with pytest.raises(llama_cloud.BadRequestError, match="parse_v2"):
        a_job_batch(sdk, directory, {"type": "extract_v2", "configuration_id": "cfg-PARSE_FAST"})
    with pytest.raises(llama_cloud.NotFoundError):
        a_batch(sdk, "dir-unknown")
    bench.set("limits", files_per_batch=1)
    with pytest.raises(llama_cloud.BadRequestError, match="limited to 1 source files"):
        a_batch(sdk, directory)


def test_the_documented_limit_is_a_thousand_files(bench: Bench) -> None:
    httpx.put(f"{bench.url}/_sandbox/limits", json={}).raise_for_status()
    assert httpx.get(f"{bench.url}/_sandbox/limits").json()["files_per_batch"] == 1_000


def test_directories_are_made_found_changed_and_deleted(sdk: LlamaCloud) -> None:
    name = f"directory {time.time_ns()}"
    made = sdk.beta.directories.create(name=name, description="why", type="user")
    assert (made.type, made.description, made.expires_at) == ("user", "why", None)
    other = sdk.beta.directories.create(name=name, type="ephemeral")
    assert other.expires_at is not None
    assert {one.id for one in sdk.beta.directories.list(name=name)} == {made.id, other.id}
    assert [one.id for one in sdk.beta.directories.list(name=name, types=["ephemeral"])] == [other.id]
    assert [one.id for one in sdk.beta.directories.list(name=name, type="user")] == [made.id]
    assert sdk.beta.directories.update(made.id, description="because").description == "because"
    assert sdk.beta.directories.get(made.id).description == "because"
    sdk.beta.directories.delete(made.id)
    with pytest.raises(llama_cloud.NotFoundError):
        sdk.beta.directories.get(made.id)
    assert [one.id for one in sdk.beta.directories.list(name=name)] == [other.id]
    assert len(list(sdk.beta.directories.list(name=name, include_deleted=True))) == 2


def test_an_ephemeral_directory_cleans_itself_up(sdk: LlamaCloud, bench: Bench) -> None:
    bench.set("limits", ephemeral_seconds=0)
    directory = a_directory(sdk, {}, type="ephemeral")
    until(lambda: [one.id for one in sdk.beta.directories.list(type="ephemeral")], lambda ids: directory not in ids)


def test_directory_files_are_uploaded_added_listed_moved_and_deleted(sdk: LlamaCloud) -> None:
    files = sdk.beta.directories.files
    directory = a_directory(sdk, {"a.txt": b"aaa"})
    stored = sdk.files.create(file=("b.txt", b"bbb"), purpose="user_data", external_file_id="outside")
    added = files.add(directory, file_id=stored.id, metadata={"tags": ["x", "y"], "n": 1}, display_name="B")
    assert (added.unique_id, added.metadata) == ("outside", {"tags": ["x", "y"], "n": 1})
    uploaded = files.upload(directory, upload_file=("c.txt", b"ccc"), metadata='{"k": "v"}', display_name="C")
    assert (uploaded.display_name, uploaded.metadata, uploaded.unique_id) == ("C", {"k": "v"}, "c.txt")
    assert [one.display_name for one in files.list(directory, page_size=1)] == ["a.txt", "B", "C"]
    assert [one.id for one in files.list(directory, unique_id="outside")] == [added.id]
    assert [one.id for one in files.list(directory, display_name_contains="txt")]
    assert files.get(added.id, directory_id=directory).id == added.id
    other = a_directory(sdk, {})
    moved = files.update(added.id, directory_id=directory, target_directory_id=other, metadata={"k": "w"})
    assert (moved.directory_id, moved.metadata) == (other, {"k": "w"})
    assert added.id not in {one.id for one in files.list(directory)}
    files.delete(added.id, directory_id=other)
    with pytest.raises(llama_cloud.NotFoundError):
        files.get(added.id, directory_id=other)
    with pytest.raises(llama_cloud.NotFoundError):
        files.add(directory, file_id="fil-unknown")


def test_a_directory_has_a_unique_id_once_and_again_after_its_file_is_deleted(sdk: LlamaCloud) -> None:
    files = sdk.beta.directories.files
    directory = a_directory(sdk, {"a.txt": b"a"})
    with pytest.raises(llama_cloud.ConflictError):
        files.upload(directory, upload_file=("other.txt", b"b"), unique_id="a.txt")
    (there,) = files.list(directory)
    files.delete(there.id, directory_id=directory)
    assert files.upload(directory, upload_file=("other.txt", b"b"), unique_id="a.txt").unique_id == "a.txt"


def test_bad_uploads_are_refused(sdk: LlamaCloud, bench: Bench) -> None:
    directory = a_directory(sdk, {})
    upload = sdk.beta.directories.files.upload
    with pytest.raises(llama_cloud.UnprocessableEntityError):
        upload(directory, upload_file=("empty.txt", b""))
    with pytest.raises(llama_cloud.UnprocessableEntityError):
        upload(directory, upload_file=("a.txt", b"a"), metadata="[1]")
    bench.set("limits", file_bytes=10)
    with pytest.raises(llama_cloud.APIStatusError) as caught:
        upload(directory, upload_file=("large.txt", b"x" * 11))
    assert caught.value.status_code == 413
    bench.set("limits", uploads_per_window=1, upload_window=60.0)
    with pytest.raises(llama_cloud.RateLimitError) as caught_429:
        upload(directory, upload_file=("a.txt", b"a"))
    assert int(caught_429.value.response.headers["Retry-After"]) > 0


def test_files_are_kept_listed_and_downloaded_by_an_url_that_expires(sdk: LlamaCloud, bench: Bench) -> None:
    stored = sdk.files.create(file=("p.txt", b"content"), purpose="parse", external_file_id="ext")
    assert (stored.name, stored.purpose, stored.file_type) == ("p.txt", "parse", "txt")
    assert sdk.files.retrieve(stored.id).id == stored.id
    assert [one.id for one in sdk.files.list(file_ids=[stored.id])] == [stored.id]
    link = sdk.files.content(stored.id)
    assert httpx.get(link.url).content == b"content"
    assert httpx.get(link.url + "0").status_code == 403
    expanded = sdk.files.retrieve(stored.id, expand=["download_url"])
    assert expanded.download_url is not None
    httpx.post(f"{bench.url}/_sandbox/clock", json={"advance": 3_601}).raise_for_status()
    assert httpx.get(link.url).status_code == 403
    sdk.files.delete(stored.id)
    with pytest.raises(llama_cloud.NotFoundError):
        sdk.files.retrieve(stored.id)
    with pytest.raises(llama_cloud.UnprocessableEntityError):
        sdk.files.create(file=("p.txt", b"x"), purpose="no such purpose")


def test_configurations_are_upserted_found_changed_and_deleted(sdk: LlamaCloud) -> None:
    name = f"configuration {time.time_ns()}"
    parse: Any = {"product_type": "parse_v2", "tier": "fast", "version": "latest"}
    extract: Any = {"product_type": "extract_v2", "data_schema": SCHEMA}
    made = sdk.configurations.create(name=name, parameters=parse)
    again = sdk.configurations.create(name=name, parameters={**parse, "tier": "agentic"})
    assert again.id == made.id
    other = sdk.configurations.create(name=name, parameters=extract)
    assert {one.id for one in sdk.configurations.list(name=name)} == {made.id, other.id}
    assert [one.id for one in sdk.configurations.list(name=name, product_type=["extract_v2"])] == [other.id]
    assert sdk.configurations.retrieve(made.id).parameters.tier == "agentic"  # type: ignore[union-attr]
    assert sdk.configurations.update(made.id, name=f"{name}!").name == f"{name}!"
    with pytest.raises(llama_cloud.UnprocessableEntityError):
        sdk.configurations.create(name=name, parameters={**parse, "tier": "no such tier"})
    with pytest.raises(llama_cloud.UnprocessableEntityError):
        sdk.configurations.create(name=name, parameters={"product_type": "extract_v2", "data_schema": {}})
    sdk.configurations.delete(made.id)
    with pytest.raises(llama_cloud.NotFoundError):
        sdk.configurations.retrieve(made.id)


def test_a_file_is_parsed_by_itself_and_its_result_downloaded(sdk: LlamaCloud) -> None:
    stored = sdk.files.create(file=("a.html", b"<h1>Title</h1><p>Some <b>text</b>.</p>"), purpose="parse")
    job = sdk.parsing.create(tier="fast", version="latest", file_id=stored.id, user_metadata={"k": "v"})
    expand = ["markdown", "text", "markdown_content_metadata", "job_metadata", "usage"]
    done = until(lambda: sdk.parsing.get(job.id, expand=expand), lambda seen: ended(seen.job))
    assert done.markdown.pages[0].markdown == "# Title\n\nSome **text**."
    assert done.text.pages[0].text == "Title\n\nSome text."
    assert done.job.user_metadata == {"k": "v"}
    assert done.job.usage.credits == 1
    (content,) = done.result_content_metadata.values()
    assert httpx.get(content.presigned_url).text == "# Title\n\nSome **text**."
    assert [one.id for one in sdk.parsing.list(job_ids=[job.id], status="COMPLETED")] == [job.id]
    assert not list(sdk.parsing.list(job_ids=[job.id], status="FAILED"))
    with pytest.raises(llama_cloud.ConflictError):
        sdk.parsing.cancel(job.id)
    assert sdk.parsing.delete(job.id).id == job.id
    with pytest.raises(llama_cloud.NotFoundError):
        sdk.parsing.get(job.id)


def test_a_file_is_uploaded_and_parsed_in_one_call(sdk: LlamaCloud) -> None:
    writer = PdfWriter()
    writer.add_blank_page(width=200, height=200)
    writer.add_blank_page(width=200, height=200)
    pdf = io.BytesIO()
    writer.write(pdf)
    job = sdk.parsing.create(
        tier="agentic", version="latest", upload_file=("two.pdf", pdf.getvalue()), page_ranges={"target_pages": "2"}
    )
    done = until(lambda: sdk.parsing.get(job.id, expand=["markdown"]), lambda seen: ended(seen.job))
    assert [page.page_number for page in done.markdown.pages] == [2]


def test_a_job_that_waits_is_cancelled(sdk: LlamaCloud, bench: Bench) -> None:
    bench.set("pace", jobs_per_second=0.001)
    stored = sdk.files.create(file=("a.txt", b"a"), purpose="parse")
    jobs = [sdk.parsing.create(tier="fast", version="latest", file_id=stored.id) for _ in range(3)]
    with pytest.raises(llama_cloud.ConflictError):
        sdk.parsing.delete(jobs[-1].id)
    assert sdk.parsing.cancel(jobs[-1].id).status == "CANCELLED"
    assert sdk.parsing.get(jobs[-1].id).job.status == "CANCELLED"


def test_fields_are_extracted_from_a_file_and_from_what_was_parsed(sdk: LlamaCloud) -> None:
    directory = a_directory(sdk, {"invoice.txt": INVOICE})
    (file,) = sdk.beta.directories.files.list(directory)
    inline: Any = {"data_schema": SCHEMA}
    job = sdk.extract.create(file_input=file.id, configuration=inline)
    done = until(lambda: sdk.extract.get(job.id, expand=["configuration"]), ended)
    assert done.extract_result == {"invoice_number": 4711, "paid": True}
    assert done.configuration.data_schema == SCHEMA
    parse_job = sdk.parsing.create(tier="fast", version="latest", file_id=str(file.file_id))
    parsed(sdk, parse_job.id)
    saved = sdk.configurations.create(name="invoices", parameters={"product_type": "extract_v2", "data_schema": SCHEMA})  # type: ignore[typeddict-item]
    from_parsed = sdk.extract.create(file_input=parse_job.id, configuration_id=saved.id)
    done = until(lambda: sdk.extract.get(from_parsed.id), ended)
    assert done.extract_result == {"invoice_number": 4711, "paid": True}
    assert [one.id for one in sdk.extract.list(job_ids=[from_parsed.id], configuration_id=saved.id)] == [from_parsed.id]
    sdk.extract.delete(job.id)
    with pytest.raises(llama_cloud.NotFoundError):
        sdk.extract.get(job.id)


def test_an_extract_batch_refers_to_extract_jobs(sdk: LlamaCloud) -> None:
    saved = sdk.configurations.create(name="batch", parameters={"product_type": "extract_v2", "data_schema": SCHEMA})  # type: ignore[typeddict-item]
    directory = a_directory(sdk, {"invoice.txt": INVOICE})
    created = a_job_batch(sdk, directory, {"type": "extract_v2", "configuration_id": saved.id})
    batch = until(lambda: sdk.batches.get(created.id, expand=["results"]), ended)
    (result,) = batch.results
    assert result.job_reference.type == "extract_v2"
    done = until(lambda: sdk.extract.get(result.job_reference.id), ended)
    assert done.extract_result["invoice_number"] == 4711


@pytest.mark.parametrize("target", ["per_doc", "per_page"])
def test_citations_and_confidence_come_with_what_was_asked_to_have_them(sdk: LlamaCloud, target: str) -> None:
    directory = a_directory(sdk, {"invoice.txt": INVOICE})
    (file,) = sdk.beta.directories.files.list(directory)
    inline: Any = {
        "data_schema": SCHEMA, "cite_sources": True, "confidence_scores": True, "extraction_target": target,
    }  # fmt: skip
    job = sdk.extract.create(file_input=file.id, configuration=inline)
    done = until(lambda: sdk.extract.get(job.id), ended)
    ExtractV2Job.model_validate_json(done.model_dump_json(), strict=True, extra="forbid")
    assert done.extract_metadata is not None
    forms = done.extract_metadata.field_metadata
    fields = forms.document_metadata if target == "per_doc" else forms.page_metadata[0]
    assert fields.keys() == {"invoice_number", "paid"}
    (citation,) = fields["invoice_number"]["citation"]
    assert citation["page"] == 1
    assert "4711" in citation["matching_text"]
    assert 0 < fields["invoice_number"]["confidence"] <= 1


def test_schemas_are_validated(sdk: LlamaCloud) -> None:
    assert sdk.extract.validate_schema(data_schema=SCHEMA).data_schema == SCHEMA  # type: ignore[arg-type]
    with pytest.raises(llama_cloud.UnprocessableEntityError):
        sdk.extract.validate_schema(data_schema={"type": "array"})


def test_a_key_and_a_project_of_ones_own_are_wanted(bench: Bench, sdk: LlamaCloud) -> None:
    stranger = LlamaCloud(api_key="not the key", base_url=bench.url, max_retries=0)
    with pytest.raises(llama_cloud.AuthenticationError, match="Invalid API Key"):
        stranger.batches.list()
    with pytest.raises(llama_cloud.PermissionDeniedError):
        sdk.batches.list(project_id="prj-of-somebody-else")
    with pytest.raises(llama_cloud.PermissionDeniedError):
        sdk.batches.list(organization_id="org-of-somebody-else")


def test_the_sdks_own_retries_get_through_the_faults(bench: Bench) -> None:
    patient = LlamaCloud(api_key=KEY, base_url=bench.url, max_retries=8)
    bench.set("faults", rate_limited=0.2, server_error=0.2, cut_body=0.1, retry_after=0.01)
    for _ in range(5):
        assert patient.batches.list(page_size=1) is not None
