"""``/api/v1/beta/directories`` and the files in them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, File, Form, Query, Request, Response, UploadFile

from overnight.sandbox.llamacloud.access import Emulator, Paging, Project, listed
from overnight.sandbox.llamacloud.errors import ApiError, invalid
from overnight.sandbox.llamacloud.files import expand_download, keep_upload
from overnight.sandbox.llamacloud.schemas import (
    DirectoryCreate,
    DirectoryType,
    DirectoryUpdate,
    Expand,
    FileAdd,
    FileUpdate,
)
from overnight.sandbox.llamacloud.state import State, within
from overnight.sandbox.llamacloud.store import Record, Store

router = APIRouter(prefix="/api/v1/beta/directories")


@router.post("")
def create_directory(body: DirectoryCreate, state: Emulator, project: Project) -> Record:
    """Make a directory. Names need not be unique."""
    expires = None
    if body.type == "ephemeral":
        expires = (state.store.now() + timedelta(seconds=state.settings.limits.ephemeral_seconds)).isoformat()
    record = {**body.model_dump(), "project_id": project, "expires_at": expires, "deleted_at": None}
    return state.store.add("directory", record, parent=project)


@router.get("")
def list_directories(
    state: Emulator,
    project: Project,
    paging: Paging,
    *,
    name: str | None = None,
    type: DirectoryType | None = None,  # noqa: A002 - the API's own word
    types: Annotated[list[DirectoryType] | None, Query()] = None,
    include_deleted: bool = False,
) -> Record:
    """List directories, the newest first."""
    kinds = {*(types or ()), *([type] if type else ())}

    def wanted(record: Record) -> bool:
        return (
            (name is None or record["name"] == name)
            and (not kinds or record["type"] in kinds)
            and (include_deleted or not record["deleted_at"])
        )

    return listed(state.store.page("directory", parent=project, token=paging.token, size=paging.size, wanted=wanted))


@router.get("/{directory_id}")
def get_directory(directory_id: str, state: Emulator, project: Project) -> Record:
    """Return one directory."""
    return state.store.get("directory", directory_id, parent=project)


@router.patch("/{directory_id}")
def update_directory(directory_id: str, body: DirectoryUpdate, state: Emulator, project: Project) -> Record:
    """Change a directory's name or description."""
    state.store.get("directory", directory_id, parent=project)
    with state.store.change("directory", directory_id) as record:
        record.update(body.model_dump(exclude_none=True))
    return record


@router.delete("/{directory_id}", status_code=204)
def delete_directory(directory_id: str, state: Emulator, project: Project) -> Response:
    """Delete a directory and the files in it."""
    state.store.get("directory", directory_id, parent=project)
    discard(state.store, directory_id)
    return Response(status_code=204)


@router.post("/{directory_id}/files")
def add_file(directory_id: str, body: FileAdd, state: Emulator, project: Project) -> Record:
    """Refer to a file that is there already."""
    state.store.get("directory", directory_id, parent=project)
    file = state.store.get("file", body.file_id, parent=project)
    return _place(state, directory_id, file, **body.model_dump(exclude={"file_id"}))


@router.post("/{directory_id}/files/upload")
def upload_file(
    directory_id: str,
    state: Emulator,
    project: Project,
    *,
    upload_file: Annotated[UploadFile, File()],
    display_name: Annotated[str | None, Form()] = None,
    unique_id: Annotated[str | None, Form()] = None,
    external_file_id: Annotated[str | None, Form()] = None,
    metadata: Annotated[str | None, Form()] = None,
) -> Record:
    """Take a file in."""
    state.admit_upload()
    state.store.get("directory", directory_id, parent=project)
    read = _metadata(metadata)
    file = keep_upload(state, project, upload_file, purpose="user_data", external_file_id=external_file_id)
    return _place(state, directory_id, file, display_name=display_name, unique_id=unique_id, metadata=read)


