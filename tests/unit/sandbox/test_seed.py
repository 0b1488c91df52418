from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from overnight.sandbox import seed as seeding
from overnight.sandbox.seed import CORE, DAYS, DOCUMENTS_A_DAY, choose, seed

TODAY = date(2026, 11, 27)
CORPUS = [
    {"id": f"{module}.f{number}", "kind": "function", "module": module, "text": "Some words to be embedded."}
    for module in ("shutil", "json", "http.client", "zipfile")
    for number in range(150)
]


class FakeStore:
    """The bucket, in memory; it is the same one for every environment."""

    objects: dict[str, bytes] = {}

    def __init__(self, environment: Mapping[str, str]) -> None:
        pass

    def list_keys(self, prefix: str) -> list[str]:
        return [key for key in self.objects if key.startswith(prefix)]

    def put_lines(self, key: str, lines: Iterable[Mapping[str, Any] | bytes]) -> None:
        self.objects[key] = b"\n".join(line if isinstance(line, bytes) else orjson.dumps(line) for line in lines)

    def put_files(self, prefix: str, named: Mapping[str, Path]) -> None:
        self.objects.update({f"{prefix}/{name}": path.read_bytes() for name, path in named.items()})


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, bytes]:
    monkeypatch.setattr(FakeStore, "objects", {})
    monkeypatch.setattr(seeding, "Store", FakeStore)
    monkeypatch.setattr(seeding, "documents", lambda: iter(CORPUS))
    for number in range(8):
        (tmp_path / f"{number}.txt").write_text(f"License {number}")
    monkeypatch.setattr(seeding, "files", lambda: {path.name: path for path in sorted(tmp_path.glob("*.txt"))})
    return FakeStore.objects


def test_every_day_of_a_week_has_documents_for_each_of_the_shipped_dags(objects: dict[str, bytes]) -> None:
    seed({"AWS_ENDPOINT_URL_S3": "http://localhost:1"}, TODAY)
    folders = {
        folder
        for path in (Path(__file__).parents[3] / "dags").glob("*.py")
        for folder in re.findall(r"s3://overnight/(\w+)/{{ ds }}/", path.read_text())
    }
    assert len(folders) == 4
    for back in range(-1, DAYS - 1):
        day = TODAY - timedelta(days=back)
        for folder in folders:
            assert [key for key in objects if key.startswith(f"{folder}/{day}/")], folder


def test_what_is_there_already_is_left_as_it_is(objects: dict[str, bytes]) -> None:
    objects[f"documents/{TODAY}/corpus.jsonl"] = b"mine"
    seed({"AWS_ENDPOINT_URL_S3": "http://localhost:1"}, TODAY)
    assert objects[f"documents/{TODAY}/corpus.jsonl"] == b"mine"
    before = dict(objects)
    seed({"AWS_ENDPOINT_URL_S3": "http://localhost:1"}, TODAY)
    assert objects == before


def test_a_days_documents_are_the_same_whenever_they_are_made_and_mostly_those_of_the_day_before() -> None:
    first, second = choose(CORPUS, TODAY), choose(CORPUS, TODAY + timedelta(days=1))
    assert choose(CORPUS, TODAY) == first != second
    assert len(first) == DOCUMENTS_A_DAY + 150
    common = {document["id"] for document in first} & {document["id"] for document in second}
    assert {document["id"] for document in CORPUS if document["module"] in CORE} <= common


def test_two_folders_have_documents_that_fail(objects: dict[str, bytes]) -> None:
    seed({"AWS_ENDPOINT_URL_S3": "http://localhost:1"}, TODAY)
    bad = objects["documents/bad-lines/corpus.jsonl"].splitlines()
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(bad[20])
    assert "text" not in orjson.loads(bad[21])
    long = [orjson.loads(line) for line in objects["documents/too-long/corpus.jsonl"].splitlines()]
    assert [len(document["text"].split()) > 8_192 for document in long].count(True) == seeding.TOO_LONG


def test_what_does_not_run_is_not_filled(objects: dict[str, bytes]) -> None:
    seed({"OPENAI_BASE_URL": "http://localhost:1"}, TODAY)
    assert objects == {}
