"""``/api/v2/parse`` and ``/api/v2/extract``: one file each."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from overnight.sandbox.llamacloud.access import Emulator, Page, Paging, Project, listed
from overnight.sandbox.llamacloud.errors import ApiError, invalid
from overnight.sandbox.llamacloud.files import keep_upload
from overnight.sandbox.llamacloud.schemas import (
    Expand,
    ExtractCreate,
    Ids,
    JobStatus,
    JobType,
    ParseCreate,
    ParseOptions,
    SchemaValidation,
    check_schema,
)
from overnight.sandbox.llamacloud.state import State, within
from overnight.sandbox.llamacloud.store import OVER, Record

router = APIRouter(prefix="/api/v2")

_PARSE_PUBLIC = (
    "id",
    "project_id",
    "status",
    "created_at",
    "updated_at",
    "error_message",
    "name",
    "tier",
    "user_metadata",
)
_EXTRACT_PUBLIC = (
    "id",
    "project_id",
    "status",
    "created_at",
    "updated_at",
    "error_message",
    "file_input",
    "configuration_id",
)
_CONTENTS = ("text", "markdown", "metadata")
_PARSE_EXPANDS = {
    *_CONTENTS,
    *(f"{name}_content_metadata" for name in _CONTENTS),
    *("text_full", "markdown_full", "job_metadata", "usage"),
}
_EXTRACT_EXPANDS = {"configuration", "extract_metadata", "usage"}


def job_record(job_type: JobType, project: str, *, name: str, parameters: dict[str, Any], **fields: Any) -> Record:
    """Return what is kept of a new job."""
    prefix = "pjb" if job_type == "parse_v2" else "exj"
    return {
        "id": f"{prefix}-{uuid.uuid4()}",
        "type": job_type,
        "project_id": project,
        "status": "PENDING",
        "name": name,
        "parameters": parameters,
        "tier": parameters.get("tier"),
        "configuration_id": None,
        "error_message": None,
        "user_metadata": {},
        "fate": None,
        **fields,
    }


@router.post("/parse")
def create_parse_job(body: ParseCreate, state: Emulator, project: Project) -> Record:
    """Parse a file that is there."""
    saved: dict[str, Any] = {}
    if body.configuration_id is not None:
        saved = state.configuration(body.configuration_id, "parse_v2", project)
    given = body.model_dump(exclude_none=True, exclude={"configuration_id", "file_id", "user_metadata"})
    if given.get("tier") == "configured":
        del given["tier"]
    return _start_parse(
        state,
        project,
        str(body.file_id),
        {**saved, **given},
        configuration_id=body.configuration_id,
        user_metadata=body.user_metadata or {},
    )


@router.post("/parse/upload")
def upload_and_parse(
    state: Emulator, project: Project, file: Annotated[UploadFile, File()], configuration: Annotated[str, Form()]
) -> Record:
    """Take a file in and parse it."""
    try:
        options = ParseOptions.model_validate_json(configuration)
    except ValidationError as error:
        raise RequestValidationError(
            [{**one, "loc": ("body", "configuration", *one["loc"])} for one in error.errors(include_context=False)]
        ) from error
    state.admit_upload()
    kept = keep_upload(state, project, file, purpose="parse", external_file_id=None)
    return _start_parse(state, project, kept["id"], options.model_dump(exclude_none=True))


@router.post("/extract")
def create_extract_job(body: ExtractCreate, state: Emulator, project: Project) -> Record:
    """Extract from a file, a directory's file, or what a parse job made of one."""
    if body.configuration is not None:
        parameters = body.configuration.model_dump(exclude_none=True)
    else:
        parameters = state.configuration(str(body.configuration_id), "extract_v2", project)
    name, file_id, parse_job_id = _extract_input(state, project, body.file_input)
    record = job_record(
        "extract_v2",
        project,
        name=name,
        parameters=parameters,
        file_id=file_id,
        parse_job_id=parse_job_id,
        file_input=body.file_input,
        configuration_id=body.configuration_id,
    )
    return _extract_public(state.store.add("job", record, parent=project))


@router.post("/extract/schema/validation")
def validate_schema(body: SchemaValidation, project: Project) -> Record:
    """Say whether a data schema will do."""
    del project
    try:
        check_schema(body.data_schema)
    except ValueError as error:
        raise invalid(("body", "data_schema"), str(error)) from error
    return {"data_schema": body.data_schema}


