"""What a line of a service's result files is: the seam between the services and the load."""

from __future__ import annotations

from typing import Any, ClassVar, Final, NamedTuple, Protocol, runtime_checkable

import msgspec

from overnight.errors import shorten
from overnight.rejection import Rejection

ENTRY_POINT_GROUP: Final = "overnight.result_formats"
"""Where another package registers its format: the entry point's name is the service's, its value the class."""

_CODES: Final = ("code", "errorCode", "error_code", "type", "error_type", "status")
_MESSAGES: Final = ("message", "errorMessage", "error_message", "detail", "error", "reason", "msg")


class ResultLine(NamedTuple):
    """
    One line that says what became of one item of a batch.

    :param data: The line as JSONPaths read it: the line itself, or one in which a body that came as text is an object.
    :param id: What the batch's input calls the item, where the line says it.
    :param rejection: Why there is no usable result; ``None`` for a success.
    """

    data: bytes
    id: str | None = None
    rejection: Rejection | None = None


class ResultFormat(Protocol):
    """
    Reads the result lines of one service.

    A class of this protocol in ``overnight/services/<api>/result_format.py``, as ``RESULT_FORMAT``, or behind an entry
    point of the group :data:`ENTRY_POINT_GROUP`, is found by its service's name.
    """

    service: ClassVar[str]
    """The service's name, as a :class:`~overnight.jobs.JobRef` has it."""
    schemes: ClassVar[tuple[str, ...]]
    """URI schemes of the service's own files, whose lines are results without anybody saying so."""

    def read(self, line: bytes) -> ResultLine | None:
        """
        Read a line, without its line break.

        :return: ``None`` for a line that is no result of this service (not JSON, or a line of a batch's input).
        """
        ...


@runtime_checkable
class ExplainsAnswers(Protocol):
    """A result format that knows why an answer may not be what was asked for."""

    def explain(self, line: bytes) -> Rejection | None:
        """
        Say why the answer in a successful line is incomplete: cut off at a limit, refused, or filtered.

        It is asked about lines alone whose answer could not be read.

        :return: ``None`` where the line says nothing of the kind.
        """
        ...


def to_rejection(error: Any, code: str) -> Rejection:
    """
    Return the rejection of an item that a service answered with an error.

    :param error: What the service gave: a text, an object with a code and a message by whatever names, or nothing.
    :param code: When the service gives none.
    """
    if not isinstance(error, dict):
        return Rejection(code, shorten(str(error), _TEXT) if error else "the service gave no message")
    own = next((error[name] for name in _CODES if error.get(name) not in (None, "", {}, [])), None)
    text = next((error[name] for name in _MESSAGES if error.get(name) not in (None, "", {}, [])), None)
    if isinstance(text, dict):
        inner = to_rejection(text, code)
        return inner if own is None else Rejection(str(own), inner.reason)
    words = str(text) if text is not None else msgspec.json.encode(error).decode()
    return Rejection(shorten(str(own), _CODE) if own is not None else code, shorten(words, _TEXT))


_TEXT: Final = 500
_CODE: Final = 100
