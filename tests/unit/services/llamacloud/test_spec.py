from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from overnight.jobs import JobKey
from overnight.services.llamacloud.spec import Limits, LlamaCloudBatchSpec, PartName, parse_part_name, part_name

KEY = JobKey(dag_id="d", task_id="t", run_id="r", generation=3, fingerprint="0123456789abcdef")


def spec(**fields: Any) -> LlamaCloudBatchSpec:
    return LlamaCloudBatchSpec(
        **{"job_type": "parse_v2", "configuration_id": "cfg-PARSE_FAST", "sources": ("a/*",), **fields}
    )


@given(number=st.integers(1, 10_000), total=st.integers(1, 10_000), generation=st.integers(0, 10_000))
def test_a_directorys_name_can_be_read_back(number: int, total: int, generation: int) -> None:
    key = KEY.model_copy(update={"generation": generation})
    assert parse_part_name(part_name(key, number, total)) == PartName(key.name, number, total)


@given(st.one_of(st.none(), st.integers(), st.text(), st.from_regex(r"overnight-.*\.\d-of-\d", fullmatch=True)))
def test_a_name_of_somebody_elses_is_not_ours(name: object) -> None:
    read = parse_part_name(name)
    assert read is None or JobKey.parse_name(read.name) is not None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"configuration_id": None}, "either configuration_id or configuration_name"),
        ({"configuration_name": "n"}, "either configuration_id or configuration_name"),
        ({"parameters": {}}, "belong to a configuration_name"),
        (
            {"configuration_id": None, "configuration_name": "n", "parameters": {"product_type": "extract_v2"}},
            "parameters are for 'extract_v2'",
        ),
        ({"sources": ()}, "either sources or directory_id"),
        ({"directory_id": "dir-1"}, "either sources or directory_id"),
        ({"sources": ("",)}, "at least 1 character"),
        ({"metadata": {"overnight_uri": "x"}}, "Overnight's own"),
        ({"job_type": "split_v1"}, "parse_v2"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        spec(**fields)


def test_of_measured_files_the_files_count_and_not_the_patterns() -> None:
    measured = {"files_sha256": "a" * 64, "files_count": 3, "files_per_batch": 1_000}
    one, other = spec(**measured), spec(sources=("a/1", "a/2", "a/3"), **measured)
    assert one.fingerprint("c") == other.fingerprint("c")
    assert one.fingerprint("c") != spec(**{**measured, "files_sha256": "b" * 64}).fingerprint("c")
    assert one.fingerprint("c") != spec(**{**measured, "files_per_batch": 10}).fingerprint("c")
    assert one.fingerprint("c") != one.fingerprint("another connection")
    assert spec().fingerprint("c") != spec(sources=("b/*",)).fingerprint("c")


def test_the_largest_file_depends_on_the_job() -> None:
    limits = Limits(parse_bytes=2, extract_bytes=1)
    assert (limits.file_bytes("parse_v2"), limits.file_bytes("extract_v2")) == (2, 1)
