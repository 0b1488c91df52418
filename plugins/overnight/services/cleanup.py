"""What is left at a service, deleted one thing at a time."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, NamedTuple

from overnight.errors import NotFoundError, ServiceError, shorten
from overnight.transport.flow import Flow, Gather
from overnight.transport.http import HttpCall

log = logging.getLogger(__name__)

_AT_ONCE: Final = 4


class Deleted(NamedTuple):
    """
    What became of the files of a job.

    :param deleted: Ids of those that are not there any more, whoever deleted them.
    :param kept: Ids of those that the service did not delete.
    """

    deleted: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    def __add__(self, other: object) -> Deleted:
        found = other if isinstance(other, Deleted) else Deleted()
        return Deleted(self.deleted + found.deleted, self.kept + found.kept)


def delete_each(paths: Mapping[str, str]) -> Flow[Deleted]:
    """
    Delete files; one that is gone is no error, and one that the service does not delete is logged and kept.

    :param paths: Where each is, by its id.
    """
    answers = yield Gather([HttpCall("DELETE", path) for path in paths.values()], _AT_ONCE)
    result = Deleted()
    for file_id, answer in zip(paths, answers, strict=True):
        if isinstance(answer, NotFoundError) or not isinstance(answer, Exception):
            result += Deleted(deleted=(file_id,))
        elif isinstance(answer, ServiceError):
            log.warning("The service did not delete %s: %s", file_id, shorten(str(answer)))
            result += Deleted(kept=(file_id,))
        else:
            raise answer
    return result
