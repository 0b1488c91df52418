from __future__ import annotations

import json
import time
from typing import Any

from overnight.jobs import JobRef
from overnight.jobs.lifecycle import WatchEnd
from overnight.triggers.job import JobTrigger, over_of
from slowprint.airflow import event_of
from slowprint.server import Shop, connect

REF = JobRef(service="slowprint", id="p0", conn_id="slowprint_default").model_dump()


def order(shop: Shop, **facts: Any) -> None:
    shop.orders.append(
        {"id": "p0", "name": "novel", "text": "t", "pages": 10, "spoiled": 0, "status": "waiting"} | facts
    )


def test_it_survives_serialization_and_carries_no_secret(shop: Shop):
    trigger = JobTrigger(ref=REF, poll_interval=1.0, deadline=2.0, echo={"generation": 1})
    path, arguments = trigger.serialize()
    assert path == "overnight.triggers.job.JobTrigger"
    again = JobTrigger(**json.loads(json.dumps(arguments)))
    assert again.serialize() == trigger.serialize()
    assert "ink" not in json.dumps(arguments)


def test_it_yields_one_event_at_the_end_of_the_job(shop: Shop):
    order(shop, status="printed")
    event = event_of(JobTrigger(ref=REF, poll_interval=0.01, echo={"generation": 1}))
    over = over_of(json.loads(json.dumps(event)))
    assert over.end is WatchEnd.ENDED
    assert over.status is not None
    assert over.status.counts.succeeded == 10
    assert event["echo"] == {"generation": 1}


def test_the_deadline_is_a_moment_and_not_a_duration(shop: Shop):
    order(shop)
    event = event_of(JobTrigger(ref=REF, poll_interval=0.01, deadline=time.time() - 1))
    assert over_of(event).end is WatchEnd.DEADLINE
    assert shop.orders[0]["status"] == "withdrawn"


def test_a_deadline_may_leave_the_job_running(shop: Shop):
    order(shop)
    event_of(JobTrigger(ref=REF, poll_interval=0.01, deadline=time.time(), cancel_on_deadline=False))
    assert shop.orders[0]["status"] == "waiting"


def test_an_unknown_job_is_lost_at_once(shop: Shop):
    assert over_of(event_of(JobTrigger(ref=REF, poll_interval=60.0))).end is WatchEnd.LOST


def test_refused_credentials_end_it_at_once(shop: Shop, monkeypatch: Any):
    connect(monkeypatch, shop.url, "water")
    over = over_of(event_of(JobTrigger(ref=REF, poll_interval=60.0)))
    assert over.end is WatchEnd.REFUSED
    assert "401" in over.message
    assert "water" not in over.message
