"""The order of one try: recall, poll, resume, find, adopt, write the intent, submit, write the reference."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from job_fakes import FakeService, MemoryStore, Spec, client
from overnight.errors import (
    ChangedSpecError,
    JobFailedError,
    NotFoundError,
    RequestRefusedError,
    SpecError,
    UnavailableError,
    UnsupportedError,
)
from overnight.jobs import (
    FoundJob,
    JobCounts,
    JobKey,
    JobRecord,
    JobRef,
    JobState,
    JobStatus,
    ResultManifest,
    choose_found,
)
from overnight.jobs.attach import Attempt, JobOwner
from overnight.jobs.poller import PollEnd, PollOutcome
from overnight.jobs.record import Ending
from overnight.jobs.wait_settings import WaitSettings
from overnight.transport.flow import Flow

THEN = datetime(2026, 11, 1, tzinfo=UTC)
OWNER = JobOwner(dag_id="d", task_id="t", run_id="r", started_at=THEN, max_tries=2)
SPEC = Spec()
FINGERPRINT = SPEC.fingerprint("now")
KEY = OWNER.key(0, FINGERPRINT)
OLD = JobRef(service="fake", id="job-0", conn_id="before")
GONE = NotFoundError("no such job", status=404)


def record(**facts: Any) -> JobRecord:
    facts = {"ref": OLD.model_copy(update={"conn_id": "now"}), "submitted_at": THEN} | facts
    return JobRecord.intent(KEY).model_copy(update={"intent_at": THEN, **facts})


def found(**facts: Any) -> FoundJob:
    facts = {
        "ref": JobRef(service="fake", id="orphan", conn_id="now"),
        "generation": 0,
        "fingerprint": FINGERPRINT,
        "created_at": THEN,
        "state": JobState.RUNNING,
    } | facts
    return FoundJob(**facts)


def status(state: JobState) -> JobStatus:
    return JobStatus(state=state, raw=state.value)


def attempt(service: FakeService, store: MemoryStore | None, **facts: Any) -> Attempt[Spec]:
    owner = facts.pop("owner", OWNER)
    connect = facts.pop("connect", None)
    settings = WaitSettings.parse(**facts)
    return Attempt(owner, client(service), store, settings=settings, log=logging.getLogger(__name__), connect=connect)


def test_the_intent_is_written_before_the_submit_and_the_reference_after_it() -> None:
    events: list[Any] = []
    attempt(FakeService(events=events), MemoryStore(events=events)).attach_or_submit(SPEC)
    assert [event[0] for event in events] == ["find", "set", "submit", "set"]
    assert (events[1][1].ref, events[1][1].generation) == (None, 0)
    assert events[3][1].job.id == "job-0"


def test_a_submit_that_fails_leaves_the_intent() -> None:
    class Refusing(FakeService):
        def submit(self, spec: Spec, key: JobKey) -> Any:
            raise UnavailableError("503")
            yield

    store = MemoryStore()
    with pytest.raises(UnavailableError):
        attempt(Refusing(), store).attach_or_submit(SPEC)
    kept = store.get()
    assert kept is not None
    assert (kept.ref, kept.key) == (None, KEY)


def test_what_the_service_calls_the_input_is_written_down_before_the_job_is_created() -> None:
    class Dying(FakeService):
        def submit(self, spec: Spec, key: JobKey) -> Any:
            assert self.on_upload is not None
            self.on_upload("file-1")
            raise KeyboardInterrupt
            yield

    service, store = Dying(), MemoryStore()
    with pytest.raises(KeyboardInterrupt):
        attempt(service, store).attach_or_submit(SPEC)
    kept = store.get()
    assert kept is not None
    assert (kept.ref, kept.input_id) == (None, "file-1")
    with pytest.raises(KeyboardInterrupt):
        attempt(service, store).attach_or_submit(SPEC)
    remembered = service.asked("find")[-1][3]
    assert remembered.input_id == "file-1"


def test_the_service_is_given_what_the_task_remembers() -> None:
    service = FakeService()
    intent = record(ref=None, submitted_at=None)
    attempt(service, MemoryStore(intent)).attach_or_submit(SPEC)
    assert service.asked("find")[0][1] == KEY
    assert service.asked("find")[0][3] == intent


@pytest.mark.parametrize("hours", [-5, 5])
def test_the_search_begins_at_the_intent_or_at_the_start_whichever_is_earlier(hours: int) -> None:
    service = FakeService()
    intent_at = THEN + timedelta(hours=hours)
    attempt(service, MemoryStore(record(ref=None, submitted_at=None, intent_at=intent_at))).attach_or_submit(SPEC)
    assert service.asked("find")[0][2] == min(THEN, intent_at)


def test_a_job_on_record_is_asked_for_through_the_connection_that_submitted_it() -> None:
    present, before = FakeService(), FakeService(conn_id="before")
    connected: list[JobRef] = []

    def connect(ref: JobRef) -> Any:
        connected.append(ref)
        return client(before)

    settled = attempt(present, MemoryStore(record(ref=OLD)), connect=connect)
    assert settled.attach_or_submit(SPEC).job == OLD
    assert connected == [OLD]
    assert before.asked("status") == [("status", OLD)]
    assert present.events == []


def test_a_job_of_another_connection_is_not_asked_for_through_this_one() -> None:
    service = FakeService()
    with pytest.raises(RequestRefusedError, match="'before'"):
        attempt(service, MemoryStore(record(ref=OLD))).attach_or_submit(SPEC)
    assert service.events == []


def test_a_restart_cancels_the_orphan_that_it_replaces() -> None:
    service = FakeService(found=found(fingerprint="b" * 16))
    submitted = attempt(service, MemoryStore(), on_changed_spec="restart").attach_or_submit(SPEC)
    assert submitted.generation == 1
    assert [event[0] for event in service.events] == ["find", "cancel", "submit"]
    assert service.asked("cancel")[0][1].id == "orphan"


def test_a_restart_cancels_a_job_that_is_on_record_and_listed_once() -> None:
    on_record = record(fingerprint="b" * 16)
    service = FakeService(found=found(ref=on_record.job, fingerprint="b" * 16))
    attempt(service, MemoryStore(on_record), on_changed_spec="restart").attach_or_submit(SPEC)
    assert service.asked("cancel") == [("cancel", on_record.job)]


@pytest.mark.parametrize("state", [JobState.PARTIAL, JobState.SUCCEEDED])
def test_a_job_that_is_over_can_make_room_for_another_spec_where_a_live_one_cannot(state: JobState) -> None:
    on_record = record(fingerprint="b" * 16)
    service = FakeService(JobStatus(state=state, raw=state))
    submitted = attempt(service, MemoryStore(on_record), on_changed_spec="restart_ended").attach_or_submit(SPEC)
    assert submitted.generation == on_record.generation + 1
    assert service.asked("cancel") == []
    live = FakeService()
    for store, policy in ((MemoryStore(on_record), "restart_ended"), (MemoryStore(on_record), "fail")):
        with pytest.raises(ChangedSpecError):
            attempt(live, store, on_changed_spec=policy).attach_or_submit(SPEC)
    assert live.asked("submit") == []


def test_a_restart_cancels_a_job_on_record_that_the_list_lacks() -> None:
    on_record = record(fingerprint="b" * 16)
    service = FakeService()
    attempt(service, MemoryStore(on_record), on_changed_spec="restart").attach_or_submit(SPEC)
    assert [event[0] for event in service.events] == ["status", "find", "cancel", "submit"]
    assert service.asked("cancel") == [("cancel", on_record.job)]


def test_an_orphan_with_another_spec_is_not_submitted_beside() -> None:
    service = FakeService(found=found(fingerprint="b" * 16))
    with pytest.raises(ChangedSpecError):
        attempt(service, MemoryStore()).attach_or_submit(SPEC)
    assert service.asked("submit") == []


def test_a_live_orphan_of_an_earlier_generation_is_gone_on_with() -> None:
    service = FakeService(GONE, found=found())
    attached = attempt(service, MemoryStore(record(answered=True))).attach_or_submit(SPEC)
    assert (attached.job.id, attached.generation) == ("orphan", 0)
    assert service.asked("submit") == []


def test_one_404_is_no_loss() -> None:
    service = FakeService(GONE, status(JobState.RUNNING))
    assert attempt(service, MemoryStore(record())).attach_or_submit(SPEC).job.id == "job-0"
    assert service.asked("submit") == []


def test_a_job_that_the_list_shows_is_not_lost_whatever_its_address_answers() -> None:
    service = FakeService(GONE, found=found(ref=record().job))
    with pytest.raises(UnavailableError, match="lists fake job job-0 as running"):
        attempt(service, MemoryStore(record(answered=True))).attach_or_submit(SPEC)
    assert service.asked("submit") == []


def test_a_wrong_address_costs_no_second_job_and_leaves_the_record() -> None:
    service = FakeService(GONE, found=NotFoundError("no such path", status=404))
    store = MemoryStore(record(answered=True))
    with pytest.raises(RequestRefusedError, match="address is wrong"):
        attempt(service, store).attach_or_submit(SPEC)
    assert store.get() == record(answered=True)


@pytest.mark.parametrize("refusal", [RequestRefusedError("no", status=400), UnsupportedError("405", status=405)])
def test_a_service_without_a_list_can_lose_a_job_all_the_same(refusal: Exception) -> None:
    class Listless(FakeService):
        def find(self, *arguments: Any) -> Any:
            if self.asked("status")[-1][1] == record().job and len(self.asked("status")) < 5:
                self.events.append(("find", *arguments))
                raise refusal
            return None
            yield

    service = Listless(GONE)
    service.statuses = [GONE]
    with pytest.raises(RequestRefusedError):
        # Never answered before: final. The refused list did not count as an answer.
        attempt(service, MemoryStore(record())).attach_or_submit(SPEC)
    assert len(service.asked("status")) == 4


def test_a_job_that_was_never_known_is_final_and_clearing_the_task_submits_again() -> None:
    service, store = FakeService(GONE), MemoryStore(record())
    with pytest.raises(RequestRefusedError, match="Nothing new was submitted"):
        attempt(service, store).attach_or_submit(SPEC)
    assert service.asked("submit") == []
    kept = store.get()
    assert kept is not None
    assert (kept.ending, kept.ended_with) == (Ending.FINISHED, 2)
    cleared = JobOwner(dag_id="d", task_id="t", run_id="r", started_at=THEN, max_tries=3)
    assert attempt(service, store, owner=cleared).attach_or_submit(SPEC).generation == 1


def test_a_job_that_was_known_and_is_gone_is_submitted_again() -> None:
    service = FakeService(GONE)
    assert attempt(service, MemoryStore(record(answered=True))).attach_or_submit(SPEC).generation == 1


def test_expensive_checks_are_made_before_a_submit_and_only_then() -> None:
    checked: list[Spec] = []

    def prepare(spec: Spec) -> Spec:
        checked.append(spec)
        return spec

    store = MemoryStore()
    attempt(FakeService(), store).attach_or_submit(SPEC, prepare)
    attempt(FakeService(), store).attach_or_submit(SPEC, prepare)
    assert checked == [SPEC]


def test_what_the_checks_refuse_is_neither_submitted_nor_intended_and_nothing_is_abandoned() -> None:
    def prepare(spec: Spec) -> Spec:
        raise SpecError("line 3 is bad")

    service, store = FakeService(found=found(fingerprint="b" * 16)), MemoryStore()
    with pytest.raises(SpecError, match="line 3"):
        attempt(service, store, on_changed_spec="restart").attach_or_submit(SPEC, prepare)
    assert [event[0] for event in service.events] == ["find"]
    assert store.get() is None


def test_an_attached_job_is_known_to_its_service() -> None:
    store = MemoryStore(record())
    assert attempt(FakeService(), store).attach_or_submit(SPEC).answered


@pytest.mark.parametrize("first", [status(JobState.QUEUED), UnavailableError("503"), GONE])
def test_the_first_poll_of_a_new_job_tells_whether_a_later_404_is_a_loss(first: Any) -> None:
    store = MemoryStore()
    service = FakeService(first)
    settled = attempt(service, store)
    settled.poll_first(settled.attach_or_submit(SPEC))
    kept = store.get()
    assert kept is not None
    assert kept.answered is (not isinstance(first, Exception))


def test_a_failed_job_leaves_where_its_results_are() -> None:
    store = MemoryStore()
    settled = attempt(FakeService(), store)
    outcome = PollOutcome(PollEnd.ENDED, JobStatus(state=JobState.PARTIAL, raw="p"), answered=True)
    conclusion = settled.conclude(settled.attach_or_submit(SPEC), outcome)
    assert isinstance(conclusion.error, JobFailedError)
    assert conclusion.results is not None
    kept = store.get()
    assert kept is not None
    assert (kept.ending, kept.answered) == (None, True)


def test_without_records_nothing_is_recalled_or_looked_for() -> None:
    service = FakeService(found=found())
    attempt(service, None).attach_or_submit(SPEC)
    assert [event[0] for event in service.events] == ["submit"]


def test_without_records_the_checks_are_made_all_the_same() -> None:
    checked: list[Spec] = []

    def prepare(spec: Spec) -> Spec:
        checked.append(spec)
        return spec

    attempt(FakeService(), None).attach_or_submit(SPEC, prepare)
    assert checked == [SPEC]


def test_a_job_that_runs_with_another_spec_is_left_alone() -> None:
    service = FakeService()
    with pytest.raises(ChangedSpecError):
        attempt(service, MemoryStore(record(fingerprint="b" * 16))).attach_or_submit(SPEC)
    assert [event[0] for event in service.events] == ["status"]


@pytest.mark.parametrize(("max_tries", "generation"), [(2, 0), (3, 1)])
def test_a_retry_of_a_success_attaches_and_clearing_it_submits(max_tries: int, generation: int) -> None:
    store = MemoryStore(record(ending=Ending.ACCEPTED, ended_with=2))
    owner = JobOwner(dag_id="d", task_id="t", run_id="r", started_at=THEN, max_tries=max_tries)
    service = FakeService(status(JobState.SUCCEEDED))
    assert attempt(service, store, owner=owner).attach_or_submit(SPEC).generation == generation


CLEARED = JobOwner(dag_id="d", task_id="t", run_id="r", started_at=THEN, max_tries=3)


class Finished(FakeService):
    """Has a job that is over, with results of so many items."""

    def __init__(self, seen: JobStatus, results: int | Exception | None) -> None:
        super().__init__(seen)
        self.kept = results

    def results(self, ref: JobRef) -> Flow[ResultManifest]:
        self.events.append(("results", ref))
        if isinstance(self.kept, Exception):
            raise self.kept
        return ResultManifest(ref=ref, counts=JobCounts(total=9, succeeded=self.kept))
        yield


def start_again(
    service: FakeService, on_clear: str = "reuse", *, owner: JobOwner = CLEARED, **facts: Any
) -> tuple[JobRecord, MemoryStore]:
    store = MemoryStore(record(**{"ending": Ending.ACCEPTED, "ended_with": 2, "succeeded": 7, **facts}))
    return attempt(service, store, owner=owner, on_clear=on_clear).attach_or_submit(SPEC), store


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.PARTIAL, JobState.EXPIRED])
@pytest.mark.parametrize("ending", [Ending.ACCEPTED, Ending.HANDED_OVER])
@pytest.mark.parametrize("kept", [7, 9, None])
def test_a_cleared_task_can_go_on_with_its_results(state: JobState, ending: Ending, kept: int | None) -> None:
    service = Finished(status(state), kept)
    attached, store = start_again(service, ending=ending)
    assert (attached.job.id, attached.generation, attached.ending) == ("job-0", 0, None)
    assert store.get() == attached
    assert service.asked("submit") == service.asked("find") == []


@pytest.mark.parametrize("ending", [Ending.ACCEPTED, Ending.HANDED_OVER])
def test_it_submits_anew_unless_it_is_asked_to_reuse(ending: Ending) -> None:
    service = Finished(status(JobState.SUCCEEDED), 9)
    assert start_again(service, "resubmit", ending=ending)[0].generation == 1
    assert service.asked("results") == []


@pytest.mark.parametrize("kept", [6, 0, GONE])
def test_it_submits_anew_when_results_are_gone(kept: int | Exception, caplog: pytest.LogCaptureFixture) -> None:
    assert start_again(Finished(status(JobState.SUCCEEDED), kept))[0].generation == 1
    assert "are gone" in caplog.text


def test_it_submits_anew_when_results_have_expired() -> None:
    past = status(JobState.SUCCEEDED).model_copy(update={"results_expire_at": THEN})
    assert start_again(Finished(past, 9))[0].generation == 1
    future = past.model_copy(update={"results_expire_at": datetime.now(UTC) + timedelta(hours=1)})
    assert start_again(Finished(future, 9))[0].generation == 0


@pytest.mark.parametrize(
    ("seen", "facts"),
    [
        (JobState.SUCCEEDED, {"ending": Ending.FINISHED}),  # its task failed for it
        (JobState.SUCCEEDED, {"fingerprint": "b" * 16}),  # another spec
        (JobState.FAILED, {}),
        (JobState.CANCELLED, {}),
    ],
)
def test_only_a_success_with_the_same_spec_is_reused(seen: JobState, facts: dict[str, Any]) -> None:
    service = Finished(status(seen), 9)
    assert start_again(service, **facts)[0].generation == 1
    assert service.asked("results") == []


def test_a_job_that_the_service_forgot_is_not_reused() -> None:
    service = FakeService(GONE)
    assert start_again(service)[0].generation == 1


def test_when_nobody_can_say_whether_results_are_there_nothing_is_submitted() -> None:
    service = Finished(status(JobState.SUCCEEDED), UnavailableError("busy"))
    with pytest.raises(UnavailableError):
        start_again(service)
    assert service.asked("submit") == []


def test_the_connection_that_submitted_is_asked_for_the_results() -> None:
    before = Finished(status(JobState.SUCCEEDED), 9)
    now = FakeService()
    store = MemoryStore(record(ref=OLD, ending=Ending.ACCEPTED, ended_with=2, succeeded=7))
    asked = attempt(now, store, owner=CLEARED, on_clear="reuse", connect=lambda _: client(before))
    assert asked.attach_or_submit(SPEC).job == OLD
    assert len(before.asked("results")) == 1


def test_how_many_results_there_were_is_written_down() -> None:
    store = MemoryStore()
    done = JobStatus(state=JobState.SUCCEEDED, raw="", counts=JobCounts(total=9, succeeded=8))
    attempt(FakeService(), store).conclude(record(), PollOutcome(PollEnd.ENDED, done))
    assert store.get().succeeded == 8  # type: ignore[union-attr]
    attempt(Finished(done, 9), store).conclude(record(), PollOutcome(PollEnd.ENDED, done))
    assert store.get().succeeded == 9  # type: ignore[union-attr]


def test_a_key_names_its_owner() -> None:
    owner = JobOwner(dag_id="d", task_id="t", run_id="r", started_at=THEN, map_index=7)
    assert owner.key(3, FINGERPRINT) == JobKey(
        dag_id="d", task_id="t", run_id="r", map_index=7, generation=3, fingerprint=FINGERPRINT
    )


def test_an_attached_job_is_recorded_as_what_it_is() -> None:
    store = MemoryStore()
    attached = attempt(FakeService(found=found(generation=2)), store).attach_or_submit(SPEC)
    assert attached == store.get()
    assert (attached.key, attached.submitted_at, attached.intent_at) == (OWNER.key(2, FINGERPRINT), THEN, THEN)


def test_what_the_task_does_with_its_job_is_written_down() -> None:
    store = MemoryStore()
    settled = attempt(FakeService(), store)
    assert settled.defer(record()) == store.get() == record(deferred_with=2)
    settled.accept(record())
    assert store.get() == record(ending=Ending.ACCEPTED, ended_with=2)


def test_a_job_that_was_answered_before_is_not_polled_first() -> None:
    service = FakeService()
    assert attempt(service, MemoryStore()).poll_first(record(answered=True)) == record(answered=True)
    assert service.events == []


def test_a_handed_over_job_has_that_ending() -> None:
    store = MemoryStore()
    settled = attempt(FakeService(), store)
    settled.hand_over(settled.attach_or_submit(SPEC))
    kept = store.get()
    assert kept is not None
    assert (kept.ending, kept.ended_with) == (Ending.HANDED_OVER, 2)


class TestChooseFound:
    def test_the_newest_of_the_generation_asked_for_or_later(self) -> None:
        jobs = [found(generation=n, state=JobState.FAILED) for n in (1, 3, 2)]
        assert choose_found(jobs, OWNER.key(2, FINGERPRINT)) == jobs[1]

    def test_a_live_one_of_an_earlier_generation_before_one_that_is_over(self) -> None:
        jobs = [found(generation=0), found(generation=1, state=JobState.FAILED)]
        assert choose_found(jobs, OWNER.key(2, FINGERPRINT)) == jobs[0]

    def test_the_very_job_before_an_earlier_one_that_lives(self) -> None:
        jobs = [found(generation=0), found(generation=2, state=JobState.FAILED)]
        assert choose_found(jobs, OWNER.key(2, FINGERPRINT)) == jobs[1]

    def test_the_one_with_the_spec_asked_for(self) -> None:
        jobs = [found(fingerprint="f" * 16), found(), found(fingerprint="0" * 16)]
        assert choose_found(jobs, KEY) == jobs[1]

    def test_nothing_is_chosen_from_nothing(self) -> None:
        assert choose_found([], KEY) is None
