"""What a batch leaves at the service, deleted once nobody needs it there any more."""

from __future__ import annotations

import logging
from typing import NamedTuple
from urllib.parse import quote

from overnight.errors import NotFoundError, ServiceError, UnavailableError, shorten
from overnight.services.openai.files import get_file_path, is_id
from overnight.services.openai.status import read_state
from overnight.transport.flow import Flow
from overnight.transport.http import HttpCall

log = logging.getLogger(__name__)

_FIELDS = ("output_file_id", "error_file_id", "input_file_id")


class Deleted(NamedTuple):
    """
    What became of a batch's files.

    :param deleted: Ids of those that are not there any more, whoever deleted them.
    :param kept: Ids of those that the service did not delete.
    """

    deleted: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    def __add__(self, other: object) -> Deleted:
        found = other if isinstance(other, Deleted) else Deleted()
        return Deleted(self.deleted + found.deleted, self.kept + found.kept)


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
    result = Deleted()
    for file_id in (batch[field] for field in _FIELDS if is_id(batch.get(field))):
        try:
            yield HttpCall("DELETE", get_file_path(file_id))
        except NotFoundError:
            pass
        except ServiceError as error:
            log.warning("The service did not delete %s: %s", file_id, shorten(str(error)))
            result += Deleted(kept=(file_id,))
            continue
        result += Deleted(deleted=(file_id,))
    return result
