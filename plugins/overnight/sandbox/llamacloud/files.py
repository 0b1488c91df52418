"""``/api/v1/beta/files``: contents, and the presigned URLs that hand them out."""

from __future__ import annotations

import shutil
from pathlib import PurePosixPath
from typing import Annotated

from fastapi import APIRouter, File, Form, Query, Request, Response, UploadFile
from fastapi.responses import FileResponse

from overnight.sandbox.llamacloud.access import Emulator, Paging, Project, listed
from overnight.sandbox.llamacloud.errors import ApiError, invalid
from overnight.sandbox.llamacloud.schemas import PURPOSES, Expand, Ids
from overnight.sandbox.llamacloud.state import State
from overnight.sandbox.llamacloud.store import Record

router = APIRouter()
_FILES = "/api/v1/beta/files"


@router.post(_FILES)
def create_file(
    state: Emulator,
    project: Project,
    file: Annotated[UploadFile, File()],
    purpose: Annotated[str, Form()],
    external_file_id: Annotated[str | None, Form()] = None,
) -> Record:
    """Take a file in."""
    state.admit_upload()
    if purpose not in PURPOSES:
        raise invalid(("body", "purpose"), f"purpose must be one of {', '.join(PURPOSES)}", purpose)
    return keep_upload(state, project, file, purpose=purpose, external_file_id=external_file_id)


@router.get(_FILES)
def list_files(
    request: Request,
    state: Emulator,
    project: Project,
    paging: Paging,
    *,
    file_name: str | None = None,
    external_file_id: str | None = None,
    file_ids: Ids = None,
    order_by: Annotated[str | None, Query(pattern="^(name|id|created_at)$")] = None,
    expand: Expand = None,
) -> Record:
    """List files, the newest first; ``order_by`` name or id sorts within the page."""

    def wanted(record: Record) -> bool:
        return (
            not record["deleted_at"]
            and (file_name is None or record["name"] == file_name)
            and (external_file_id is None or record["external_file_id"] == external_file_id)
            and (file_ids is None or record["id"] in file_ids)
        )

    items, following = state.store.page("file", parent=project, token=paging.token, size=paging.size, wanted=wanted)
    if order_by in ("name", "id"):
        items.sort(key=lambda record: str(record[order_by]))
    return listed((items, following), lambda record: expand_download(state, request, record, record["id"], expand))


@router.get(f"{_FILES}/{{file_id}}")
def get_file(request: Request, file_id: str, state: Emulator, project: Project, expand: Expand = None) -> Record:
    """Return one file."""
    record = state.store.get("file", file_id, parent=project)
    return expand_download(state, request, record, file_id, expand)


@router.get(f"{_FILES}/{{file_id}}/content")
def get_content(request: Request, file_id: str, state: Emulator, project: Project) -> Record:
    """Return a presigned URL of a file's content."""
    state.store.get("file", file_id, parent=project)
    return state.presigned(request, file_id)


@router.delete(f"{_FILES}/{{file_id}}", status_code=204)
def delete_file(file_id: str, state: Emulator, project: Project) -> Response:
    """Delete a file."""
    state.store.get("file", file_id, parent=project)
    with state.store.change("file", file_id) as record:
        record["deleted_at"] = state.store.now().isoformat()
    state.store.content(file_id).unlink(missing_ok=True)
    return Response(status_code=204)


@router.get("/presigned/{name}")
def download(name: str, state: Emulator, expires: str, signature: str) -> Response:
    """Hand out a content; the URL is the key."""
    state.check_presigned(name, expires, signature)
    path = state.store.content(name)
    if not path.is_file():
        raise ApiError(404, "NoSuchKey")
    return FileResponse(path)


def keep_upload(
    state: State, project: str, upload: UploadFile, *, purpose: str, external_file_id: str | None
) -> Record:
    """
    Keep an uploaded content and its record.

    :raises ApiError: 413, it is too large; 422, it is empty or has no name.
    """
    limit = state.settings.limits.file_bytes
    if not upload.filename or not upload.size:
        raise invalid(("body", "upload_file"), "the file is empty or has no name", upload.filename)
    if upload.size > limit:
        raise ApiError(413, f"File size {upload.size} exceeds the limit of {limit} bytes")
    record = state.store.add(
        "file",
        {
            "name": upload.filename,
            "project_id": project,
            "external_file_id": external_file_id,
            "file_type": PurePosixPath(upload.filename).suffix.lstrip(".") or None,
            "purpose": purpose,
            "expires_at": None,
            "deleted_at": None,
            "download_url": None,
            "last_modified_at": state.store.now().isoformat(),
            "size_bytes": upload.size,
        },
        parent=project,
    )
    with state.store.content(record["id"]).open("wb") as kept:
        shutil.copyfileobj(upload.file, kept)
    return record


def expand_download(state: State, request: Request, record: Record, content: str, expand: list[str] | None) -> Record:
    """
    Return a record with the fields it was asked to be expanded by.

    :raises RequestValidationError: There is no such field.
    """
    for name in expand or ():
        if name != "download_url":
            raise invalid(("query", "expand"), "the supported value is download_url", name)
    return record | {"download_url": state.presigned(request, content)} if expand else record
