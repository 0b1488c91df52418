"""Who may submit next: decided by lists of jobs and a clock, without any service."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.errors import RequestRefusedError, SpecError
from overnight.jobs.governor import ADMISSION_SECONDS, PROBE_SECONDS, Governor
from overnight.jobs.queue import NOTHING, Amount, Budget, ListedJob, QueueFull, QueueRequest

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
NOW = BEGIN.timestamp()


def request(name: str, tokens: int = 10, *, age: int = 0, **fields: Any) -> QueueRequest:
    return QueueRequest(
        service="openai",
        conn_id="openai_default",
        queue="m",
        name=name,
        amount=Amount(tokens=tokens),
        since=BEGIN - timedelta(seconds=age),
        **fields,
    )


def listed(*tokens: int, names: tuple[str, ...] = ()) -> list[ListedJob]:
    all_names: list[str | None] = [*names, *[None] * (len(tokens) - len(names))]
    return [ListedJob(f"b{n}", Amount(tokens=amount), all_names[n]) for n, amount in enumerate(tokens)]


def govern(*requests: QueueRequest) -> Governor:
    governor = Governor()
    for one in requests:
        governor.join(one, NOW)
    return governor


BUDGET = Budget(tokens=100)


def test_the_oldest_goes_first_and_nobody_overtakes():
    governor = govern(
        request("young", 5, age=1, budget=BUDGET),
        request("old", 60, age=9, budget=BUDGET),
    )
    # 50 of 100 are used: there is room for the small one only, and it waits behind the large one.
    assert governor.decide(listed(50), NOW).admitted == {}
    decided = governor.decide(listed(40), NOW)
    assert list(decided.admitted) == ["old"]
    assert "young" in decided.states


def test_several_go_at_once_only_while_twice_of_them_would_fit():
    names = [request(f"w{n}", 20, age=9 - n, budget=BUDGET) for n in range(5)]
    governor = govern(*names)
    # 20 alone, and 40 twice; 60 twice is over 100.
    assert list(governor.decide(listed(), NOW).admitted) == ["w0", "w1"]
    assert governor.decide(listed(), NOW).admitted == {}
    # One of them shows in the list: 20 used, 20 reserved, and 40 + 40 more is 100.
    assert list(governor.decide(listed(20, names=("w0",)), NOW).admitted) == ["w2"]


def test_room_that_is_reserved_for_a_job_that_never_comes_is_given_up():
    governor = govern(request("dead", 90, age=9, budget=BUDGET), request("next", 90, budget=BUDGET))
    assert list(governor.decide(listed(), NOW).admitted) == ["dead"]
    assert governor.decide(listed(), NOW + ADMISSION_SECONDS - 1).admitted == {}
    assert list(governor.decide(listed(), NOW + ADMISSION_SECONDS).admitted) == ["next"]


def test_an_admitted_job_that_comes_back_refused_holds_no_room():
    governor = govern(request("a", 90, age=9, budget=BUDGET), request("b", 90, budget=BUDGET))
    assert list(governor.decide(listed(1), NOW).admitted) == ["a"]
    governor.join(request("a", 90, age=9, budget=BUDGET).with_refusal(QueueFull("full", BUDGET), NOW), NOW)
    # It is still the oldest.
    assert list(governor.decide(listed(1), NOW).admitted) == ["a"]


def test_other_peoples_jobs_count():
    governor = govern(request("mine", 30, budget=BUDGET))
    assert governor.decide(listed(60, 20), NOW).admitted == {}
    assert list(governor.decide(listed(60), NOW).admitted) == ["mine"]


def test_a_learnt_limit_is_kept_to_as_the_users_own():
    refused = request("w", 30).with_refusal(QueueFull("Limit: 100", BUDGET), NOW)
    assert refused.refusals == 1
    governor = govern(refused)
    assert governor.decide(listed(80), NOW).admitted == {}
    assert list(governor.decide(listed(70), NOW).admitted) == ["w"]


def test_the_lower_limit_of_user_and_service_counts():
    refused = request("w", 30, budget=Budget(tokens=50, jobs=3)).with_refusal(QueueFull("", BUDGET), NOW)
    assert refused.limit == Budget(tokens=50, jobs=3)


def test_a_second_refusal_in_spite_of_room_waits_for_a_job_to_end():
    twice = request("w", 30)
    for _ in range(2):
        twice = twice.with_refusal(QueueFull("", BUDGET), NOW)
    governor = govern(twice)
    assert governor.decide(listed(10, 10), NOW).admitted == {}
    assert governor.decide(listed(10, 10), NOW + PROBE_SECONDS - 1).admitted == {}
    assert list(governor.decide(listed(10), NOW).admitted) == ["w"]


def test_without_a_named_limit_one_at_a_time_goes_when_a_job_has_ended():
    refused = [request(f"w{n}", age=9 - n).with_refusal(QueueFull("busy"), NOW) for n in range(2)]
    governor = govern(*refused)
    assert governor.decide(listed(1, 1), NOW).admitted == {}
    assert list(governor.decide(listed(1), NOW).admitted) == ["w0"]
    assert governor.decide(listed(1), NOW).admitted == {}
    assert governor.decide(listed(5, 1, names=("w0",)), NOW).admitted == {}
    assert list(governor.decide(listed(5, names=("w0",)), NOW).admitted) == ["w1"]


def test_without_a_list_one_at_a_time_asks_again():
    refused = [request(f"w{n}", age=9 - n).with_refusal(QueueFull("busy"), NOW) for n in range(2)]
    governor = govern(*refused)
    assert governor.decide(None, NOW).admitted == {}
    assert list(governor.decide(None, NOW + PROBE_SECONDS).admitted) == ["w0"]
    assert governor.decide(None, NOW + PROBE_SECONDS + 1).admitted == {}
    assert list(governor.decide(None, NOW + 2 * PROBE_SECONDS).admitted) == ["w1"]


def test_where_jobs_bear_no_names_a_new_one_stands_for_the_oldest_that_was_admitted():
    jobs = Budget(jobs=3)

    def anonymous(*names: str, over: tuple[str, ...] = ()) -> list[ListedJob]:
        return [ListedJob(name, NOTHING if name in over else Amount(), may_be_ours=True) for name in names]

    governor = govern(*[request(f"w{n}", 0, age=9 - n, budget=jobs) for n in range(3)])
    assert list(governor.decide(anonymous("theirs"), NOW).admitted) == ["w0"]
    # Nothing new: the room of w0 stays reserved, and another one might need it twice.
    assert governor.decide(anonymous("theirs"), NOW + 1).admitted == {}
    assert list(governor.decide(anonymous("theirs", "new"), NOW + 2).admitted) == ["w1"]
    # One that is over already when it is seen first stands for it, too.
    decided = governor.decide(anonymous("theirs", "new", "short", over=("short",)), NOW + 3)
    assert list(decided.admitted) == ["w2"]


def test_a_job_that_an_empty_queue_refuses_is_sent_again_after_a_while_and_not_at_once():
    throttled = request("w").with_refusal(QueueFull("slow down"), NOW)
    governor = govern(throttled)
    assert governor.decide(listed(), NOW).admitted == {"w": True}
    governor.join(throttled.model_copy(update={"alone": True}).with_refusal(QueueFull("slow down"), NOW), NOW)
    assert governor.decide(listed(), NOW + PROBE_SECONDS - 1).admitted == {}
    assert governor.decide(listed(), NOW + PROBE_SECONDS).admitted == {"w": True}


def test_retry_after_is_honoured():
    refused = request("w").with_refusal(QueueFull("busy", BUDGET, retry_after=30), NOW)
    governor = govern(refused)
    assert governor.decide(listed(), NOW + 29).admitted == {}
    assert list(governor.decide(listed(), NOW + 30).admitted) == ["w"]


def test_a_job_over_the_whole_limit_may_try_alone_and_that_is_the_end():
    large = request("w", 120, age=1).with_refusal(QueueFull("", BUDGET), NOW)
    governor = govern(large)
    assert governor.decide(listed(1), NOW).admitted == {}
    assert governor.decide(listed(), NOW).admitted == {"w": True}
    with pytest.raises(RequestRefusedError, match="Cut the input into smaller parts"):
        large.model_copy(update={"alone": True}).with_refusal(QueueFull("Limit reached.", BUDGET), NOW)


def test_a_job_over_the_users_budget_is_refused_before_anything_is_submitted():
    with pytest.raises(SpecError, match="takes 120 tokens, and budget allows 100. Nothing was submitted"):
        request("w", 120, budget=BUDGET).check_budget()


@pytest.mark.parametrize("value", [{"tokens": 0}, {"token": 1}, "{", "[]", 3, {"jobs": "many"}])
def test_a_budget_that_is_none_is_refused(value: object):
    with pytest.raises(SpecError, match="is no budget"):
        Budget.parse(value)


def test_a_unit_that_the_service_does_not_count_is_refused():
    with pytest.raises(SpecError, match="sagemaker is not counted in tokens. Give it in instances or jobs"):
        Budget(tokens=5, jobs=1).check_units("sagemaker", {"jobs", "instances"})
    Budget(instances=5).check_units("sagemaker", {"jobs", "instances"})


def test_a_budget_is_read_from_a_mapping_or_template_text():
    assert Budget.parse('{"tokens": 3000000}') == Budget.parse({"tokens": "3000000"}) == Budget(tokens=3_000_000)
    assert not Budget.parse("None").is_set
    assert not Budget.parse(None).is_set


@given(
    sizes=st.lists(st.integers(1, 100), min_size=1, max_size=20),
    processes=st.integers(1, 2),
    actions=st.lists(st.sampled_from(["look", "submit", "end"]), max_size=60),
)
def test_all_jobs_come_to_their_turn_and_the_queue_is_never_over_by_more_than_a_job(
    sizes: list[int], processes: int, actions: list[str]
):
    """One or two governors over one service; submits, ends and looks in any order, and then in turn to the end."""
    governors = [Governor() for _ in range(processes)]
    for number, size in enumerate(sizes):
        one = request(f"w{number}", size, age=len(sizes) - number, budget=BUDGET)
        governors[number % processes].join(one, NOW)
    in_queue: dict[str, int] = {}
    admitted: list[str] = []
    done: list[str] = []
    for action in [*actions, *["look", "submit", "end"] * 2 * len(sizes)]:
        if action == "look":
            view = [ListedJob(name, NOTHING, name) for name in done]
            view += [ListedJob(name, Amount(tokens=size), name) for name, size in in_queue.items()]
            # Both look before either submits: the worst case.
            for governor in governors:
                admitted += governor.decide(view, NOW).admitted
        elif action == "submit" and admitted:
            name = admitted.pop(0)
            in_queue[name] = sizes[int(name[1:])]
            assert sum(in_queue.values()) - 100 <= (0 if processes == 1 else max(sizes))
        elif action == "end" and in_queue:
            done.append(next(iter(in_queue)))
            del in_queue[done[-1]]
    assert sorted(done) == sorted(f"w{number}" for number in range(len(sizes)))


def test_who_waits_is_said_why_and_behind_how_many():
    governor = govern(*(request(name, 30, age=age, budget=BUDGET) for name, age in (("a", 9), ("b", 8), ("c", 7))))
    queue = "queued here: 95 of 100 tokens are in the openai queue 'm' of openai_default, this job needs 30 tokens"
    assert governor.decide(listed(95), NOW).states == {
        "a": (0, queue),
        "b": (1, f"{queue}; 1 waits before it"),
        "c": (2, f"{queue}; 2 wait before it"),
    }


@pytest.mark.parametrize(
    ("amount", "needs"),
    [
        (Amount(tokens=1_000, records=9, estimated=True), "about 1,000 tokens"),
        (Amount(records=1), "1 record"),
        (Amount(jobs=1), "1 job"),
        (Amount(jobs=0), "0 jobs"),
    ],
)
def test_a_job_is_said_to_need_what_the_queue_counts(amount: Amount, needs: str):
    refused = request("w").with_refusal(QueueFull("busy"), NOW).model_copy(update={"amount": amount})
    queue = "queued here: the openai queue 'm' of openai_default is full, this job needs"
    assert govern(refused).decide(None, NOW).states == {"w": (0, f"{queue} {needs}")}


def test_a_job_is_alone_only_where_nothing_is_listed_and_nothing_was_admitted():
    assert govern(request("w", budget=BUDGET)).decide(listed(), NOW).admitted == {"w": True}
    assert govern(request("w", budget=BUDGET)).decide(listed(10), NOW).admitted == {"w": False}


def test_a_second_refusal_in_spite_of_room_is_tried_again_after_a_minute():
    twice = request("w", 30)
    for _ in range(2):
        twice = twice.with_refusal(QueueFull("", BUDGET), NOW)
    governor = govern(twice)
    assert governor.decide(listed(10, 10), NOW).admitted == {}
    assert list(governor.decide(listed(10, 10), NOW + PROBE_SECONDS).admitted) == ["w"]


def test_who_left_can_leave_again():
    governor = govern(request("w"))
    governor.leave("w")
    governor.leave("w")
    assert governor.is_idle


def test_amounts_add_up():
    assert sum([Amount(tokens=1), Amount(tokens=2, records=3, estimated=True)], NOTHING) == Amount(
        tokens=3, records=3, jobs=2, estimated=True
    )
