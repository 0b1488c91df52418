"""The file of a checkpoint: what is in its place is never overwritten unless it is one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from overnight.errors import SpecError
from overnight.ingest.write import checkpoint as module
from overnight.ingest.write.checkpoint import Checkpoint, CheckpointFile, SourceTally, Tally
from overnight.storage import Storage

CHECKPOINT = Checkpoint(fingerprint="f", tally=Tally(sources=[SourceTally(uri="a")]), write="index")


def load(path: Path, fingerprint: str = "f") -> Checkpoint | None:
    return CheckpointFile(str(path), Storage()).load(fingerprint)


def test_one_of_the_same_load_is_found_and_one_of_another_is_not(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    assert load(path) is None
    CheckpointFile(str(path), Storage()).save(CHECKPOINT)
    assert load(path) == CHECKPOINT
    assert load(path, "g") is None


@pytest.mark.parametrize("content", [b"", b" \n", json.dumps({"fingerprint": "f", "version": 99, "tally": 5}).encode()])
def test_what_is_left_of_one_or_of_another_version_is_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.json"
    path.write_bytes(content)
    assert load(path) is None


@pytest.mark.parametrize(
    "content",
    [
        b'{"id": "a"}\n{"id": "b"}\n',
        b"no JSON",
        b"[]",
        b'{"fingerprint": "f"}',
        b"\xff\xfe",
        b"[" * 100_000,
        b"\0" * 99,
    ],
)
def test_another_file_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "documents.jsonl"
    path.write_bytes(content)
    with pytest.raises(SpecError, match="is no checkpoint; it would be overwritten. Give the checkpoint a file of its"):
        load(path)
    assert path.read_bytes() == content


def test_a_device_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1_000)
    with pytest.raises(SpecError, match="/dev/zero is there and is no checkpoint"):
        load(Path("/dev/zero"))
