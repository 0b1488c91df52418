"""Blocking calls in other threads, which calls share."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import Final, TypeVar

T = TypeVar("T")

_MAX_IDLE: Final = 8
_idle: list[SimpleQueue[Callable[[], None]]] = []
"""Of each thread that waits for a call to carry out what it is given."""
os.register_at_fork(after_in_child=_idle.clear)


def start_call(function: Callable[[], T]) -> Future[T]:
    """
    Call a blocking function in another thread, and return what its result or its error will be in.

    No process waits for such a call at its end.
    """
    done: Future[T] = Future()

    def carry_out() -> None:
        try:
            done.set_result(function())
        except BaseException as error:  # it is raised in the thread that waits
            done.set_exception(error)

    # A new thread for each call costs as much processor time as the call: it starts on whichever processor is free.
    try:
        calls = _idle.pop()
    except IndexError:
        calls = SimpleQueue()
        # A daemon, so that a server which never ends its answer does not keep the process from ending.
        threading.Thread(target=_serve, args=(calls,), daemon=True).start()
    calls.put(partial(copy_context().run, carry_out))
    return done


def _serve(calls: SimpleQueue[Callable[[], None]]) -> None:
    while True:
        calls.get()()
        _idle.append(calls)
        if len(_idle) > _MAX_IDLE:
            with suppress(ValueError):  # it was taken for another call
                _idle.remove(calls)
                return
