"""The lines that :func:`~overnight.services.llamacloud.results.collect` writes, for the load."""

from __future__ import annotations

from typing import Any, ClassVar, Final

import msgspec

from overnight.jobs.result_format import ResultLine, to_rejection


class _File(msgspec.Struct):
    file_id: str
    state: str | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_File).decode


class LlamaCloudResultFormat:
    """Reads a job's output and error files: an error line has the state of its file and the service's reason."""

    service: ClassVar[str] = "llamacloud"
    schemes: ClassVar[tuple[str, ...]] = ()

    def read(self, line: bytes) -> ResultLine | None:
        """Read a line; see :class:`~overnight.jobs.result_format.ResultFormat`."""
        try:
            file = _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if file.error is None and file.state is None:
            return ResultLine(line, file.file_id)
        return ResultLine(line, file.file_id, to_rejection(file.error, file.state or "service_error"))


RESULT_FORMAT: Final = LlamaCloudResultFormat()
