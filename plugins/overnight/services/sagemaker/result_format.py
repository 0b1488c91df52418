"""The lines of a batch transform's ``.out`` files, for the load."""

from __future__ import annotations

from typing import Any, ClassVar, Final

import msgspec

from overnight.jobs.result_format import ResultLine, to_rejection
from overnight.rejection import Rejection

OUTPUT: Final = "SageMakerOutput"
"""Where ``JoinSource: Input`` puts the model's answer into the input's object."""


class _Joined(msgspec.Struct):
    SageMakerOutput: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder(_Joined).decode
_EMPTY: Final = (b"", b"null", b"{}", b"[]", b'""')


class SageMakerResultFormat:
    """
    Reads lines of a model's answers, joined with their input (``SageMakerOutput``) or alone.

    SageMaker itself writes no line for a record that failed: it writes no file. A container can answer with an error
    for one record, though, and with nothing.
    """

    service: ClassVar[str] = "sagemaker"
    schemes: ClassVar[tuple[str, ...]] = ()

    def read(self, line: bytes) -> ResultLine | None:
        """Read a line; see :class:`~overnight.jobs.result_format.ResultFormat`."""
        try:
            parsed = _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            # An array or a number is an answer, too; whether a path finds something in it is the field map's affair.
            return None
        is_joined = bytes(parsed.SageMakerOutput) != b""
        if is_joined and _squeeze(parsed.SageMakerOutput) in _EMPTY:
            return ResultLine(line, None, Rejection("empty_result", f"{OUTPUT} is empty: the model gave no answer"))
        error: Any = parsed.error if not is_joined else _get_error(parsed.SageMakerOutput)
        if _squeeze(error) in _EMPTY:
            return ResultLine(line)
        return ResultLine(line, None, to_rejection(_parse(error), "service_error"))


def _get_error(answer: msgspec.Raw) -> msgspec.Raw:
    try:
        return _decode(answer).error
    except msgspec.DecodeError:
        return msgspec.Raw()


def _parse(raw: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return bytes(raw).decode(errors="replace")


def _squeeze(raw: msgspec.Raw) -> bytes:
    text = bytes(raw)
    return b"".join(text.split()) if len(text) < 64 else text


RESULT_FORMAT: Final = SageMakerResultFormat()
