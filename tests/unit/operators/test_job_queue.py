"""A job that the service's queue has no room for waits here: deferred or blocking, and through every kind of retry."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from overnight.errors import ServiceError, TransientError
from overnight.jobs import FileRecordStore, JobState, JobStatus, run
from overnight.jobs.governor import Governor
from overnight.jobs.queue import NOTHING, Amount, ListedJob, QueueFull
from overnight.operators.job import RECORD
from overnight.transport.flow import Flow
from overnight.transport.http import HttpCall
from overnight.triggers.job import JobTrigger
from overnight.triggers.room import RoomTrigger
from slowprint.airflow import to_event
from slowprint.hook import PrintHook
from slowprint.operator import PrintOperator
from slowprint.server import Shop, connect
from slowprint.service import PrintService, PrintSpec


@pytest.fixture(autouse=True)
def _counting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the shop's queue be counted in pages, and a jammed order be one that found the queue full."""

    def get_queue(_: PrintService, spec: PrintSpec) -> tuple[str, Amount]:
        return "press", Amount(records=spec.pages)

    def list_queue(_: PrintService, queue: str) -> Flow[Collection[ListedJob]]:
        answer = yield HttpCall("GET", "orders")
        return [
            ListedJob(
                order["id"], Amount(records=order["pages"]) if order["status"] == "waiting" else NOTHING, order["name"]
            )
            for order in answer["orders"]
        ]

    default = PrintService.find_refusal

    def find_refusal(service: PrintService, answer: ServiceError | JobStatus) -> QueueFull | None:
        if isinstance(answer, JobStatus):
            return QueueFull("the press was busy") if answer.raw == "jammed" else None
        return default(service, answer)

    monkeypatch.setattr(PrintService, "queue_units", frozenset({"records", "jobs"}))
    monkeypatch.setattr(PrintService, "get_queue", get_queue)
    monkeypatch.setattr(PrintService, "list_queue", list_queue)
    monkeypatch.setattr(PrintService, "find_refusal", find_refusal)


def operator(**facts: Any) -> PrintOperator:
    facts = {"text_uri": "s3://b/novel", "pages": 10, "poll_interval": 0.01, "deferrable": True} | facts
    return PrintOperator(task_id="t", **facts)


def deferred(task: PrintOperator, run: Any, event: dict[str, Any] | None = None) -> Any:
    with pytest.raises(TaskDeferred) as raised:
        task.execute(run.context) if event is None else task.execute_complete(run.context, event)
    return raised.value.trigger


def posts(shop: Shop) -> int:
    return shop.requests.count(("POST", "/orders"))


def put(shop: Shop, pages: int = 10) -> None:
    """Order as somebody else would."""
    shop.orders.append({"id": f"p{len(shop.orders)}", "status": "waiting", "spoiled": 0, "name": "x", "pages": pages})


