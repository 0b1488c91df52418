from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.sandbox.errors import SandboxError
from overnight.sandbox.opensearch.lock import Lock, dump, load, made_here, parse, versions
from overnight.sandbox.opensearch.modules import modules

ARTIFACT = {
    "group": "org.example",
    "artifact": "thing",
    "version": "1.0",
    "extension": "jar",
    "to": ["lib"],
    "size": 3,
    "sha256": "0" * 64,
}


def lock_with(**changes: object) -> bytes:
    return json.dumps({"opensearch": "2.19.6", "artifacts": [ARTIFACT | changes]}).encode()


@pytest.mark.parametrize("version", ["2.19.6", "3.6.0"])
def test_a_packaged_lock_has_the_jar_of_every_module(version: str) -> None:
    lock = load(version)
    placed = {(f"{a.group}:{a.artifact}", folder) for a in lock.artifacts for folder in a.to}
    for module in modules(lock.major):
        for root in module.roots:
            assert (root, f"modules/{module.name}") in placed
    assert all(artifact.version == version for artifact in lock.artifacts if artifact.artifact == "opensearch")


@pytest.mark.parametrize("version", ["2.19.6", "3.6.0"])
def test_no_folder_of_a_packaged_lock_gets_two_versions_of_a_jar(version: str) -> None:
    lock = load(version)
    names = Counter((a.group, a.artifact, folder) for a in lock.artifacts for folder in a.to)
    assert [name for name, count in names.items() if count > 1] == []
    lib = {(a.group, a.artifact) for a in lock.artifacts if "lib" in a.to}
    # A jar in lib/ and again in a module is what OpenSearch refuses to start with.
    assert not lib & {(a.group, a.artifact) for a in lock.artifacts if "lib" not in a.to}


def test_without_ml_commons_its_plugin_is_all_that_is_missing() -> None:
    lock = load("2.19.6")
    left_out = set(lock.select(ml_commons=True)) - set(lock.select(ml_commons=False))
    assert {artifact.artifact for artifact in left_out} == {"opensearch-ml-plugin"}
    assert sum(artifact.size for artifact in lock.select(ml_commons=False)) < 80_000_000


def test_a_lock_is_written_as_it_was_read() -> None:
    for version in versions():
        assert parse(dump(load(version))) == load(version)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sha256", "ABC"),
        ("size", 0),
        ("to", []),
        ("to", ["../lib"]),
        ("to", ["modules/../../etc"]),
        ("extension", "sh"),
        ("version", "../1.0"),
        ("artifact", "a/b"),
        ("surplus", 1),
    ],
)
def test_a_lock_that_could_write_elsewhere_or_check_nothing_is_refused(field: str, value: object) -> None:
    parse(lock_with())
    with pytest.raises(SandboxError, match="not a lock"):
        parse(lock_with(**{field: value}))


@given(st.binary() | st.recursive(st.none() | st.text(), st.lists).map(lambda value: json.dumps(value).encode()))
def test_anything_else_is_refused_in_one_way(data: bytes) -> None:
    with pytest.raises(SandboxError):
        parse(data)


def test_an_unknown_version_is_refused_with_those_there_are() -> None:
    with pytest.raises(SandboxError, match=r"has no OpenSearch 1\.0\.0; it has .*2\.19\.6.*sandbox lock 1\.0\.0"):
        load("1.0.0")


def test_a_lock_made_on_this_machine_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERNIGHT_CACHE", str(tmp_path))
    made_here().mkdir(parents=True)
    made = Lock("2.18.0", load("2.19.6").artifacts[:1])
    (made_here() / "2.18.0.json").write_bytes(dump(made))
    assert load("2.18.0") == made
    assert versions() == ("2.18.0", "2.19.6", "3.6.0")
