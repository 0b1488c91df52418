from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.errors import (
    ChangedSpecError,
    CredentialsError,
    DeadlineExceededError,
    JobCancelledError,
    JobFailedError,
    JobLostError,
    NotFoundError,
    RateLimitedError,
    RequestRefusedError,
    TransientError,
    UnavailableError,
)
from overnight.jobs import FailureCause, FoundJob, JobCounts, JobError, JobKey, JobRef, JobState, JobStatus
from overnight.jobs.allowance import Allowance
from overnight.jobs.evaluate import evaluate, evaluate_for_watcher
from overnight.jobs.poller import PollEnd, Poller, PollOutcome, Wait
from overnight.jobs.record import Ending, JobRecord
from overnight.jobs.resume import Attach, Submit, adopt, resume

REF = JobRef(service="openai", id="batch_1", conn_id="openai_default")
SPEC, OTHER = "a" * 16, "b" * 16
THEN = datetime(2026, 11, 1, tzinfo=UTC)

states = st.sampled_from(JobState)


def status(state: JobState, **facts: object) -> JobStatus:
    return JobStatus(state=state, raw=str(state), **facts)


def record(**facts: object) -> JobRecord:
    facts = {"generation": 3, "fingerprint": SPEC, "intent_at": THEN, "ref": REF, "submitted_at": THEN} | facts
    return JobRecord(**facts)


def key(generation: int) -> JobKey:
    return JobKey(dag_id="d", task_id="t", run_id="r", generation=generation, fingerprint=SPEC)


def found(**facts: object) -> FoundJob:
    facts = {
        "ref": REF,
        "generation": 3,
        "fingerprint": SPEC,
        "created_at": THEN,
        "state": JobState.RUNNING,
    } | facts
    return FoundJob(**facts)


class TestResume:
    def test_a_task_without_a_record_submits_the_first_generation(self):
        assert resume(None, None, SPEC) == Submit(0, "this task has submitted no job yet")

    def test_an_intent_that_was_not_carried_out_keeps_its_generation(self):
        step = resume(record(ref=None, submitted_at=None), None, SPEC)
        assert isinstance(step, Submit)
        assert step.generation == 3

    @given(states.filter(lambda state: not state.is_stopped))
    def test_a_retry_attaches_to_the_job_of_the_try_before_it(self, state: JobState):
        step = resume(record(), status(state), SPEC)
        assert isinstance(step, Attach)
        assert (step.ref, step.generation, step.submitted_at) == (REF, 3, THEN)

    @given(states.filter(lambda state: state.is_stopped), st.sampled_from([SPEC, OTHER]))
    def test_a_cancelled_job_is_followed_by_a_new_generation(self, state: JobState, fingerprint: str):
        step = resume(record(), status(state), fingerprint)
        assert isinstance(step, Submit)
        assert (step.generation, step.abandon) == (4, None)

    @given(st.none() | states.map(status), st.sampled_from([SPEC, OTHER]))
    def test_clearing_a_finished_task_starts_a_new_generation(self, seen: JobStatus | None, fingerprint: str):
        for ending in (Ending.FINISHED, Ending.ACCEPTED):
            step = resume(record(ending=ending, ended_with=2), seen, fingerprint, max_tries=3)
            assert isinstance(step, Submit)
            assert step.generation == 4

    @pytest.mark.parametrize("ending", [Ending.ACCEPTED, Ending.HANDED_OVER])
    def test_a_retry_of_a_success_that_airflow_never_heard_of_attaches(self, ending: Ending):
        step = resume(record(ending=ending, ended_with=2), status(JobState.SUCCEEDED), SPEC, max_tries=2)
        assert isinstance(step, Attach)
        assert step.ref == REF

    def test_a_retry_of_a_failure_has_a_job_of_its_own(self):
        step = resume(record(ending=Ending.FINISHED, ended_with=2), status(JobState.EXPIRED), SPEC, max_tries=2)
        assert isinstance(step, Submit)

    def test_a_job_that_the_service_lost_is_followed_by_a_new_generation(self):
        step = resume(record(answered=True), None, SPEC)
        assert isinstance(step, Submit)
        assert step.generation == 4

    def test_a_job_that_the_service_never_knew_is_not_followed_by_another(self):
        with pytest.raises(RequestRefusedError, match="another address or account"):
            resume(record(), None, SPEC)

    def test_a_job_that_was_handed_over_is_attached_to_while_it_lives(self):
        assert isinstance(resume(record(ending=Ending.HANDED_OVER), status(JobState.RUNNING), SPEC), Attach)
        over = resume(record(ending=Ending.HANDED_OVER), status(JobState.SUCCEEDED), SPEC)
        assert isinstance(over, Submit)

    def test_a_changed_spec_is_refused_and_says_what_to_do(self):
        with pytest.raises(ChangedSpecError, match="on_changed_spec='restart'"):
            resume(record(), status(JobState.RUNNING), OTHER)

    def test_a_changed_spec_restarts_when_asked_and_abandons_only_a_live_job(self):
        live = resume(record(), status(JobState.RUNNING), OTHER, "restart")
        over = resume(record(), status(JobState.FAILED), OTHER, "restart")
        assert isinstance(live, Submit)
        assert isinstance(over, Submit)
        assert (live.generation, live.abandon) == (4, REF)
        assert (over.generation, over.abandon) == (4, None)


