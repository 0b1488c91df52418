from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from overnight.sandbox.sagemaker import Faults, Settings
from overnight.sandbox.sagemaker.faults import Draws


def draws(folder: Path, seed: int = 0, **faults: object) -> Draws:
    return Draws(Settings(data_dir=folder, seed=seed, faults=Faults.model_validate(faults)))


def test_nothing_goes_wrong_unless_it_was_asked_for(tmp_path: Path) -> None:
    none = draws(tmp_path)
    assert {none.call("ListTransformJobs") for _ in range(100)} == {None}
    assert {none.fate() for _ in range(100)} == {"normal"}
    assert not none.refuses("s3://b/in/a")


def test_the_same_seed_draws_the_same_faults(tmp_path: Path) -> None:
    first, second, other = (draws(tmp_path, seed, throttled=0.5) for seed in (1, 1, 2))
    one = [first.call("X") for _ in range(64)]
    assert one == [second.call("X") for _ in range(64)]
    assert one != [other.call("X") for _ in range(64)]
    assert set(one) == {None, "throttled"}


def test_a_fault_keeps_to_its_operations_and_its_times(tmp_path: Path) -> None:
    some = draws(tmp_path, unavailable={"share": 1, "times": 2, "operations": ["StopTransformJob"]})
    assert some.call("ListTransformJobs") is None
    assert [some.call("StopTransformJob") for _ in range(3)] == ["unavailable", "unavailable", None]
    some.reset()
    assert some.call("StopTransformJob") == "unavailable"


def test_an_input_is_refused_however_often_it_is_asked(tmp_path: Path) -> None:
    half = draws(tmp_path, files_refused=0.5)
    refused = [half.refuses(f"s3://b/in/{number}") for number in range(64)]
    assert refused == [half.refuses(f"s3://b/in/{number}") for number in range(64)]
    assert set(refused) == {True, False}


def test_a_mistyped_fault_is_refused() -> None:
    with pytest.raises(ValidationError):
        Faults.model_validate({"throtled": 1})
