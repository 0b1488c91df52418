from __future__ import annotations

from overnight.ingest.write.body_memory import BodyMemory


def test_what_was_given_back_is_written_from_its_start() -> None:
    memory = BodyMemory(100)
    body = memory.take(10)
    body.write(b"the first")
    memory.give_back(body)
    again = memory.take(100)
    assert again is body
    again.write(b"THE")
    assert again.getvalue() == b"THE first"
    assert memory.take(10) is not body


def test_what_somebody_still_reads_is_not_used_again() -> None:
    memory = BodyMemory(100)
    body = memory.take(10)
    body.write(b"the first")
    with body.getbuffer() as whole:
        piece = whole[4:]
    memory.give_back(body)
    assert memory.take(10) is not body
    assert piece == b"first"


def test_what_is_larger_than_a_body_is_neither_used_for_one_nor_kept() -> None:
    memory = BodyMemory(100)
    body = memory.take(10)
    memory.give_back(body)
    large = memory.take(101)
    assert large is not body
    large.write(bytes(101))
    memory.give_back(large)
    assert memory.take(10) is body
    assert memory.take(10) is not large