class TestAdopt:
    def test_an_earlier_generation_that_lives_is_adopted(self):
        step = adopt(found(generation=2), 3, SPEC)
        assert isinstance(step, Attach)
        assert (step.ref, step.generation) == (REF, 2)

    def test_an_earlier_generation_that_lives_with_another_spec_is_refused_or_abandoned(self):
        with pytest.raises(ChangedSpecError):
            adopt(found(generation=2), 4, OTHER)
        step = adopt(found(generation=2), 4, OTHER, "restart")
        assert isinstance(step, Submit)
        assert (step.generation, step.abandon) == (4, REF)

    def test_nothing_found_means_submit(self):
        step = adopt(None, 2, SPEC)
        assert isinstance(step, Submit)
        assert step.generation == 2

    def test_a_job_that_died_between_answer_and_record_is_adopted(self):
        step = adopt(found(), 3, SPEC)
        assert isinstance(step, Attach)
        assert (step.ref, step.generation, step.submitted_at) == (REF, 3, THEN)

    @pytest.mark.parametrize("state", [state for state in JobState if state.is_terminal or state.is_stopped])
    def test_an_earlier_generation_that_is_over_is_history(self, state: JobState):
        step = adopt(found(generation=2, state=state), 3, SPEC)
        assert isinstance(step, Submit)
        assert step.generation == 3

    @pytest.mark.parametrize("state", [JobState.CANCELLED, JobState.CANCELLING])
    def test_a_cancelled_orphan_is_passed_over(self, state: JobState):
        step = adopt(found(state=state), 3, SPEC)
        assert isinstance(step, Submit)
        assert step.generation == 4

    def test_an_orphan_with_another_spec_is_refused_or_abandoned(self):
        with pytest.raises(ChangedSpecError):
            adopt(found(), 3, OTHER)
        step = adopt(found(), 3, OTHER, "restart")
        assert isinstance(step, Submit)
        assert (step.generation, step.abandon) == (4, REF)


class TestRecord:
    @given(st.sampled_from([None, *Ending]), st.integers(0, 9))
    def test_survives_the_state_store(self, ending: Ending | None, generation: int):
        kept = record(ending=ending, generation=generation)
        assert JobRecord.model_validate(kept.model_dump(mode="json")) == kept

    def test_an_uncarried_intent_keeps_the_time_from_which_its_orphan_is_searched(self):
        former = record(ref=None, submitted_at=None)
        assert JobRecord.intent(key(3), former).intent_at == THEN
        assert JobRecord.intent(key(4), former).intent_at > THEN
        assert JobRecord.intent(key(3), record()).intent_at > THEN

    def test_an_intent_has_no_job(self):
        with pytest.raises(ValueError, match="intent"):
            _ = JobRecord.intent(key(0)).job


