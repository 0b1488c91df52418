from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.chunking import ChunkConfig, ChunkReport, cut
from overnight.errors import SpecError

MARKDOWN = "# One\n\nFirst words.\n\n# Two\n\n" + "Second words, a few more of them. " * 20


def jsonl(folder: Path, *documents: Any, name: str = "documents.jsonl") -> str:
    path = folder / name
    path.write_bytes(b"".join(orjson.dumps(document) + b"\n" for document in documents))
    return str(path)


def document(number: int = 1, **fields: Any) -> dict[str, Any]:
    return {"file_id": f"dfl-{number}", "name": f"{number}.md", "markdown": MARKDOWN, "metadata": {"k": "v"}, **fields}


def chunked(folder: Path, *uris: str, **config: Any) -> tuple[ChunkReport, list[dict[str, Any]]]:
    report = cut(uris, str(folder / "chunks.jsonl"), ChunkConfig(**config))
    return report, [orjson.loads(line) for line in Path(report.uri).read_bytes().splitlines()]


def test_each_chunk_has_an_id_a_text_its_place_and_what_its_document_says(tmp_path: Path) -> None:
    report, chunks = chunked(tmp_path, jsonl(tmp_path, document(1), document(2)), max_size=200)
    of_one = [chunk for chunk in chunks if chunk["file_id"] == "dfl-1"]
    assert [chunk["id"] for chunk in of_one] == [f"dfl-1-{n}" for n in range(len(of_one))]
    assert [chunk["chunk"] for chunk in of_one] == list(range(len(of_one)))
    assert {chunk["chunks"] for chunk in of_one} == {len(of_one)}
    assert {(chunk["name"], chunk["metadata"]["k"]) for chunk in of_one} == {("1.md", "v")}
    assert (report.documents, report.chunks, report.empty) == (2, len(chunks), 0)


def test_no_chunk_is_too_large_and_no_word_is_lost(tmp_path: Path) -> None:
    _, chunks = chunked(tmp_path, jsonl(tmp_path, document()), max_size=100)
    assert all(len(chunk["text"]) <= 100 for chunk in chunks)
    assert " ".join(chunk["text"] for chunk in chunks).split() == MARKDOWN.split()


def test_markdown_is_cut_at_its_headings(tmp_path: Path) -> None:
    text = "# One\n\nFirst words.\n\n# Two\n\nSecond words."
    _, chunks = chunked(tmp_path, jsonl(tmp_path, document(markdown=text)), max_size=30)
    assert [chunk["text"] for chunk in chunks] == ["# One\n\nFirst words.", "# Two\n\nSecond words."]


def test_neighbours_overlap_when_asked_to(tmp_path: Path) -> None:
    words = " ".join(f"word{n}" for n in range(100))
    _, chunks = chunked(tmp_path, jsonl(tmp_path, document(markdown=words)), max_size=100, overlap=40, format="text")
    for one, other in itertools.pairwise(chunks):
        assert one["text"].split()[-1] in other["text"].split()


def test_sizes_can_be_counted_in_a_models_tokens(tmp_path: Path) -> None:
    source = jsonl(tmp_path, document(markdown="antidisestablishmentarianism " * 40))
    _, in_tokens = chunked(tmp_path, source, max_size=50, model="text-embedding-3-small")
    _, in_characters = chunked(tmp_path, source, max_size=50)
    assert len(in_tokens) < len(in_characters)
    with pytest.raises(SpecError, match="no-such-model"):
        chunked(tmp_path, source, model="no-such-model")


def test_the_same_documents_give_the_same_file(tmp_path: Path) -> None:
    source = jsonl(tmp_path, document(1), document(2))
    first = Path(chunked(tmp_path, source, max_size=150)[0].uri).read_bytes()
    assert Path(chunked(tmp_path, source, max_size=150)[0].uri).read_bytes() == first


def test_an_address_makes_an_id_that_stays_the_same_when_a_file_is_sent_anew(tmp_path: Path) -> None:
    uri = "s3://bucket/a folder/ä" + "x" * 600
    ids = []
    for number in (1, 2):
        source = jsonl(tmp_path, document(number, source_uri=uri))
        ids.append([chunk["id"] for chunk in chunked(tmp_path, source, id_field="source_uri")[1]])
    assert ids[0] == ids[1]
    assert all(len(one.encode()) <= 512 for one in ids[0])


def test_documents_without_text_are_counted_and_named(tmp_path: Path) -> None:
    source = jsonl(tmp_path, document(1), document(2, markdown=""), document(3, markdown=" \n "))
    report, _ = chunked(tmp_path, source)
    assert (report.documents, report.empty, report.empty_ids) == (3, 2, ("dfl-2", "dfl-3"))


def test_a_file_without_text_is_named_by_its_address_and_not_by_the_digest_of_it(tmp_path: Path) -> None:
    source = jsonl(tmp_path, document(source_uri="https://host/a page.html?key=secret", markdown=" "))
    report, _ = chunked(tmp_path, source, id_field="source_uri")
    assert report.empty_ids == ("https://host/a page.html",)


def test_several_files_become_one(tmp_path: Path) -> None:
    sources = [jsonl(tmp_path, document(number), name=f"{number}.jsonl") for number in range(3)]
    assert {chunk["file_id"] for chunk in chunked(tmp_path, *sources)[1]} == {"dfl-0", "dfl-1", "dfl-2"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"not json", "line 2: not JSON"),
        (b"[1]", "line 2: not a JSON object"),
        (b'{"markdown": "x"}', "line 2: no 'file_id'"),
        (b'{"file_id": "x"}', "line 2: no text in 'markdown'"),
        (b'{"file_id": "x", "markdown": 1}', "line 2: no text in 'markdown'"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(orjson.dumps(document()) + b"\n" + line)
    with pytest.raises(SpecError, match=message):
        chunked(tmp_path, str(path))


@pytest.mark.parametrize(
    "config",
    [
        {"max_size": 0},
        {"max_size": 10, "min_size": 11},
        {"max_size": 10, "overlap": 10},
        {"max_size": 10, "min_size": 5, "overlap": 5},
        {"keep": ("text",)},
        {"sizes": 3},
    ],
)
def test_sizes_that_contradict_each_other_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        ChunkConfig(**config)


@given(text=st.text(max_size=400), size=st.integers(1, 60), form=st.sampled_from(["markdown", "text"]))
def test_any_text_is_cut_into_chunks_that_fit_and_hold_all_of_it(
    tmp_path_factory: pytest.TempPathFactory, text: str, size: int, form: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    text = text.encode("utf-8", "ignore").decode()
    _, chunks = chunked(folder, jsonl(folder, document(markdown=text)), max_size=size, format=form)
    assert all(len(chunk["text"]) <= size for chunk in chunks)
    assert "".join("".join(chunk["text"].split()) for chunk in chunks) == "".join(text.split())