class TestARefusal:
    def test_defers_the_task_and_submits_when_there_is_room(self, shop: Shop, task_run: Any):
        put(shop)
        shop.capacity = 1
        trigger = deferred(operator(), task_run)
        assert isinstance(trigger, RoomTrigger)
        waiting = task_run.state[RECORD]
        assert waiting["ref"] is None
        assert "we take 1 orders at a time" in waiting["queued"]["reason"]
        assert waiting["queued"]["refusals"] == 1
        shop.finish()
        job = deferred(operator(), task_run, to_event(RoomTrigger(**trigger.serialize()[1])))
        assert isinstance(job, JobTrigger)
        shop.finish()
        assert operator().execute_complete(task_run.context, to_event(job))["ref"]["id"] == "p1"
        assert len(shop.orders) == 2

    def test_again_in_its_turn_waits_on_with_the_same_age(self, shop: Shop, task_run: Any):
        put(shop)
        shop.capacity = 1
        trigger = deferred(operator(), task_run)
        shop.finish()
        event = to_event(trigger)
        put(shop)
        again = deferred(operator(), task_run, event)
        assert again.request.since == trigger.request.since
        assert again.request.refusals == 2

    def test_of_a_job_that_was_accepted_and_then_failed_for_it_is_no_failure_either(self, shop: Shop, task_run: Any):
        job = deferred(operator(), task_run)
        shop.finish("jammed")
        room = deferred(operator(), task_run, to_event(job))
        assert isinstance(room, RoomTrigger)
        assert task_run.state[RECORD]["generation"] == 1
        job = deferred(operator(), task_run, to_event(room))
        shop.finish()
        assert operator().execute_complete(task_run.context, to_event(job))["ref"]["id"] == "p1"

    def test_in_a_worker_that_waits_pauses_there(self, shop: Shop, task_run: Any, monkeypatch: pytest.MonkeyPatch):
        put(shop)
        shop.capacity = 1
        decide = Governor.decide

        def finish_then_decide(governor: Governor, *arguments: Any) -> Any:
            decided = decide(governor, *arguments)
            shop.finish()
            shop.status_after_order = "printed"
            return decided

        monkeypatch.setattr(Governor, "decide", finish_then_decide)
        outcome = operator(deferrable=False).execute(task_run.context)
        assert outcome["ref"]["id"] == "p1"
        assert posts(shop) == 2

    def test_hands_the_job_over_only_when_it_is_submitted(self, shop: Shop, task_run: Any):
        put(shop)
        shop.capacity = 1
        trigger = deferred(operator(wait_for_completion=False), task_run)
        shop.finish()
        outcome = operator(wait_for_completion=False).execute_complete(task_run.context, to_event(trigger))
        assert outcome["ref"]["id"] == "p1"
        assert task_run.state[RECORD]["ending"] == "handed over"

    def test_without_durability_waits_all_the_same(self, shop: Shop, task_run: Any):
        put(shop)
        shop.capacity = 1
        trigger = deferred(operator(durable=False), task_run)
        shop.finish()
        deferred(operator(durable=False), task_run, to_event(trigger))
        assert len(shop.orders) == 2
        assert not task_run.state


class TestABudget:
    def test_of_the_users_counts_other_peoples_jobs_before_anything_is_submitted(self, shop: Shop, task_run: Any):
        put(shop, pages=25)
        trigger = deferred(operator(budget={"records": 30}, pages=10), task_run)
        assert isinstance(trigger, RoomTrigger)
        assert posts(shop) == 0
        shop.finish()
        deferred(operator(budget={"records": 30}, pages=10), task_run, to_event(trigger))
        assert posts(shop) == 1

    def test_may_be_a_templates_text(self, shop: Shop, task_run: Any):
        trigger = deferred(operator(budget='{"jobs": 1}', queue_deadline="PT1H"), task_run)
        assert trigger.request.budget.jobs == 1
        assert trigger.until == pytest.approx(trigger.request.since.timestamp() + 3600)

    @pytest.mark.parametrize(
        ("facts", "text"),
        [
            ({"budget": {"pages": 3}}, "is no budget"),
            ({"budget": {"records": 9}}, "takes 10 records, and budget allows 9"),
            ({"budget": {"tokens": 9}}, "the queue of slowprint is not counted in tokens"),
            ({"queue_deadline": 0}, "queue_deadline"),
        ],
    )
    def test_that_cannot_be_is_refused_before_anything_is_submitted(
        self, shop: Shop, task_run: Any, facts: dict[str, Any], text: str
    ):
        with pytest.raises(AirflowFailException, match=text):
            operator(**facts).execute(task_run.context)
        assert posts(shop) == 0

    def test_admits_the_oldest_of_one_process_first(self, shop: Shop):
        async def wait() -> list[str]:
            order: list[str] = []
            begin = datetime.now(UTC)

            async def one(name: str, age: int) -> None:
                request = {
                    "service": "slowprint",
                    "conn_id": "slowprint_default",
                    "queue": "press",
                    "name": name,
                    "amount": {"records": 10},
                    "budget": {"records": 10},
                    "since": begin - timedelta(seconds=age),
                }
                async for event in RoomTrigger(request=request, interval=0.01).run():
                    order.append(event.payload["room"]["name"])
                    # What its worker would do, and the service after that.
                    shop.orders.append({"id": name, "status": "printed", "spoiled": 0, "name": name, "pages": 10})

            await asyncio.gather(one("young", 1), one("oldest", 9), one("old", 5))
            return order

        assert asyncio.run(wait()) == ["oldest", "old", "young"]


