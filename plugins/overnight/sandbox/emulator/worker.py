"""The thread behind an API, which moves its jobs on."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

_IDLE = 0.05


class Worker(ABC):
    """
    A thread that works while there is something to do, and can be killed between any two turns.

    :param name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin, with what an earlier process left."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the step in hand; what is unfinished is taken up by the next process."""
        self._stopping.set()
        self._thread.join()

    @abstractmethod
    def _turn(self) -> bool:
        """Move everything on a little; say whether there is more to do at once."""

    def _run(self) -> None:
        while not self._stopping.is_set():
            busy = self._turn()
            self._stopping.wait(0.0 if busy else _IDLE)
