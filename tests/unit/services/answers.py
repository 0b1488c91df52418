"""
A test bench for answers: the good answers of a service are mutated, and every verb has to end in a result or an error.

A test gives a function from a call to the service's good answer (recorded, or made of the vendor's SDK types) and the
verbs as flows. :func:`check` runs each verb with one answer mutated, by a seed, and asserts that it ends, that it
raises nothing but a :class:`~overnight.errors.ServiceError` (``also`` adds what a verb may refuse by), and that neither
an error's text nor a result grows with what the service wrote.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import httpx
import orjson
from pydantic import BaseModel

from overnight.errors import MAX_TEXT, ServiceError
from overnight.transport.errors import Errors
from overnight.transport.flow import Flow, Gather, Pause
from overnight.transport.http import HttpAnswer

Good: TypeAlias = Callable[[Any], Any]
"""From a call to the decoded answer of a healthy service; raises a :class:`ServiceError` where that refuses."""

MAX_CALLS = 3_000
MAX_ERROR = MAX_TEXT + 2_000
"""Characters of an error's text: one quoted text, and our own words around it."""
MAX_RESULT = 200_000
"""Characters of a result as JSON: some 20 errors of bounded length, and references."""
LONG = "x" * 1_000_000

OTHERS: tuple[Any, ...] = (
    None, True, False, 0, -1, 2**70, 1.5, "", "text", LONG, [], [None], [[]], ["text"], {}, {"a": None}, [{}],
    {"error": {"message": LONG, "code": 500}}, {"error": "text"}, {"items": None}, {"data": None},
)  # fmt: skip
"""What stands in place of a value or of a whole answer."""


def read_failures(service: str = "The service") -> dict[str, ServiceError]:
    """Return what the transport makes of answers that are no success, or no JSON."""
    errors = Errors(service)
    request = httpx.Request("GET", "https://service.example/path")

    def respond(status: int, body: bytes) -> httpx.Response:
        return httpx.Response(status, content=body, request=request)

    bodies = {"JSON": b'{"error": {"message": "no", "code": "odd"}}', "HTML": b"<html>" + LONG.encode(), "empty": b""}
    failures: dict[str, ServiceError] = {
        f"{status} with {kind}": errors.answered(respond(status, body))
        for status in (301, 400, 401, 403, 404, 405, 409, 410, 413, 422, 429, 500, 501, 502, 503)
        for kind, body in bodies.items()
    }
    failures["200 with HTML"] = errors.unreadable(respond(200, bodies["HTML"]))
    failures["truncated"] = errors.unreadable(respond(200, b'{"id": "x'))
    failures["dropped"] = errors.unanswered("GET", "path", httpx.ReadTimeout("slow"))
    return failures


@dataclass
class Service:
    """
    A healthy service of which one answer, or every answer to one kind of call, is bad.

    :param broken: Which call, counted from 0; ``None`` for none.
    :param mutation: What becomes of that answer; may raise.
    :param always: Whether every later call of the same kind (method and path) is answered so, too.
    """

    good: Good
    broken: int | None = None
    mutation: Callable[[Any], Any] = copy.deepcopy
    always: bool = False
    calls: int = 0
    kind: str | None = None
    seen: list[str] = field(default_factory=list)

    def answer(self, call: Any) -> Any:
        number, kind = self.calls, describe(call)
        self.calls += 1
        self.seen.append(kind)
        assert self.calls <= MAX_CALLS, f"it never ends: {self.seen[-3:]}"
        if number == self.broken:
            self.kind = kind
        answer = copy.deepcopy(self.good(call))
        if number == self.broken or (self.always and kind == self.kind):
            answer = self.mutation(answer)
        decode = getattr(call, "decode", orjson.loads)
        if isinstance(answer, bytes):
            answer = decode(answer) if answer else None
        return HttpAnswer(answer, None) if getattr(call, "whole", False) else answer

    def run(self, flow: Flow[Any]) -> Any:
        """Drive a flow to its end, without waiting in its pauses."""
        answer: Any = None
        error: ServiceError | None = None
        try:
            while True:
                call = flow.throw(error) if error is not None else flow.send(answer)
                answer = error = None
                if isinstance(call, Pause):
                    continue
                if isinstance(call, Gather):
                    answer = [self._outcome(one) for one in call.calls]
                    continue
                try:
                    answer = self.answer(call)
                except ServiceError as raised:
                    error = raised
        except StopIteration as stop:
            return stop.value

    def _outcome(self, call: Any) -> Any:
        try:
            return self.answer(call)
        except ServiceError as error:
            return error


