"""The files API beside the batches: upload once, find again, read back."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, Final, cast
from urllib.parse import quote

import orjson

from overnight.errors import (
    NotFoundError,
    RequestRefusedError,
    ServiceError,
    SpecError,
    UnavailableError,
    UnsupportedError,
    shorten,
)
from overnight.services.create import create_object_once
from overnight.services.openai.spec import OpenAIBatchSpec
from overnight.storage import Storage
from overnight.transport.flow import Flow, Pause
from overnight.transport.http import HttpCall, HttpTransport, Retry

log = logging.getLogger(__name__)

FILE_SCHEME: Final = "openai://"
PAGE: Final = 100
"""Items in one page of a list; compatible servers refuse more, though OpenAI takes 10,000 files."""
MAX_ID: Final = 512
"""Characters; the longest ids of batches and files that are known have some 80."""
UPLOAD_MEMORY: Final = timedelta(days=2)
"""How old an uploaded and unused input may be to be looked for; beyond that it is uploaded again."""
UPLOAD_TIMEOUT: Final = 600.0
IMPORT_WAITS: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 30.0, 30.0, 60.0, 60.0, 60.0)
"""Seconds between looks at an uploaded file that the service still imports (Azure OpenAI)."""
NOT_LISTED: Final = (RequestRefusedError, UnsupportedError, NotFoundError)
"""What a server without a list answers: 400, 404, 405."""


@dataclass(frozen=True)
class InputFile:
    """
    A measured batch input that is to be at the service.

    :param uri: Where it is now.
    :param name: What it is called there; it says the job and the content, so a file of this name and size is
        this file, and, as the name carries the job's generation, no other batch has used it.
    :param size: In bytes, as it is uploaded.
    :param has_blank_lines: They are left out of the upload: the service takes one for a request that cannot be read.
    :param expires_after: Seconds after which the service deletes it.
    """

    uri: str
    name: str
    size: int
    expires_after: int | None = None
    has_blank_lines: bool = False


def check_size(storage: Storage, spec: OpenAIBatchSpec) -> None:
    """
    Compare an input's size with the one that it was measured with, which is cheaper than to measure it again.

    :raises SpecError: it has another.
    """
    if spec.input_uri is None or spec.input_bytes is None:
        return
    actual = storage.size(spec.input_uri)
    if actual is not None and actual != spec.input_bytes:
        raise SpecError(
            f"{spec.input_uri} has {actual:,} bytes now and had {spec.input_bytes:,} when it was measured. Something "
            "still writes to it; submit once it is complete. Nothing was submitted."
        )


def provide(storage: Storage, wanted: InputFile, avoid: Collection[str] = ()) -> Flow[str]:
    """
    Return the id of the uploaded input, which an earlier try may have left.

    :param avoid: Ids that are no use any more.
    :raises UnavailableError: the file is there, and the service still imports it; the next try takes the same file.
    """
    file = yield from _find_uploaded(wanted, avoid)
    if file is not None:
        log.info("Using %s, which an earlier try uploaded.", file["id"])
        return (yield from _wait_for_import(file))

    def upload() -> Flow[dict[str, Any]]:
        return parse_object((yield _build_upload(storage, wanted)), "the uploaded file")

    def find(since: datetime) -> Flow[dict[str, Any] | None]:
        # A file without a batch costs nothing, so all that were uploaded for this job will do.
        del since
        return (yield from _find_uploaded(wanted, avoid))

    file = yield from create_object_once(upload, find, f"the file {wanted.name}")
    if file.get("bytes") not in (None, wanted.size):
        raise UnavailableError(
            f"The service received {shorten(str(file['bytes']), 80)} of the {wanted.size} bytes of {wanted.uri}."
        )
    return (yield from _wait_for_import(file))


def is_gone(file_id: str, error: ServiceError) -> Flow[bool]:
    """Whether a batch was refused because the service has lost its input file."""
    if error.code in ("file_not_found", "input_file_expired"):
        return True
    try:
        file = yield HttpCall("GET", get_file_path(file_id))
    except NotFoundError:
        return True
    except ServiceError:
        # The refusal of the batch says more than the refusal of this look.
        return False
    expires_at = file.get("expires_at") if isinstance(file, dict) else None
    return isinstance(expires_at, int | float) and expires_at <= datetime.now(UTC).timestamp()


def list_input_files(since: datetime) -> Flow[list[dict[str, Any]]]:
    """Read the list of uploaded batch inputs back to a time."""
    return (yield from list_all("files", {"purpose": "batch", "limit": PAGE, "order": "desc"}, since))


def list_all(path: str, params: Mapping[str, Any], since: datetime) -> Flow[list[dict[str, Any]]]:
    """
    Read a list page by page, to its end or, where it is sorted by age, to the first page that is too old.

    It ends on servers that ignore ``after``, too: they send the same page for ever.
    """
    oldest = since.timestamp()
    listed: dict[str, dict[str, Any]] = {}
    last = float("inf")
    newest_first = True
    query = dict(params)
    while True:
        answer = yield HttpCall("GET", path, params=query)
        items = read_page(answer, path)
        fresh = [item for item in items if item["id"] not in listed]
        for item in fresh:
            listed[item["id"]] = item
            created = item.get("created_at")
            if isinstance(created, int | float):
                newest_first = newest_first and created <= last
                last = created
        # Where ``has_more`` is missing, only an empty page or a known one is the end.
        if not fresh or not answer.get("has_more", True) or (newest_first and last < oldest):
            return list(listed.values())
        query = {**query, "after": items[-1]["id"]}


def read_page(answer: Any, path: str) -> list[dict[str, Any]]:
    """
    Return the objects with an id of one page of a list. ``{"data": null}`` is an empty one, as servers in Go write it.

    :raises UnavailableError: the answer is no list.
    """
    data = answer.get("data", False) if isinstance(answer, dict) else False
    if data is None:
        return []
    if not isinstance(data, list):
        raise UnavailableError(
            f"The list of {path} has no data; does something else answer at this address? {quote_answer(answer)}"
        )
    return [item for item in data if isinstance(item, dict) and is_id(item.get("id"))]


def content(transport: HttpTransport, file_id: str, start: int = 0) -> Iterator[bytes]:
    """
    Yield a file's bytes from ``start`` on, in bounded memory, going on where a broken connection stopped.

    :raises NotFoundError: the file is not there (any more).
    :raises UnavailableError: a web page came in its place, with a status of success.
    """
    chunks = transport.stream(f"{get_file_path(file_id)}/content", start=start)
    for number, chunk in enumerate(chunks):
        if not number and not start and chunk.lstrip()[:1] == b"<":
            raise UnavailableError(
                f"A web page came in place of {to_uri(file_id)}: "
                f"{shorten(chunk.decode('utf-8', 'backslashreplace'), 300)}",
                status=200,
            )
        yield chunk


def get_size(file_id: str) -> Flow[int | None]:
    """Ask for the bytes of a file; ``None`` where the server does not say."""
    try:
        answer = yield HttpCall("GET", get_file_path(file_id))
    except (NotFoundError, UnsupportedError):
        return None
    size = answer.get("bytes") if isinstance(answer, dict) else None
    return size if type(size) is int and size >= 0 else None


def to_uri(file_id: str) -> str:
    """Return the URI that stands for a file at the service, ``openai://<id>``."""
    return f"{FILE_SCHEME}{file_id}"


