from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.errors import (
    CreatedUnknownError,
    CredentialsError,
    NotFoundError,
    RateLimitedError,
    RequestRefusedError,
    ServiceError,
    UnavailableError,
    UnsupportedError,
)
from overnight.jobs import FoundJob, JobKey, JobRef, JobState
from overnight.services.create import CLOCK_SKEW, CREATE_TRIES, LOOKUP_WAITS, create_once
from overnight.transport.flow import Flow, Pause

T = TypeVar("T")
KEY = JobKey(dag_id="d", task_id="t", run_id="r", generation=1, fingerprint="0" * 16)
WHAT = f"the job {KEY.name}"

Fate = Literal["answered", "no id", "not JSON", "lost after", "lost before"]
"""What becomes of one creating call: the job is created in all but the last."""
FATES: tuple[Fate, ...] = ("answered", "no id", "not JSON", "lost after", "lost before")


@dataclass
class Listed:
    job: FoundJob
    at: float
    """When it was created, on the transport's clock."""


@dataclass
class Script:
    """A service that is scripted, and the clock that the pauses move."""

    fates: list[Fate] = field(default_factory=lambda: ["answered"])
    lag: float = 0.0
    """Seconds until a created job is listed."""
    clock_off: timedelta = timedelta()
    """How far the service's clock is from ours."""
    list_errors: list[ServiceError | None] = field(default_factory=list)
    """What the first lookups fail with, in turn."""
    jobs: list[Listed] = field(default_factory=list)
    creates: int = 0
    looks: int = 0
    now: float = 0.0

    def run(self, flow: Flow[T]) -> T:
        answer: Any = None
        error: ServiceError | None = None
        try:
            while True:
                call = flow.throw(error) if error is not None else flow.send(answer)
                answer = error = None
                if isinstance(call, Pause):
                    self.now += call.seconds
                    continue
                try:
                    answer = self.create() if call == "create" else self.list(call)
                except ServiceError as raised:
                    error = raised
        except StopIteration as stop:
            value: T = stop.value
            return value

    def create(self) -> str | None:
        fate = self.fates[min(self.creates, len(self.fates) - 1)]
        self.creates += 1
        if fate == "lost before":
            raise UnavailableError("connection refused")
        self.add(KEY)
        match fate:
            case "answered":
                return self.jobs[-1].job.ref.id
            case "no id":
                return None
            case "not JSON":
                raise UnavailableError("not JSON", status=200)
        raise UnavailableError("cut", status=502)

    def add(self, key: JobKey, age: timedelta = timedelta()) -> None:
        created_at = datetime.now(UTC) + self.clock_off - age
        ref = JobRef(service="s", id=f"j{len(self.jobs)}", conn_id="c")
        job = FoundJob.from_name(key.name, key, ref=ref, created_at=created_at, state=JobState.QUEUED)
        assert job is not None
        self.jobs.append(Listed(job, self.now))

    def list(self, since: datetime) -> list[FoundJob]:
        self.looks += 1
        if self.list_errors and (error := self.list_errors.pop(0)) is not None:
            raise error
        return [one.job for one in self.jobs if one.at + self.lag <= self.now and one.job.created_at >= since]

    def create_once(self, **options: Any) -> JobRef:
        return self.run(create_once(_create, _find, KEY, **options))


def _create() -> Flow[JobRef | None]:
    job_id = yield "create"
    return JobRef(service="s", id=job_id, conn_id="c") if job_id else None


def _find(since: datetime) -> Flow[FoundJob | None]:
    listed = yield since
    return max(listed, key=lambda job: job.generation, default=None)


def test_an_answer_with_an_id_needs_no_look() -> None:
    script = Script()
    assert script.create_once().id == "j0"
    assert (script.creates, script.looks) == (1, 0)


def test_a_lost_answer_is_looked_for() -> None:
    script = Script(["lost after"])
    assert script.create_once().id == "j0"
    assert (script.creates, script.looks, script.now) == (1, 1, LOOKUP_WAITS[0])


def test_a_call_that_never_arrived_is_made_again() -> None:
    script = Script(["lost before", "answered"])
    assert script.create_once().id == "j0"
    assert (script.creates, script.looks) == (2, len(LOOKUP_WAITS))


def test_it_gives_up_after_so_many_tries() -> None:
    script = Script(["lost before"])
    with pytest.raises(UnavailableError, match="refused"):
        script.create_once()
    assert (script.creates, script.looks) == (CREATE_TRIES, CREATE_TRIES * len(LOOKUP_WAITS))


@pytest.mark.parametrize("fate", ["no id", "not JSON"])
def test_a_success_without_an_id_is_looked_for_and_found(fate: Fate) -> None:
    script = Script([fate], lag=sum(LOOKUP_WAITS))
    assert script.create_once().id == "j0"
    assert script.creates == 1


@pytest.mark.parametrize("fate", ["no id", "not JSON"])
def test_a_success_without_an_id_that_is_not_listed_is_never_created_again(fate: Fate) -> None:
    script = Script([fate], lag=1e9)
    with pytest.raises(CreatedUnknownError, match="clear the task") as caught:
        script.create_once()
    assert (script.creates, caught.value.retryable) == (1, False)
    assert f"asked to create {WHAT}; " in str(caught.value)
    assert ", and it is not in the service's list. " in str(caught.value)
    assert str(caught.value.__cause__) == ("not JSON" if fate == "not JSON" else "None")