class TestRetries:
    def test_a_retry_while_it_waits_waits_on(self, shop: Shop, task_run: Any):
        put(shop)
        shop.capacity = 1
        first = deferred(operator(), task_run)
        again = deferred(operator(), task_run)
        assert isinstance(again, RoomTrigger)
        assert again.request.since == first.request.since
        # It knew that it was full.
        assert posts(shop) == 1

    def test_clearing_it_while_it_waits_puts_it_last(self, shop: Shop, task_run: Any):
        put(shop)
        shop.capacity = 1
        first = deferred(operator(), task_run)
        task_run.max_tries += 1
        again = deferred(operator(), task_run)
        assert again.request.since > first.request.since
        assert again.request.refusals == 0

    def test_a_worker_that_dies_after_its_turn_came_and_before_the_record_costs_nothing(
        self, shop: Shop, task_run: Any
    ):
        put(shop)
        shop.capacity = 1
        trigger = deferred(operator(), task_run)
        before = dict(task_run.state[RECORD])
        shop.finish()
        deferred(operator(), task_run, to_event(trigger))
        task_run.state[RECORD] = before
        job = deferred(operator(), task_run)
        assert isinstance(job, JobTrigger)
        assert len(shop.orders) == 2

    def test_a_worker_that_dies_before_its_turn_is_used_waits_for_another(self, shop: Shop, task_run: Any):
        put(shop)
        shop.capacity = 1
        deferred(operator(), task_run)
        shop.finish()
        trigger = deferred(operator(), task_run)
        assert isinstance(trigger, RoomTrigger)
        deferred(operator(), task_run, to_event(trigger))
        assert len(shop.orders) == 2

    def test_an_event_of_another_generation_admits_nothing(self, shop: Shop, task_run: Any):
        put(shop)
        shop.capacity = 1
        trigger = deferred(operator(), task_run)
        shop.finish()
        event = to_event(trigger)
        event["room"]["name"] = "overnight-other"
        assert isinstance(deferred(operator(), task_run, event), RoomTrigger)
        assert len(shop.orders) == 1

    def test_a_changed_spec_waits_with_its_new_size(self, shop: Shop, task_run: Any):
        put(shop)
        shop.capacity = 1
        first = deferred(operator(), task_run)
        again = deferred(operator(pages=11), task_run)
        assert again.request.amount.records == 11
        assert again.request.name != first.request.name


class TestTheQueueDeadline:
    def test_ends_the_wait_for_good_and_names_the_remedy(self, shop: Shop, task_run: Any):
        put(shop)
        shop.capacity = 1
        trigger = deferred(operator(queue_deadline=0.02), task_run)
        with pytest.raises(AirflowFailException, match="Raise queue_deadline or the account's limit") as raised:
            operator(queue_deadline=0.02).execute_complete(task_run.context, to_event(trigger))
        assert "we take 1 orders at a time" in str(raised.value)
        assert posts(shop) == 1

    def test_counts_anew_after_that(self, shop: Shop, task_run: Any):
        self.test_ends_the_wait_for_good_and_names_the_remedy(shop, task_run)
        assert task_run.state[RECORD]["queued"] is None
        shop.finish()
        task_run.max_tries += 1
        assert isinstance(deferred(operator(), task_run), JobTrigger)

    def test_ends_a_wait_in_a_worker(self, shop: Shop, task_run: Any):
        put(shop)
        shop.capacity = 1
        with pytest.raises(AirflowFailException, match="queue_deadline"):
            operator(deferrable=False, queue_deadline=0.02).execute(task_run.context)
        assert task_run.state[RECORD]["queued"] is None


