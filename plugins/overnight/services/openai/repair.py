"""Answers that are not what a schema says: found among a round's results, and asked for again with what is wrong."""

from __future__ import annotations

import tempfile
from typing import IO, Final, Self

import msgspec
from msgspec.structs import replace

from overnight.errors import shorten
from overnight.json_text import InvalidJsonTextError, read_json_text
from overnight.jsonpath import JsonPath, decode_text
from overnight.output_schema import OutputSchema
from overnight.services.openai.incomplete import explain_answer
from overnight.services.openai.result_line import Outcome, Result
from overnight.services.openai.scan import id_digest
from overnight.services.openai.structured import get_answer_path

INVALID_OUTPUT: Final = "invalid_output"
"""The code of an answer that is no JSON, or not the JSON that was asked for; a load has the same one."""
MAX_ANSWER: Final = 16_384
"""Characters of an invalid answer that are sent back to the model."""

_COMPLAINT: Final = "This answer is not valid: {fault}. Answer again, with the complete JSON and nothing else."
_MESSAGES: Final = {"chat/completions": "messages", "responses": "input"}


class _Invalid(msgspec.Struct):
    answer: str
    fault: str


class InvalidAnswers:
    """
    The invalid answers of one round. They are kept in a temporary file, with some 150 bytes of memory for each.

    :param schema: What an answer must be.
    :param endpoint: Says where the answer stands.
    :param repair: Whether a request goes out again with the invalid answer, and what is wrong with it, as further
        messages. Otherwise it goes out as it was.
    :raises SpecError: answers of this endpoint have no text.
    """

    def __init__(self, schema: OutputSchema, endpoint: str, *, repair: bool) -> None:
        self._check = schema.check
        self._path = JsonPath.parse(get_answer_path(endpoint))
        self._messages = next(name for end, name in _MESSAGES.items() if endpoint.endswith(f"/{end}"))
        self._repair = repair
        self._places: dict[bytes, int] = {}
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def count(self) -> int:
        """How many requests have an invalid answer."""
        return len(self._places)

    def examine(self, result: Result) -> Result:
        """
        Return a result as it is, or as a failed one when its answer is invalid.

        An answer that was cut off, refused or filtered is left to the load: the same request would have it again.
        """
        custom_id = result.outcome.custom_id
        if result.outcome.outcome != Outcome.SUCCEEDED or custom_id is None:
            return result
        found = self._find_fault(result.usable)
        if found is None:
            return result
        self._file.seek(0, 2)
        self._places[id_digest(custom_id)] = self._file.tell()
        self._file.write(msgspec.json.encode(found) + b"\n")
        return Result(
            replace(result.outcome, outcome=Outcome.FAILED, code=INVALID_OUTPUT, message=found.fault, status=None)
        )

    def rewrite(self, custom_id: str, line: bytes) -> bytes:
        """
        Return a request of the next round: repaired, when its answer was invalid and that is asked for.

        :param line: The request as it was sent, with its line's end.
        """
        place = self._places.get(id_digest(custom_id))
        if not self._repair or place is None:
            return line
        self._file.seek(place)
        invalid = msgspec.json.decode(self._file.readline(), type=_Invalid)
        request = _members.decode(line)
        body = _members.decode(request["body"])
        given = bytes(body.get(self._messages, b"null"))
        messages: list[object]
        if given.startswith(b"["):
            messages = list(_elements.decode(given))
        else:
            # The Responses API takes a text alone.
            messages = [{"role": "user", "content": msgspec.Raw(given)}]
        messages += [
            {"role": "assistant", "content": invalid.answer},
            {"role": "user", "content": _COMPLAINT.format(fault=invalid.fault.rstrip("."))},
        ]
        changed = {**body, self._messages: messages}
        return msgspec.json.encode({**request, "body": changed}) + b"\n"

    def _find_fault(self, line: bytes) -> _Invalid | None:
        value = self._path.find_first(line)
        if value is None:
            return None
        try:
            fault = self._check(read_json_text(value))
        except InvalidJsonTextError as error:
            fault = str(error)
        if fault is None or explain_answer(line) is not None:
            return None
        answer = decode_text(value) if bytes(value).startswith(b'"') else bytes(value).decode()
        return _Invalid(shorten(answer, MAX_ANSWER), fault)


_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_elements = msgspec.json.Decoder(list[msgspec.Raw])
