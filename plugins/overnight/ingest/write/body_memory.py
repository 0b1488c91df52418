"""The memory of ``_bulk`` bodies, used again: the system clears each page of what is new."""

from __future__ import annotations

from io import BytesIO


class BodyMemory:
    """
    Memory for the bodies of one load. Thread-safe.

    :param size: Bytes of a body, as a rule. What a larger one took is not kept.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._free: list[BytesIO] = []

    def take(self, size: int) -> BytesIO:
        """
        Return memory to write a body into, from its start on.

        :param size: Of the first documents.
        """
        try:
            return self._free.pop() if size <= self._size else BytesIO()
        except IndexError:
            return BytesIO()

    def give_back(self, body: BytesIO) -> None:
        """
        Keep a body's memory for another one, unless somebody still reads it.

        A call that took too long goes on in a thread of its own, and would send what is written here next.
        """
        try:
            body.seek(0)
            body.write(b"")  # refused while there is a view
        except BufferError:
            return
        if len(body.getbuffer()) <= self._size:
            self._free.append(body)