class TestWhatIsShown:
    """The XCom that the UI shows while the job waits, and that the report reads."""

    def test_while_it_waits_is_queued_with_the_services_words_which_the_log_has_once(
        self, shop: Shop, task_run: Any, capsys: pytest.CaptureFixture[str]
    ):
        put(shop)
        shop.capacity = 1
        trigger = deferred(operator(), task_run)
        shown = task_run.xcoms["queued"]
        assert (shown["service"], shown["name"], shown["state"]) == ("slowprint", trigger.request.name, "queued")
        assert shown["seconds"] is None
        assert "we take 1 orders at a time" in shown["reason"]
        assert capsys.readouterr().out.count("we take 1 orders at a time") == 1

    @pytest.mark.parametrize("deferrable", [True, False])
    def test_after_the_wait_is_how_long_it_took_and_why(
        self, shop: Shop, task_run: Any, monkeypatch: pytest.MonkeyPatch, deferrable: bool
    ):
        put(shop, pages=25)
        decide = Governor.decide

        def decide_then_finish(governor: Governor, *arguments: Any) -> Any:
            decided = decide(governor, *arguments)
            shop.finish()
            shop.status_after_order = "printed"
            return decided

        monkeypatch.setattr(Governor, "decide", decide_then_finish)
        task = operator(budget={"records": 30}, deferrable=deferrable)
        if deferrable:
            trigger = deferred(task, task_run)
            deferred(operator(budget={"records": 30}), task_run, to_event(trigger))
        else:
            task.execute(task_run.context)
        shown = task_run.xcoms["queued"]
        assert shown["state"] is None
        assert shown["seconds"] >= 0
        assert "25 of 30 records are in the slowprint queue 'press'" in shown["reason"]

    def test_is_kept_for_a_try_that_attaches_to_the_job(self, shop: Shop, task_run: Any):
        put(shop)
        shop.capacity = 1
        trigger = deferred(operator(), task_run)
        shop.finish()
        deferred(operator(), task_run, to_event(trigger))
        shown = task_run.xcoms.pop("queued")
        deferred(operator(), task_run)
        assert task_run.xcoms["queued"] == shown

    @pytest.mark.parametrize("deferrable", [True, False])
    def test_of_a_job_that_found_no_room_in_time_is_queued_with_the_whole_reason(
        self, shop: Shop, task_run: Any, deferrable: bool
    ):
        put(shop)
        shop.capacity = 1
        task = operator(queue_deadline=0.02, deferrable=deferrable)
        event = to_event(deferred(task, task_run)) if deferrable else None
        with pytest.raises(AirflowFailException):
            task.execute(task_run.context) if event is None else task.execute_complete(task_run.context, event)
        shown = task_run.xcoms["queued"]
        assert shown["state"] == "queued"
        assert shown["seconds"] is not None
        assert "(queue_deadline). Nothing was submitted" in shown["reason"]

    def test_of_a_job_that_did_not_wait_is_nothing(self, shop: Shop, task_run: Any):
        deferred(operator(), task_run)
        assert "queued" not in task_run.xcoms


