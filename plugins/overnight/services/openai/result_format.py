"""The lines of a batch's output and error files, for the load."""

from __future__ import annotations

from typing import ClassVar, Final

from overnight.jobs.result_format import ResultLine
from overnight.rejection import Rejection
from overnight.services.openai.incomplete import explain_answer
from overnight.services.openai.result_line import Outcome, is_result, read_result


class OpenAIResultFormat:
    """
    Reads output and error lines of the Batch API and of compatible servers.

    Lines without ``response`` and ``error`` (those of a batch's input file) are no results.
    """

    service: ClassVar[str] = "openai"
    schemes: ClassVar[tuple[str, ...]] = ("openai",)

    def read(self, line: bytes) -> ResultLine | None:
        """Read a line; see :class:`~overnight.jobs.result_format.ResultFormat`."""
        if not is_result(line):
            return None
        outcome, usable = read_result(line, "output", 0)
        if outcome.outcome == Outcome.SUCCEEDED:
            return ResultLine(usable.removesuffix(b"\n"), outcome.custom_id)
        if outcome.outcome == Outcome.BROKEN:
            return ResultLine(line, None, Rejection("missing_id", f"the result line is unreadable: {outcome.message}"))
        code = outcome.code or (f"status_{outcome.status}" if outcome.status is not None else "service_error")
        reason = outcome.message or "the service gave no message"
        return ResultLine(line, outcome.custom_id, Rejection(code, reason))

    def explain(self, line: bytes) -> Rejection | None:
        """Say why an answer is incomplete; see :class:`~overnight.jobs.result_format.ExplainsAnswers`."""
        return explain_answer(line)


RESULT_FORMAT: Final = OpenAIResultFormat()