class TestPoller:
    def poller(self, **facts: float | None) -> Poller:
        return Poller(REF, **({"poll_interval": 60.0, "deadline": 10_000.0, "patience": 600.0} | facts))

    @given(states.filter(lambda state: state.is_terminal), st.floats(0, 20_000))
    def test_an_end_is_an_end_even_after_the_deadline(self, state: JobState, now: float):
        seen = status(state)
        assert self.poller().on_status(seen, now) == PollOutcome(PollEnd.ENDED, seen, answered=True)

    @given(states.filter(lambda state: not state.is_terminal), st.floats(0, 9_999))
    def test_waits_about_an_interval_and_never_past_the_deadline(self, state: JobState, now: float):
        step = self.poller().on_status(status(state), now)
        assert isinstance(step, Wait)
        assert 0 < step.seconds <= min(66.0, 10_000.0 - now)

    def test_the_deadline_ends_it_between_polls_and_between_failures(self):
        assert self.poller().on_status(status(JobState.RUNNING), 10_000.0).end is PollEnd.DEADLINE
        assert self.poller().on_error(UnavailableError("no"), 10_000.0).end is PollEnd.DEADLINE

    def test_without_a_deadline_it_goes_on(self):
        assert isinstance(self.poller(deadline=None).on_status(status(JobState.RUNNING), 1e12), Wait)

    @given(st.floats(1, 590))
    def test_transient_failures_are_borne_for_as_long_as_patience_lasts(self, later: float):
        poller = self.poller()
        assert isinstance(poller.on_error(UnavailableError("no"), 0.0), Wait)
        assert isinstance(poller.on_error(UnavailableError("no"), later), Wait)
        assert poller.on_error(UnavailableError("no"), 600.0).end is PollEnd.SILENT

    def test_an_answer_renews_patience(self):
        poller = self.poller()
        poller.on_error(UnavailableError("no"), 0.0)
        poller.on_status(status(JobState.RUNNING), 599.0)
        assert isinstance(poller.on_error(UnavailableError("no"), 601.0), Wait)

    def test_backs_off_and_honours_retry_after(self):
        poller = self.poller(patience=1e9, deadline=None)
        waits = [poller.on_error(UnavailableError("no"), float(n)).seconds for n in range(8)]
        assert waits[3] > 2 * waits[0]
        assert max(waits) <= Poller.MAX_BACKOFF * 1.1
        asked = self.poller(poll_interval=1.0).on_error(RateLimitedError("slow", retry_after=300.0), 0.0)
        assert asked.seconds >= 270.0

    def test_the_back_off_doubles_up_to_its_limit(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("random.uniform", lambda low, _high: low)
        poller = self.poller(patience=1e9, deadline=None)
        waits = [poller.on_error(UnavailableError("no"), float(n)).seconds for n in range(6)]
        assert waits == [0.9 * seconds for seconds in (60, 120, 240, 480, 600, 600)]
        quick = self.poller(patience=1e9, deadline=None, poll_interval=2.0**-8)
        waits = [quick.on_error(UnavailableError("no"), float(n)).seconds for n in range(20)]
        assert (waits[0], waits[-1]) == (0.9 * 2.0**-8, 0.9 * 2.0**8)

    def test_a_wait_is_random_by_a_tenth_and_as_long_as_the_service_asks(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("random.uniform", lambda low, high: 10 * low + high)
        assert self.poller().on_status(status(JobState.RUNNING), 0.0).seconds == pytest.approx(60 * 10.1)
        asked = status(JobState.RUNNING, poll_after=70.0)
        assert self.poller().on_status(asked, 0.0).seconds == pytest.approx(70 * 10.1)
        assert self.poller(poll_interval=0.5).on_status(status(JobState.RUNNING), 0.0).seconds == pytest.approx(5.05)

    def test_the_last_wait_ends_on_the_deadline_and_its_passing_is_said(self):
        assert self.poller().on_status(status(JobState.RUNNING), 9_990.0).seconds == 10.0
        over = self.poller().on_status(status(JobState.RUNNING), 10_000.0)
        assert over.message == "openai job batch_1 was not over by its deadline, 1970-01-01T02:46:40+00:00."
        assert Poller(REF, poll_interval=1.0).get_seconds_left(0.0) == 3_600.0

    def test_a_status_is_news_when_it_changes_and_every_hour(self):
        poller = self.poller()
        running, queued = status(JobState.RUNNING), status(JobState.QUEUED)
        seen = [(running, 0.0), (running, 3_599.0), (running, 3_600.0), (queued, 3_601.0), (queued, 7_200.0)]
        assert [poller.is_news(*one) for one in seen] == [True, False, True, True, False]

    def test_moving_counts_are_news_at_each_tenth_and_at_the_first_failure(self):
        poller = self.poller()

        def is_news(succeeded: int, failed: int = 0) -> bool:
            counts = JobCounts(total=1_000, succeeded=succeeded, failed=failed)
            return poller.is_news(status(JobState.RUNNING, counts=counts), float(succeeded))

        assert [done for done in range(1_001) if is_news(done)] == list(range(0, 1_001, 100))
        assert [is_news(901, failed) for failed in (1, 2)] == [True, False]
        shares = [0.0, 0.01, 0.09, 0.1, 0.19, 0.2, 1.0]
        news = [poller.is_news(status(JobState.RUNNING, progress=share), 0.0) for share in shares]
        assert news == [True, False, False, True, False, True, True]

    def test_another_error_or_warning_of_the_job_is_news(self):
        poller = self.poller()
        seen = [{}, {"errors": (JobError(message="no"),)}, {"warnings": ("odd",)}, {"warnings": ("odd", "odder")}]
        twice = [poller.is_news(status(JobState.RUNNING, **facts), 0.0) for facts in seen for _ in range(2)]
        assert twice == [True, False] * 4

    def test_a_failing_poll_is_news_when_it_fails_in_another_way_and_every_hour(self):
        poller = self.poller()
        busy, down = UnavailableError("request 1", status=503), UnavailableError("request 2", status=500)
        seen = [(busy, 0.0), (UnavailableError("request 3", status=503), 60.0), (down, 61.0), (down, 3_660.0)]
        assert [poller.is_error_news(*one) for one in seen] == [True, False, True, False]
        assert poller.is_error_news(down, 3_661.0)
        running = status(JobState.RUNNING)
        assert [poller.is_news(running, now) for now in (3_662.0, 3_663.0)] == [True, False]
        assert poller.is_error_news(down, 3_664.0)

    def test_an_answer_ends_the_back_off(self):
        poller = self.poller(patience=1e9, deadline=None, poll_interval=1.0)
        for n in range(8):
            poller.on_error(UnavailableError("no"), float(n))
        poller.on_status(status(JobState.RUNNING), 8.0)
        assert poller.on_error(UnavailableError("no"), 9.0).seconds <= 1.1

    @pytest.mark.parametrize("gone", [404, 410])
    def test_a_job_that_never_answered_is_unknown_and_not_lost(self, gone: int):
        assert self.poller().on_error(NotFoundError("gone", status=gone), 0.0).end is PollEnd.UNKNOWN
        poller = self.poller()
        poller.on_status(status(JobState.RUNNING), 0.0)
        over = poller.on_error(NotFoundError("gone", status=gone), 1.0)
        assert (over.end, over.answered) == (PollEnd.LOST, True)

    def test_the_end_of_the_try_leaves_the_deadline_alone(self):
        poller = self.poller(try_until=100.0)
        assert poller.on_status(status(JobState.RUNNING), 99.0).seconds == 1.0
        assert poller.on_status(status(JobState.RUNNING), 100.0).end is PollEnd.TRY_TIMEOUT
        assert poller.on_error(UnavailableError("no"), 10_000.0).end is PollEnd.DEADLINE

    def test_a_call_may_take_as_long_as_the_deadline_leaves_or_silence_is_tolerated(self):
        assert self.poller().get_seconds_left(9_990.0) == 10.0
        assert self.poller(try_until=5_000.0).get_seconds_left(4_995.0) == 5.0
        assert self.poller(deadline=None).get_seconds_left(0.0) == 600.0
        assert self.poller(deadline=None, patience=0.0).get_seconds_left(0.0) == 60.0
        assert self.poller().get_seconds_left(20_000.0) == 1.0

    def test_a_job_that_has_not_moved_for_hours_is_reported_once_until_it_moves(self):
        poller, hour = self.poller(), 3_600.0
        moved = status(JobState.RUNNING, counts=JobCounts(total=9, succeeded=1))
        stalls = [poller.get_stall(status(JobState.RUNNING), n * hour) for n in range(6)]
        stalls += [poller.get_stall(moved, n * hour) for n in range(6, 11)]
        assert stalls == [None] * 3 + [3 * hour] + [None] * 2 + [None] * 3 + [3 * hour] + [None]

    @pytest.mark.parametrize(
        ("error", "end"),
        [
            (CredentialsError("who?", status=401), PollEnd.REFUSED),
            (CredentialsError("no", status=403), PollEnd.REFUSED),
            (RequestRefusedError("what?", status=400), PollEnd.REFUSED),
            (NotFoundError("gone", status=404), PollEnd.LOST),
            (NotFoundError("gone for good", status=410), PollEnd.LOST),
        ],
    )
    def test_a_refusal_ends_it_at_once(self, error, end):
        over = self.poller(answered=True).on_error(error, 0.0)
        assert over.end is end
        assert str(error) in over.message


class TestEvaluate:
    def evaluate(self, state: JobState, allowed: float | str = 0, **facts: object):
        return evaluate(REF, PollOutcome(PollEnd.ENDED, status(state, **facts)), Allowance.parse(allowed))

    def test_success_releases_the_job(self):
        evaluation = self.evaluate(JobState.SUCCEEDED)
        assert evaluation.error is None
        assert evaluation.releases_job

    @given(st.integers(0, 20), st.integers(0, 20))
    def test_allowed_failures_decide_over_a_partial_job(self, failed: int, allowed: int):
        counts = JobCounts(total=20, succeeded=20 - failed, failed=failed)
        evaluation = self.evaluate(JobState.PARTIAL, allowed, counts=counts)
        assert (evaluation.error is None) == (failed <= allowed)

    def test_a_partial_job_that_was_refused_is_kept_for_the_next_run(self):
        evaluation = self.evaluate(JobState.PARTIAL, counts=JobCounts(total=2, succeeded=1, failed=1))
        assert isinstance(evaluation.error, JobFailedError)
        assert not evaluation.error.retryable
        assert not evaluation.releases_job

    def test_missing_items_count_as_failed(self):
        counts = JobCounts(total=10, succeeded=8, failed=1)
        assert self.evaluate(JobState.PARTIAL, 1, counts=counts).error is not None
        assert self.evaluate(JobState.PARTIAL, 2, counts=counts).error is None

    def test_an_unknown_number_of_failures_is_never_within_limits(self):
        assert self.evaluate(JobState.PARTIAL, "100%").error is not None

    def test_an_expired_job_is_accepted_within_limits_and_else_lost(self):
        counts = JobCounts(total=10, succeeded=9)
        assert self.evaluate(JobState.EXPIRED, "10%", counts=counts).error is None
        lost = self.evaluate(JobState.EXPIRED, counts=JobCounts(total=10, succeeded=0))
        assert isinstance(lost.error, JobLostError)
        assert lost.error.retryable
        assert lost.releases_job

    def test_an_expired_job_with_finished_items_is_kept_and_not_paid_for_whole_again(self):
        evaluation = self.evaluate(JobState.EXPIRED, counts=JobCounts(total=3, succeeded=2))
        assert isinstance(evaluation.error, JobFailedError)
        assert not evaluation.error.retryable
        assert not evaluation.releases_job
        assert "2 items were finished in time" in str(evaluation.error)

    @pytest.mark.parametrize("cause", [FailureCause.INPUT, FailureCause.CREDENTIALS, FailureCause.LIMITS, None])
    def test_what_no_retry_can_mend_is_not_retried(self, cause: FailureCause | None):
        evaluation = self.evaluate(JobState.FAILED, cause=cause)
        assert isinstance(evaluation.error, JobFailedError)
        assert not evaluation.error.retryable

    def test_what_the_service_broke_is_retried_as_a_new_generation(self):
        evaluation = self.evaluate(JobState.FAILED, cause=FailureCause.SERVICE)
        assert isinstance(evaluation.error, JobLostError)
        assert evaluation.error.retryable
        assert evaluation.releases_job

    def test_somebody_elses_cancellation_is_not_undone_by_a_retry(self):
        evaluation = self.evaluate(JobState.CANCELLED)
        assert isinstance(evaluation.error, JobCancelledError)
        assert not evaluation.error.retryable

    @pytest.mark.parametrize(
        ("end", "kind", "releases_job"),
        [
            (PollEnd.DEADLINE, DeadlineExceededError, False),
            (PollEnd.LOST, JobLostError, True),
            (PollEnd.UNKNOWN, RequestRefusedError, True),
            (PollEnd.TRY_TIMEOUT, DeadlineExceededError, False),
            (PollEnd.REFUSED, RequestRefusedError, False),
            (PollEnd.SILENT, TransientError, False),
        ],
    )
    def test_ends_without_an_end_of_the_job(self, end, kind, releases_job):
        evaluation = evaluate(REF, PollOutcome(end, message="so it was."), Allowance.parse(0))
        assert isinstance(evaluation.error, kind)
        assert evaluation.releases_job is releases_job
        assert "so it was." in str(evaluation.error)

    def test_a_job_that_was_cancelled_at_its_deadline_is_released(self):
        assert evaluate(REF, PollOutcome(PollEnd.DEADLINE, cancelled=True), Allowance.parse(0)).releases_job

    @given(states.filter(lambda state: not state.is_terminal))
    def test_a_live_job_cannot_be_evaluated(self, state: JobState):
        with pytest.raises(ValueError, match="not an end"):
            self.evaluate(state)


class TestEvaluateForWatcher:
    def evaluate(self, outcome: PollOutcome, allowed: int = 0):
        return evaluate_for_watcher(REF, outcome, Allowance.parse(allowed))

    @pytest.mark.parametrize("state", [state for state in JobState if state.is_terminal])
    @pytest.mark.parametrize("cause", [None, *FailureCause])
    def test_every_bad_end_is_final_and_names_the_task_that_submitted(self, state: JobState, cause):
        evaluation = self.evaluate(PollOutcome(PollEnd.ENDED, status(state, cause=cause)))
        if state is JobState.SUCCEEDED:
            assert evaluation.error is None
            return
        assert isinstance(evaluation.error, JobFailedError)
        assert not evaluation.error.retryable
        assert "clear the task that submitted it" in str(evaluation.error)
        assert "submits the work again" not in str(evaluation.error)

    @pytest.mark.parametrize("end", [PollEnd.LOST, PollEnd.UNKNOWN])
    def test_a_job_that_is_gone_is_final(self, end: PollEnd):
        evaluation = self.evaluate(PollOutcome(end, message="404."))
        assert isinstance(evaluation.error, JobFailedError)
        assert "clear the task that submitted it" in str(evaluation.error)

    def test_a_partial_job_can_be_accepted_here(self):
        counts = JobCounts(total=2, succeeded=1, failed=1)
        outcome = PollOutcome(PollEnd.ENDED, status(JobState.PARTIAL, counts=counts))
        assert "raise it and clear this task" in str(self.evaluate(outcome).error)
        assert self.evaluate(outcome, 1).error is None

    def test_silence_is_retried_and_a_refusal_is_not(self):
        assert isinstance(self.evaluate(PollOutcome(PollEnd.SILENT, message="s")).error, TransientError)
        refused = self.evaluate(PollOutcome(PollEnd.REFUSED, message="401.")).error
        assert isinstance(refused, RequestRefusedError)
        assert "clear this task" in str(refused)


def test_every_decision_is_taken_for_every_state():
    for state in JobState:
        assert resume(record(), status(state), SPEC)
        assert adopt(found(state=state), 3, SPEC)
        if state.is_terminal:
            counts = JobCounts(total=1, succeeded=0, failed=1)
            assert evaluate(REF, PollOutcome(PollEnd.ENDED, status(state, counts=counts)), Allowance.parse(0))


def test_generations_never_go_down():
    before = timedelta(hours=1)
    step = adopt(found(generation=7, state=JobState.CANCELLED, created_at=THEN - before), 3, SPEC)
    assert isinstance(step, Submit)
    assert step.generation == 8