@pytest.mark.parametrize("fate", ["no id", "not JSON", "lost after"])
@pytest.mark.parametrize("error", [UnsupportedError("405"), NotFoundError("404"), RequestRefusedError("400")])
def test_what_cannot_be_looked_for_is_never_created_again(fate: Fate, error: ServiceError) -> None:
    script = Script([fate], list_errors=[error])
    with pytest.raises(CreatedUnknownError, match=f"create {WHAT}; .* cannot be looked for: {error}") as caught:
        script.create_once()
    assert script.creates == 1
    assert isinstance(caught.value.__cause__, UnavailableError) is (fate != "no id")


def test_a_look_without_an_answer_does_not_read_as_absent() -> None:
    script = Script(["lost after"], list_errors=[UnavailableError("down")] * len(LOOKUP_WAITS))
    with pytest.raises(UnavailableError, match="down"):
        script.create_once()
    assert script.creates == 1


def test_a_success_without_an_id_and_without_a_look_is_not_left_to_a_retry() -> None:
    script = Script(["no id"], list_errors=[RateLimitedError("slow")] * len(LOOKUP_WAITS))
    with pytest.raises(CreatedUnknownError, match=f"create {WHAT}; .* cannot be looked for: slow"):
        script.create_once()


@pytest.mark.parametrize(("status", "creates"), [(199, CREATE_TRIES), (200, 1), (299, 1), (300, CREATE_TRIES)])
def test_an_unreadable_answer_was_a_success_when_its_status_was(status: int, creates: int) -> None:
    tried: list[int] = []

    def create() -> Flow[JobRef | None]:
        tried.append(status)
        raise UnavailableError("not JSON", status=status)
        yield

    with pytest.raises(CreatedUnknownError if creates == 1 else UnavailableError):
        Script().run(create_once(create, _find, KEY))
    assert len(tried) == creates


def test_one_failing_look_is_no_end() -> None:
    script = Script(["lost after"], list_errors=[UnavailableError("down"), None])
    assert script.create_once().id == "j0"


def test_credentials_that_expire_during_the_look_are_said() -> None:
    script = Script(["lost after"], list_errors=[CredentialsError("401")])
    with pytest.raises(CredentialsError):
        script.create_once()


@pytest.mark.parametrize("error", [RequestRefusedError("400"), RateLimitedError("429"), CredentialsError("401")])
def test_a_refusal_is_the_callers(error: ServiceError) -> None:
    def refuse() -> Flow[JobRef | None]:
        raise error
        yield

    script = Script()
    with pytest.raises(type(error), match=str(error)):
        script.run(create_once(refuse, _find, KEY))
    assert script.looks == 0


def _create_taken(script: Script) -> JobRef:
    def refuse() -> Flow[JobRef | None]:
        raise RequestRefusedError("exists", code="taken")
        yield

    return script.run(create_once(refuse, _find, KEY, is_taken=lambda error: error.code == "taken"))


def test_a_taken_name_is_looked_for_whatever_its_age() -> None:
    script = Script()
    script.add(KEY, timedelta(days=2))
    assert _create_taken(script).id == "j0"
    with pytest.raises(RequestRefusedError, match="exists"):
        _create_taken(Script())


def test_a_taken_name_that_cannot_be_looked_for_is_said_with_the_refusal() -> None:
    with pytest.raises(CreatedUnknownError, match=f"create {WHAT}; .* cannot be looked for: 405") as caught:
        _create_taken(Script(list_errors=[UnsupportedError("405")]))
    assert str(caught.value.__cause__) == "exists"


def test_a_taken_name_is_looked_for_again_by_a_retry_when_the_list_is_away() -> None:
    with pytest.raises(UnavailableError, match="down"):
        _create_taken(Script(list_errors=[UnavailableError("down")] * len(LOOKUP_WAITS)))


@pytest.mark.parametrize(
    "other", [{"generation": 0}, {"generation": 2}, {"fingerprint": "1" * 16}], ids=lambda change: next(iter(change))
)
def test_another_generation_or_spec_is_not_it(other: dict[str, Any]) -> None:
    script = Script(["lost before", "answered"])
    script.add(KEY.model_copy(update=other))
    assert script.create_once().id == "j1"


def test_an_older_job_is_not_it() -> None:
    script = Script(["lost before", "answered"])
    script.add(KEY, CLOCK_SKEW + timedelta(minutes=5))
    assert script.create_once().id == "j1"


@given(
    fates=st.lists(st.sampled_from(FATES), min_size=1, max_size=4),
    lag=st.sampled_from([0.0, *LOOKUP_WAITS, sum(LOOKUP_WAITS)]),
    minutes=st.integers(-59, 24 * 60),
    list_errors=st.lists(st.sampled_from([None, UnavailableError("down"), RateLimitedError("slow")]), max_size=6),
)
def test_whatever_happens_it_is_paid_once(
    fates: list[Fate], lag: float, minutes: int, list_errors: list[ServiceError | None]
) -> None:
    # The lists lag less than the looks take, and the service's clock is less behind than is allowed for.
    script = Script(fates, lag, timedelta(minutes=minutes), list_errors)
    try:
        ref = script.create_once()
    except (UnavailableError, RateLimitedError, CreatedUnknownError):
        assert len(script.jobs) <= 1
    else:
        assert [one.job.ref for one in script.jobs] == [ref]


@given(fates=st.lists(st.sampled_from(FATES), min_size=1, max_size=4), errors=st.integers(0, 10))
def test_after_a_success_nothing_is_created_even_when_nothing_is_ever_listed(fates: list[Fate], errors: int) -> None:
    script = Script(fates, lag=1e9, list_errors=[UnavailableError("down")] * errors)
    successes: Iterator[int] = (n for n, fate in enumerate([*fates, fates[-1]], 1) if fate in ("no id", "not JSON"))
    first = next(successes, None)
    with contextlib.suppress(UnavailableError, CreatedUnknownError):
        script.create_once()
    assert first is None or script.creates <= first
