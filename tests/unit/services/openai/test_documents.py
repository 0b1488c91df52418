"""Documents in blocks: the same lines as one after the other."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.services.openai import documents
from overnight.services.openai.documents import DocumentLine, JoinedBlock, read_documents, take_blocks
from overnight.services.openai.scan import InputError

LINES = st.lists(st.sampled_from([b"", b" ", b"\r", b"a", b'{"id": 1}', b"b\r", b"\rc", b"d" * 30]), max_size=40)


@given(LINES, st.booleans(), st.integers(1, 60))
def test_blocks_have_the_lines_of_a_file_with_their_places(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], is_ended: bool, size: int
) -> None:
    path = tmp_path_factory.mktemp("documents") / "a.jsonl"
    data = b"\n".join(lines) + b"\n" * is_ended
    path.write_bytes(data)
    right, offset = [], 0
    for number, line in enumerate(data.splitlines(keepends=True) if b"\r" not in data else _split(data), 1):
        right.append(DocumentLine(line, str(path), number, offset))
        offset += len(line)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "BLOCK_BYTES", size)
        assert list(read_documents([str(path)])) == right
        blocks = list(take_blocks(read_documents([str(path)])))
        assert [line for block in blocks for line in block.lines] == [line.data.rstrip(b"\r\n") for line in right]
        # However they are cut, and given one by one.
        for joined in (JoinedBlock(blocks), JoinedBlock(list(take_blocks(right)))):
            assert [joined.get(at) for at in range(len(joined.lines))] == right
            assert joined.begun == ([(0, str(path))] if right else [])


def _split(data: bytes) -> list[bytes]:
    *lines, last = data.split(b"\n")
    return [line + b"\n" for line in lines] + ([last] if last else [])


@pytest.mark.parametrize("end", [b"", b"\n", b'\n{"id": 3}\n'])
def test_a_file_whose_lines_have_no_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: bytes) -> None:
    monkeypatch.setattr(documents, "LONGEST_DOCUMENT", 20)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id": 1}\n' + b"x" * 20 + b"\n")
    with pytest.raises(InputError, match=r"line 2: the line is longer than 20 bytes; is this JSONL\?"):
        list(read_documents([str(path)]))
    path.write_bytes(b'{"id": 1}\n' + b"x" * 21 + end)
    with pytest.raises(InputError, match="line 2"):
        list(read_documents([str(path)]))
    path.write_bytes(b'{"id": 1}\n' + b"x" * 19 + end)
    assert len(list(read_documents([str(path)]))) == 2 + (len(end) > 1)