@router.get("/{directory_id}/files")
def list_files(
    request: Request,
    directory_id: str,
    state: Emulator,
    project: Project,
    paging: Paging,
    *,
    display_name: str | None = None,
    display_name_contains: str | None = None,
    file_id: str | None = None,
    unique_id: str | None = None,
    include_deleted: bool = False,
    updated_at_on_or_after: datetime | None = None,
    updated_at_on_or_before: datetime | None = None,
    expand: Expand = None,
) -> Record:
    """List the files of a directory, the oldest first."""
    state.store.get("directory", directory_id, parent=project)
    exact = {"display_name": display_name, "file_id": file_id, "unique_id": unique_id}

    def wanted(record: Record) -> bool:
        return (
            all(value is None or record[key] == value for key, value in exact.items())
            and (display_name_contains is None or display_name_contains in record["display_name"])
            and (include_deleted or not record["deleted_at"])
            and within(record, "updated_at", updated_at_on_or_after, updated_at_on_or_before)
        )

    found = state.store.page(
        "directory_file", parent=directory_id, token=paging.token, size=paging.size, wanted=wanted, newest_first=False
    )
    return listed(found, lambda record: expand_download(state, request, record, record["file_id"], expand))


@router.get("/{directory_id}/files/{directory_file_id}")
def get_file(
    request: Request,
    directory_id: str,
    directory_file_id: str,
    state: Emulator,
    project: Project,
    *,
    expand: Expand = None,
) -> Record:
    """Return one file of a directory."""
    state.store.get("directory", directory_id, parent=project)
    record = state.store.get("directory_file", directory_file_id, parent=directory_id)
    return expand_download(state, request, record, record["file_id"], expand)


@router.patch("/{directory_id}/files/{directory_file_id}")
def update_file(
    directory_id: str, directory_file_id: str, body: FileUpdate, state: Emulator, project: Project
) -> Record:
    """Change what is said of a file, or move it."""
    store = state.store
    store.get("directory", directory_id, parent=project)
    record = store.get("directory_file", directory_file_id, parent=directory_id)
    target = body.target_directory_id or directory_id
    store.get("directory", target, parent=project)
    store.rename("directory_file", record["id"], parent=target, name=body.unique_id or record["unique_id"])
    with store.change("directory_file", record["id"]) as changed:
        changed.update(body.model_dump(exclude_none=True, exclude={"target_directory_id"}), directory_id=target)
    return changed


@router.delete("/{directory_id}/files/{directory_file_id}", status_code=204)
def delete_file(directory_id: str, directory_file_id: str, state: Emulator, project: Project) -> Response:
    """Take a file out of a directory."""
    state.store.get("directory", directory_id, parent=project)
    state.store.get("directory_file", directory_file_id, parent=directory_id)
    _delete(state.store, "directory_file", directory_file_id)
    return Response(status_code=204)


def discard(store: Store, directory_id: str) -> None:
    """Delete a directory, its files, and the contents that no other directory refers to."""
    ours = store.all("directory_file", parent=directory_id)
    for record in ours:
        _delete(store, "directory_file", record["id"])
    _delete(store, "directory", directory_id)
    kept = {record["file_id"] for record in store.all("directory_file")}
    for file_id in {record["file_id"] for record in ours} - kept:
        _delete(store, "file", file_id)
        store.content(file_id).unlink(missing_ok=True)


def _delete(store: Store, kind: Any, record_id: str) -> None:
    with store.change(kind, record_id) as record:
        record["deleted_at"] = store.now().isoformat()


def _place(
    state: State,
    directory_id: str,
    file: Record,
    *,
    display_name: str | None,
    unique_id: str | None,
    metadata: dict[str, Any] | None,
) -> Record:
    name = unique_id or file["external_file_id"] or file["name"]
    record = {
        "directory_id": directory_id,
        "project_id": file["project_id"],
        "file_id": file["id"],
        "display_name": display_name or file["name"],
        "unique_id": name,
        "metadata": metadata or {},
        "deleted_at": None,
        "download_url": None,
    }
    return state.store.add("directory_file", record, parent=directory_id, name=name)


def _metadata(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        read = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise invalid(("body", "metadata"), "metadata must be a JSON object string", text) from None
    if not isinstance(read, dict):
        raise invalid(("body", "metadata"), "metadata must be a JSON object string", text)
    for key, value in read.items():
        scalar = value is None or isinstance(value, str | int | float)
        if not scalar and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
            raise ApiError(422, f"metadata {key!r} must be a scalar or a list of strings")
    return read
