from __future__ import annotations

from pathlib import Path

import pytest

from overnight.sandbox.corpus import documents, files

MODULE = '''\
"""What the module is about."""

def plain(a, *, b: int = 2) -> str:
    """Do something plain."""
    def inner():
        """Inside."""

async def waiting():
    """Wait."""

def silent():
    return 1

class Thing:
    """A thing."""

    @property
    def size(self):
        """How large it is."""

    @size.setter
    def size(self, value):
        """Make it larger."""

if True:
    def conditional():
        """Below an if."""
'''


@pytest.fixture
def library(tmp_path: Path) -> Path:
    for name, text in {
        "thing.py": MODULE,
        "package/__init__.py": '"""A package."""',
        "package/part.py": '"""A part."""',
        "test/thing.py": '"""Left out."""',
        "package/tests/thing.py": '"""Left out, too."""',
        "site-packages/other.py": '"""Not of the library."""',
        "broken.py": '"""Broken.""" def',
        "notes.txt": '"""No source."""',
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_there_is_a_document_for_every_docstring_and_for_nothing_else(library: Path) -> None:
    assert [document["id"] for document in documents(library)] == [
        "package",
        "package.part",
        "thing",
        "thing.plain",
        "thing.plain.inner",
        "thing.waiting",
        "thing.Thing",
        "thing.Thing.size",
        "thing.Thing.size#2",
        "thing.conditional",
    ]


def test_a_document_has_what_people_search_for(library: Path) -> None:
    found = {document["id"]: document for document in documents(library)}
    assert found["thing.plain"] == {
        "id": "thing.plain",
        "kind": "function",
        "module": "thing",
        "name": "plain",
        "signature": "(a, *, b: int=2)",
        "text": "thing.plain(a, *, b: int=2)\nDo something plain.",
    }
    assert {name: found[name]["kind"] for name in ("thing", "thing.waiting", "thing.Thing")} == {
        "thing": "module",
        "thing.waiting": "function",
        "thing.Thing": "class",
    }


def test_of_two_with_the_same_name_each_has_its_own_text(library: Path) -> None:
    found = {document["id"]: document for document in documents(library)}
    assert found["thing.Thing.size"]["text"].endswith("How large it is.")
    assert found["thing.Thing.size#2"]["text"].endswith("Make it larger.")
    assert found["thing.Thing.size#2"]["name"] == "Thing.size"


def test_the_standard_library_gives_thousands_with_unique_ids() -> None:
    found = list(documents())
    ids = [document["id"] for document in found]
    assert len(ids) >= 6_000
    assert len(set(ids)) == len(ids)
    assert {"shutil.rmtree", "statistics.mean", "textwrap.wrap"} <= set(ids)
    assert all(document["text"].strip() and document["module"] for document in found)
    assert max(len(name.encode()) for name in ids) <= 512


def test_nothing_is_imported_to_be_read(tmp_path: Path) -> None:
    (tmp_path / "window.py").write_text('"""Opens a window."""\nraise SystemExit("imported")\n')
    assert [document["id"] for document in documents(tmp_path)] == ["window"]


def test_files_are_real_of_each_kind_and_no_more_than_asked_for() -> None:
    found = files()
    assert {path.suffix for path in map(Path, found)} == {".txt", ".html", ".md"}
    assert all(path.is_file() and 500 <= path.stat().st_size <= 200_000 for path in found.values())
    assert len(set(found.values())) == len(found) <= 120
    assert len(files(12)) == 12
    assert files(12) == files(12)
