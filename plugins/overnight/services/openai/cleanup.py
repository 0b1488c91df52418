"""What a batch leaves at the service, deleted once nobody needs it there any more."""

from __future__ import annotations

from urllib.parse import quote

from overnight.errors import UnavailableError
from overnight.services.cleanup import Deleted, delete_each
from overnight.services.openai.files import get_file_path, is_id
from overnight.services.openai.status import read_state
from overnight.transport.flow import Flow
from overnight.transport.http import HttpCall

_FIELDS = ("output_file_id", "error_file_id", "input_file_id")


def delete_files(batch_id: str) -> Flow[Deleted]:
    """
    Delete the input, output and error file of a batch that is over; the batch itself stays, with its counts.

    What is deleted already is no error, so it may be done again.

    :raises UnavailableError: the batch is not over, or the service's answer is none.
    :raises ServiceError: the service does not say what files the batch has.
    """
    batch = yield HttpCall("GET", f"batches/{quote(batch_id, safe='')}")
    if not isinstance(batch, dict) or not read_state(batch).is_terminal:
        raise UnavailableError(f"{batch_id} is not over, so its files are still needed.", status=200)
    found = [batch[field] for field in _FIELDS if is_id(batch.get(field))]
    return (yield from delete_each({file_id: get_file_path(file_id) for file_id in found}))
