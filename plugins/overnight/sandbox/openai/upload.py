"""``POST /v1/files``: a multipart body goes to disk as it comes in, whatever its size."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from overnight.sandbox.openai.batches import parse_lifetime
from overnight.sandbox.openai.errors import ApiError, invalid_type, invalid_value, missing_parameter
from overnight.sandbox.openai.files import PURPOSES, FileRecord
from overnight.sandbox.openai.state import State

_ENVELOPE_BYTES = 64 * 1024
"""What a multipart body may hold besides the file."""


async def receive_file(request: Request, state: State) -> FileRecord:
    """
    Take in one uploaded file.

    :raises ApiError: 400, for a missing field, an unknown purpose, a batch file not named ``.jsonl``, or an expiry
        out of bounds; 413, for a file over the limit.
    """
    limit = state.settings.limits.upload_bytes
    if int(request.headers.get("content-length", "0")) > limit + _ENVELOPE_BYTES:
        raise _too_large(limit)
    try:
        async with request.form(max_files=1) as form:
            file, purpose = form.get("file"), form.get("purpose")
            if not isinstance(file, UploadFile):
                raise missing_parameter("file")
            if purpose is None:
                raise missing_parameter("purpose")
            if purpose not in PURPOSES:
                raise invalid_value("purpose", purpose, PURPOSES)
            filename = file.filename or "upload"
            if purpose == "batch" and not filename.lower().endswith(".jsonl"):
                raise ApiError(400, "Invalid file format for Batch API. Must be .jsonl")
            if (file.size or 0) > limit:
                raise _too_large(limit)
            lifetime = _lifetime(form, state, purpose=str(purpose))
            content = await run_in_threadpool(_save, file, state.incoming)
            return await run_in_threadpool(
                state.files.add, content, purpose=str(purpose), filename=filename, lifetime=lifetime
            )
    except MultiPartException as error:
        raise ApiError(400, f"Could not parse multipart form: {error.message}") from error


def _lifetime(form: Any, state: State, *, purpose: str) -> int | None:
    anchor, seconds = form.get("expires_after[anchor]"), form.get("expires_after[seconds]")
    asked = None
    if anchor is not None or seconds is not None:
        if seconds is not None and not str(seconds).isdigit():
            raise invalid_type("expires_after.seconds", "integer", seconds)
        policy = {"anchor": anchor, "seconds": None if seconds is None else int(str(seconds))}
        asked = parse_lifetime(policy, "expires_after")
    if asked is None or state.settings.quirks.ignore_expires_after:
        return state.settings.limits.batch_file_lifetime if purpose == "batch" else None
    return asked


def _save(file: UploadFile, folder: Path) -> Path:
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as saved:
        shutil.copyfileobj(file.file, saved, 1 << 20)
    return Path(saved.name)


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"The file is larger than the {limit:,} bytes that can be uploaded.", param="file")