class TestTwoClocks:
    def test_the_deadline_of_a_job_counts_from_its_submit_and_not_from_its_waiting(self, shop: Shop, task_run: Any):
        put(shop)
        shop.capacity = 1
        trigger = deferred(operator(deadline=100), task_run)
        hours_ago = (datetime.now(UTC) - timedelta(hours=9)).isoformat()
        task_run.state[RECORD]["intent_at"] = task_run.state[RECORD]["queued"]["since"] = hours_ago
        path, arguments = trigger.serialize()
        del path
        arguments["context"] = dict(task_run.state[RECORD])
        shop.finish()
        begin = datetime.now(UTC).timestamp()
        job = deferred(operator(deadline=100), task_run, to_event(RoomTrigger(**arguments)))
        assert begin + 100 <= job.deadline <= datetime.now(UTC).timestamp() + 100

    def test_a_job_that_is_submitted_again_has_its_whole_deadline_again(self, shop: Shop, task_run: Any):
        job = deferred(operator(deadline=100), task_run)
        shop.finish("jammed")
        room = deferred(operator(deadline=100), task_run, to_event(job))
        again = deferred(operator(deadline=100), task_run, to_event(room))
        assert again.deadline > job.deadline

    def test_the_queue_deadline_counts_from_the_first_refusal(self, shop: Shop, task_run: Any):
        job = deferred(operator(queue_deadline=100), task_run)
        submitted = datetime.now(UTC).timestamp()
        shop.finish("jammed")
        room = deferred(operator(queue_deadline=100), task_run, to_event(job))
        refused = datetime.now(UTC).timestamp()
        # Not from the task's start, and not from the submit.
        assert submitted + 100 <= room.until <= refused + 100
        again = deferred(operator(queue_deadline=100), task_run, to_event(room))
        shop.finish("jammed")
        # A second refusal gives no more time.
        assert deferred(operator(queue_deadline=100), task_run, to_event(again)).until == room.until


class TestTheTrigger:
    def test_survives_serialization(self, shop: Shop, task_run: Any):
        put(shop)
        shop.capacity = 1
        trigger = deferred(operator(), task_run)
        path, arguments = trigger.serialize()
        assert path == "overnight.triggers.room.RoomTrigger"
        assert RoomTrigger(**arguments).serialize() == (path, arguments)

    def test_keeps_on_when_the_service_is_away_for_a_moment(
        self, shop: Shop, task_run: Any, monkeypatch: pytest.MonkeyPatch
    ):
        put(shop)
        shop.capacity = 1
        trigger = deferred(operator(), task_run)
        shop.finish()
        list_queue, failures = PrintService.list_queue, [TransientError("away")]

        def fail_once(service: PrintService, queue: str) -> Flow[Collection[ListedJob]]:
            if failures:
                raise failures.pop()
            return (yield from list_queue(service, queue))

        monkeypatch.setattr(PrintService, "list_queue", fail_once)
        assert to_event(trigger)["room"]["name"] == trigger.request.name
        assert not failures

    def test_says_what_cannot_be_mended(self, shop: Shop, task_run: Any, monkeypatch: pytest.MonkeyPatch):
        put(shop)
        shop.capacity = 1
        trigger = deferred(operator(), task_run)
        with monkeypatch.context() as broken:
            connect(broken, "not an address")
            event = to_event(trigger)
        assert event["room"] is None
        with pytest.raises(AirflowFailException, match="must be a whole URL"):
            operator().execute_complete(task_run.context, event)

    def test_keeps_on_when_the_connection_cannot_be_looked_up_for_a_moment(
        self, shop: Shop, task_run: Any, monkeypatch: pytest.MonkeyPatch
    ):
        put(shop)
        shop.capacity = 1
        trigger = deferred(operator(), task_run)
        shop.finish()
        aclient, failures = PrintHook.aclient, [OSError("the vault is sealed")]

        async def fail_once(hook: PrintHook) -> Any:
            if failures:
                raise failures.pop()
            return await aclient(hook)

        monkeypatch.setattr(PrintHook, "aclient", fail_once)
        assert to_event(trigger)["room"]["name"] == trigger.request.name
        assert not failures


def test_a_script_waits_as_a_task_does(shop: Shop, tmp_path: Any, monkeypatch: pytest.MonkeyPatch):
    put(shop)
    shop.capacity = 1
    decide = Governor.decide

    def finish_then_decide(governor: Governor, *arguments: Any) -> Any:
        shop.finish()
        shop.status_after_order = "printed"
        return decide(governor, *arguments)

    monkeypatch.setattr(Governor, "decide", finish_then_decide)
    with PrintHook().client() as client:
        spec = PrintSpec(text_uri="s3://b/novel", pages=3)
        records = FileRecordStore(tmp_path / "job.json")
        done = run(spec, client=client, records=records, name="n", poll_interval=0.01)
    assert done.status is not None
    assert done.status.state is JobState.SUCCEEDED
    assert posts(shop) == 2
