from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from overnight.jobs import JobKey, compute_fingerprint

ids = st.text(st.characters(exclude_characters="\x00", codec="utf-8"), min_size=1, max_size=40)
FINGERPRINT = "0123456789abcdef"


def key(dag: str = "d", task: str = "t", run: str = "r", **facts: object) -> JobKey:
    return JobKey(**({"dag_id": dag, "task_id": task, "run_id": run, "fingerprint": FINGERPRINT} | facts))


@given(ids, ids, ids, st.integers(-1, 10**6), st.integers(0, 10**4))
def test_names_fit_the_narrowest_service_and_can_be_read_back(dag, task, run, map_index, generation):
    asked = key(dag, task, run, map_index=map_index, generation=generation)
    assert re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", asked.name)
    assert JobKey.parse_name(asked.name) == (asked.tag, generation, FINGERPRINT)


@given(ids, ids, ids, ids)
def test_no_two_task_instances_share_a_tag(dag, task, run, other):
    tags = {key(dag, task, run).tag, key(dag + other, task, run).tag, key(dag, other + task, run).tag}
    assert len(tags) == len({(dag, task, run), (dag + other, task, run), (dag, other + task, run)})


def test_ids_do_not_run_together():
    assert key("etl", "load_data").tag != key("etl_load", "data").tag


@given(st.integers(0, 5), st.integers(0, 5))
def test_generation_and_fingerprint_change_the_name_and_not_the_tag(one, other):
    assert key(generation=one).tag == key(generation=other).tag
    assert (key(generation=one).name == key(generation=other).name) == (one == other)


@given(st.text(max_size=80))
def test_other_peoples_names_are_not_ours(name):
    parsed = JobKey.parse_name(name)
    assert parsed is None or name.startswith("overnight-")


def test_the_fingerprint_ignores_the_order_of_keys_and_nothing_else():
    assert compute_fingerprint({"a": 1, "b": [1, 2]}) == compute_fingerprint({"b": [1, 2], "a": 1})
    assert compute_fingerprint({"a": 1, "b": [1, 2]}) != compute_fingerprint({"a": 1, "b": [2, 1]})