def describe(call: Any) -> str:
    """Return what kind of call it is."""
    method, path = getattr(call, "method", None), getattr(call, "path", None)
    return f"{method} {path}" if path is not None else str(getattr(call, "operation", call))[:80]


def list_places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of every value in a JSON value, the whole first."""
    yield place
    if isinstance(value, dict):
        for key in value:
            yield from list_places(value[key], (*place, key))
    elif isinstance(value, list):
        for number in range(len(value)):
            yield from list_places(value[number], (*place, number))


def mutate(answer: Any, chance: random.Random) -> tuple[str, Any]:
    """Return a JSON value with one thing in it missing, null, extra or of another type, and what that is."""
    place = chance.choice(list(list_places(answer)))
    what = chance.choice(["missing", "null", "other", "other", "extra"])
    other = chance.choice(OTHERS) if what == "other" else None
    label = f"{what} {str(other)[:40]} at {place}"
    if not place:
        return label, other
    whole = copy.deepcopy(answer)
    parent = whole
    for step in place[:-1]:
        parent = parent[step]
    if what == "missing":
        del parent[place[-1]]
    elif what == "extra":
        extra = copy.deepcopy(parent[place[-1]])
        parent.append(extra) if isinstance(parent, list) else parent.update({"unheard_of": extra})
    else:
        parent[place[-1]] = other
    return label, whole


def check(
    verbs: Mapping[str, Callable[[], Flow[Any]]],
    good: Callable[[], Good],
    *,
    seeds: range = range(150),
    also: tuple[type[Exception], ...] = (),
    failures: Mapping[str, Exception] | None = None,
) -> None:
    """
    Run every verb once with good answers, then for each seed with one of them mutated, or failing.

    :param good: Makes a healthy service, afresh for each run.
    :param also: What a verb may raise beside a :class:`ServiceError`: a :class:`SpecError`, say, by a submit.
    :param failures: What a call can fail with, by what it is called in a message.
    """
    failures = failures if failures is not None else read_failures()
    for verb, make in verbs.items():
        healthy = Service(good())
        healthy.run(make())
        for seed in seeds:
            chance = random.Random(f"{verb} {seed}")
            label = ""

            def change(answer: Any, chance: random.Random = chance) -> Any:
                nonlocal label
                if chance.random() < 0.25:
                    label, failure = chance.choice(sorted(failures.items(), key=lambda item: item[0]))
                    raise failure
                if isinstance(answer, bytes):
                    label = "cut"
                    return answer[: chance.randrange(len(answer) + 1)]
                label, mutated = mutate(answer, chance)
                return mutated

            service = Service(good(), chance.randrange(healthy.calls), change, always=chance.random() < 0.3)
            limit = MAX_ERROR
            try:
                result = service.run(make())
            except (ServiceError, *also) as error:
                text = str(error)
            except Exception as error:
                where = service.seen[service.broken or 0] if service.seen else ""
                raise AssertionError(f"{verb}, seed {seed}, {label} in {where}: {error!r}") from error
            else:
                text = result.model_dump_json() if isinstance(result, BaseModel) else repr(result)
                limit = MAX_RESULT
            assert len(text) <= limit, f"{verb}, seed {seed}, {label}: {len(text)} characters"