@router.get("/parse")
def list_parse_jobs(
    state: Emulator,
    project: Project,
    paging: Paging,
    *,
    job_ids: Ids = None,
    status: JobStatus | None = None,
    created_at_on_or_after: datetime | None = None,
    created_at_on_or_before: datetime | None = None,
) -> Record:
    """List parse jobs, the newest first."""
    times = (created_at_on_or_after, created_at_on_or_before)
    return listed(_jobs(state, project, paging, "parse_v2", job_ids=job_ids, status=status, times=times), _parse_public)


@router.get("/extract")
def list_extract_jobs(
    state: Emulator,
    project: Project,
    paging: Paging,
    *,
    job_ids: Ids = None,
    status: JobStatus | None = None,
    configuration_id: str | None = None,
    file_input: str | None = None,
    created_at_on_or_after: datetime | None = None,
    created_at_on_or_before: datetime | None = None,
) -> Record:
    """List extract jobs, the newest first."""
    times = (created_at_on_or_after, created_at_on_or_before)
    exact = {"configuration_id": configuration_id, "file_input": file_input}
    found = _jobs(state, project, paging, "extract_v2", job_ids=job_ids, status=status, times=times, exact=exact)
    return listed(found, _extract_public)


@router.get("/parse/{job_id}")
def get_parse_job(request: Request, job_id: str, state: Emulator, project: Project, expand: Expand = None) -> Record:
    """Return a parse job and, once it is COMPLETED, the contents that are asked for."""
    for name in expand or ():
        if name not in _PARSE_EXPANDS:
            raise invalid(("query", "expand"), f"the supported values are {', '.join(sorted(_PARSE_EXPANDS))}", name)
    record = _job(state, project, job_id, "parse_v2")
    answer: Record = {"job": _parse_public(record)}
    if not expand or record["status"] != "COMPLETED":
        return answer
    pages = orjson.loads(state.store.content(f"{job_id}.json").read_bytes())
    for name in expand:
        if name.endswith("_content_metadata"):
            kind = name.removesuffix("_content_metadata")
            answer.setdefault("result_content_metadata", {})[kind] = _content(state, request, job_id, kind, pages)
        elif name == "usage":
            answer["job"]["usage"] = {"credits": float(len(pages))}
        else:
            answer[name] = _expanded(name, pages, record)
    return answer


@router.get("/extract/{job_id}")
def get_extract_job(job_id: str, state: Emulator, project: Project, expand: Expand = None) -> Record:
    """Return an extract job with its result, once there is one."""
    for name in expand or ():
        if name not in _EXTRACT_EXPANDS:
            raise invalid(("query", "expand"), f"the supported values are {', '.join(sorted(_EXTRACT_EXPANDS))}", name)
    record = _job(state, project, job_id, "extract_v2")
    answer = _extract_public(record)
    fields: Record | None = None
    if record["status"] == "COMPLETED":
        found = orjson.loads(state.store.content(f"{job_id}.json").read_bytes())
        answer["extract_result"], fields = found["result"], found["fields"]
    if "configuration" in (expand or ()):
        answer["configuration"] = {key: value for key, value in record["parameters"].items() if key != "product_type"}
    if fields is not None or "extract_metadata" in (expand or ()):
        answer["extract_metadata"] = {"parse_job_id": record["parse_job_id"], "field_metadata": fields}
    return answer


@router.post("/parse/{job_id}/cancel")
def cancel_parse_job(job_id: str, state: Emulator, project: Project) -> Record:
    """Cancel a parse job."""
    return _parse_public(_cancel(state, _job(state, project, job_id, "parse_v2")))


@router.post("/extract/{job_id}/cancel")
def cancel_extract_job(job_id: str, state: Emulator, project: Project) -> Record:
    """Cancel an extract job."""
    return _extract_public(_cancel(state, _job(state, project, job_id, "extract_v2")))


@router.delete("/parse/{job_id}")
def delete_parse_job(job_id: str, state: Emulator, project: Project) -> Record:
    """Delete a parse job that is over, and its result."""
    return _delete(state, _job(state, project, job_id, "parse_v2"))


@router.delete("/extract/{job_id}")
def delete_extract_job(job_id: str, state: Emulator, project: Project) -> Record:
    """Delete an extract job that is over, and its result."""
    return _delete(state, _job(state, project, job_id, "extract_v2"))


def _start_parse(state: State, project: str, file_id: str, parameters: dict[str, Any], **fields: Any) -> Record:
    file = state.store.get("file", file_id, parent=project)
    record = job_record("parse_v2", project, name=file["name"], parameters=parameters, file_id=file_id, **fields)
    return _parse_public(state.store.add("job", record, parent=project))