def parse_object(answer: Any, what: str) -> dict[str, Any]:
    """
    Return an answer that has an id, as everything that the service creates or shows has.

    :raises UnavailableError: it has none. Its ``status`` says that the service answered with a success.
    """
    if not isinstance(answer, dict) or not is_id(answer.get("id")):
        text = f"The service answered without an id for {what}. {quote_answer(answer)}"
        raise UnavailableError(text, status=200)
    return answer


def is_id(value: object) -> bool:
    """Whether a value can be the id of something at the service."""
    return isinstance(value, str) and 0 < len(value) <= MAX_ID


def quote_answer(answer: Any, limit: int = 300) -> str:
    """Return an unexpected answer as a sentence, of bounded length."""
    try:
        text = orjson.dumps(answer, default=repr).decode()
    except TypeError:
        # orjson has no integers beyond 64 bits.
        text = repr(answer)
    return f"It answered: {shorten(text, limit)}"


def get_file_path(file_id: object) -> str:
    """Return the path of a file at the service."""
    return f"files/{quote(str(file_id), safe='')}"


def _build_upload(storage: Storage, wanted: InputFile) -> HttpCall:
    data = {"purpose": "batch"}
    if wanted.expires_after is not None:
        data["expires_after[anchor]"] = "created_at"
        data["expires_after[seconds]"] = str(wanted.expires_after)

    def open_input() -> BinaryIO:
        file = cast("BinaryIO", storage.open(wanted.uri))
        return _drop_blank_lines(file) if wanted.has_blank_lines else file

    return HttpCall(
        "POST",
        "files",
        data=data,
        files={"file": (wanted.name, open_input)},
        retry=Retry.REJECTED,
        timeout=UPLOAD_TIMEOUT,
    )


def _drop_blank_lines(file: BinaryIO) -> BinaryIO:
    """Return a temporary file with the lines of another that have something in them."""
    with file:
        kept = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115 - the caller closes it
        kept.writelines(line for line in file if line.strip())
    kept.seek(0)
    return kept


def _find_uploaded(wanted: InputFile, avoid: Collection[str]) -> Flow[dict[str, Any] | None]:
    try:
        files = yield from list_input_files(datetime.now(UTC) - UPLOAD_MEMORY)
    except NOT_LISTED as error:
        log.info("This server does not list its files (%s); the input is uploaded.", error)
        return None
    # A file about to expire is no use to a batch that waits to be validated.
    soon = (datetime.now(UTC) + timedelta(minutes=30)).timestamp()
    for file in files:
        expires_at = file.get("expires_at")
        if (
            file.get("filename") == wanted.name
            and file.get("bytes") in (None, wanted.size)
            and file.get("status") not in ("error", "failed", "deleted", "deleting")
            and file["id"] not in avoid
            and not (isinstance(expires_at, int | float) and expires_at < soon)
        ):
            return file
    return None


def _wait_for_import(file: Mapping[str, Any]) -> Flow[str]:
    """Wait until the service has imported an uploaded file; OpenAI has at once, Azure OpenAI has not."""
    file_id = str(file["id"])
    for seconds in IMPORT_WAITS:
        if file.get("status") not in ("pending", "running"):
            break
        yield Pause(seconds)
        file = parse_object((yield HttpCall("GET", get_file_path(file_id))), f"the file {file_id}")
    if file.get("status") in ("pending", "running"):
        raise UnavailableError(
            f"The service still imports the uploaded file {file_id} after {sum(IMPORT_WAITS):.0f} s. No batch was "
            "created; the next try goes on with the same file."
        )
    if file.get("status") == "error":
        why = shorten(str(file.get("status_details") or "it does not say why"))
        raise RequestRefusedError(f"The service could not import the uploaded input: {why}.")
    return file_id
