"""One seed decides all that is random in a soak."""

from __future__ import annotations

import math
from itertools import islice

import pytest

from overnight.sandbox.azure.draws import HTTP_FAULTS as AZURE_FAULTS
from overnight.sandbox.llamacloud.faults import HTTP_FAULTS as LLAMACLOUD_FAULTS
from overnight.sandbox.openai.decisions import HTTP_FAULTS as OPENAI_FAULTS
from overnight.sandbox.sagemaker.faults import CALL_FAULTS
from soak.gateway import HTTP_FAULTS as GATEWAY_FAULTS
from soak.plan import FAULTS, PIPELINES, SHARE, VICTIMS, plan_faults, plan_kills, plan_runs


def test_a_seed_gives_the_same_soak_and_another_one_another() -> None:
    def plan(seed: int) -> tuple[object, ...]:
        return [*islice(plan_runs(seed), 30)], [*islice(plan_kills(seed), 100)], plan_faults(seed)

    assert plan(7) == plan(7)
    assert all(one != other for one, other in zip(plan(7), plan(8), strict=True))


def test_every_pipeline_runs_and_everything_is_killed() -> None:
    assert {run.dag_id for run in islice(plan_runs(1), len(PIPELINES))} == set(PIPELINES)
    assert {kill.victim for kill in islice(plan_kills(1), 200)} == VICTIMS.keys()


@pytest.mark.parametrize("name", FAULTS)
def test_a_fifth_of_all_calls_fails(name: str) -> None:
    served = math.prod(1 - share for share in plan_faults(3)[name].values())
    assert 1 - served == pytest.approx(SHARE, abs=0.001)


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("openai", OPENAI_FAULTS),
        ("sagemaker", CALL_FAULTS),
        ("llamacloud", LLAMACLOUD_FAULTS),
        ("azure", AZURE_FAULTS),
        ("s3", GATEWAY_FAULTS),
        ("opensearch", GATEWAY_FAULTS),
    ],
)
def test_faults_are_listed_as_they_are_drawn(name: str, drawn: tuple[str, ...]) -> None:
    assert FAULTS[name] == tuple(kind for kind in drawn if kind in FAULTS[name])