def _extract_input(state: State, project: str, given: str) -> tuple[str, str, str | None]:
    """Return the name and the file behind an input, and the parse job where it is one."""
    if given.startswith("pjb-"):
        job = _job(state, project, given, "parse_v2")
        if job["status"] != "COMPLETED":
            raise ApiError(400, f"Parse job {given} is {job['status']}, not COMPLETED")
        return job["name"], job["file_id"], given
    if given.startswith("dfl-"):
        record = state.store.get("directory_file", given)
        state.store.get("directory", record["directory_id"], parent=project)
        return record["display_name"], record["file_id"], None
    file = state.store.get("file", given, parent=project)
    return file["name"], file["id"], None


def _jobs(
    state: State,
    project: str,
    paging: Page,
    job_type: JobType,
    *,
    job_ids: list[str] | None,
    status: str | None,
    times: tuple[datetime | None, datetime | None],
    exact: dict[str, str | None] | None = None,
) -> tuple[list[Record], str | None]:
    def wanted(record: Record) -> bool:
        return (
            record["type"] == job_type
            and not record.get("deleted_at")
            and status in (None, record["status"])
            and within(record, "created_at", *times)
            and all(value in (None, record[key]) for key, value in (exact or {}).items())
        )

    if job_ids is not None and len(job_ids) <= paging.size and paging.token is None:
        return [record for record in state.store.some("job", job_ids, parent=project) if wanted(record)], None
    ids = None if job_ids is None else set(job_ids)
    return state.store.page(
        "job",
        parent=project,
        token=paging.token,
        size=paging.size,
        wanted=lambda record: (ids is None or record["id"] in ids) and wanted(record),
    )


def _job(state: State, project: str, job_id: str, job_type: JobType) -> Record:
    record = state.store.get("job", job_id, parent=project)
    if record["type"] != job_type:
        raise ApiError(404, f"Job {job_id} not found")
    return record


def _cancel(state: State, record: Record) -> Record:
    with state.store.change("job", record["id"]) as changed:
        if changed["status"] in OVER:
            raise ApiError(409, f"Job {record['id']} is {changed['status']} and cannot be cancelled")
        changed["status"] = "CANCELLED"
    return changed


def _delete(state: State, record: Record) -> Record:
    if record["status"] not in OVER:
        raise ApiError(409, f"Job {record['id']} is {record['status']}; cancel it before deleting it")
    with state.store.change("job", record["id"]) as changed:
        changed["deleted_at"] = state.store.now().isoformat()
    state.store.content(f"{record['id']}.json").unlink(missing_ok=True)
    return {"id": record["id"], "project_id": record["project_id"]}


def _parse_public(record: Record) -> Record:
    return {name: record[name] for name in _PARSE_PUBLIC} | {"usage": None}


def _extract_public(record: Record) -> Record:
    return {name: record[name] for name in _EXTRACT_PUBLIC} | {"extract_result": None, "metadata": None, "usage": None}


def _expanded(name: str, pages: list[Record], record: Record) -> Any:
    if name in ("text_full", "markdown_full"):
        kind = name.removesuffix("_full")
        return "\n\n".join(page[kind] for page in pages if not page["error"])
    if name == "job_metadata":
        return {"pages": len(pages), "tier": record["tier"]}
    if name == "metadata":
        return {"pages": [{"page_number": page["page_number"]} for page in pages]}
    if name == "text":
        return {"pages": [{"page_number": page["page_number"], "text": page["text"]} for page in pages]}
    return {"pages": [_markdown_page(page) for page in pages]}


def _markdown_page(page: Record) -> Record:
    if page["error"]:
        return {"page_number": page["page_number"], "success": False, "error": page["error"]}
    return {"page_number": page["page_number"], "success": True, "markdown": page["markdown"]}


def _content(state: State, request: Request, job_id: str, kind: str, pages: list[Record]) -> Record:
    name = f"{job_id}.{kind}"
    path = state.store.content(name)
    if not path.is_file():
        if kind == "metadata":
            path.write_bytes(orjson.dumps(_expanded("metadata", pages, {})))
        else:
            path.write_text("\n\n".join(page[kind] for page in pages if not page["error"]), "utf-8")
    return {"size_bytes": path.stat().st_size, "exists": True, "presigned_url": state.presigned(request, name)["url"]}
