"""How long a test waits for what must happen."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from overnight.sandbox.errors import ServiceStartError
from overnight.sandbox.process import ProcessId

PATIENCE: Final = 900.0
"""Seconds. It ends what hangs, and nothing else: a machine that is busy may be ten times slower than usual."""


def wait_until_answers(process: ProcessId, name: str, look: Callable[[], object], no_answer: type[Exception]) -> None:
    """
    Look until a server answers that speaks no HTTP.

    :param no_answer: What ``look`` raises until then.
    :raises ServiceStartError: It ended, or :data:`PATIENCE` is over.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            look()
        except no_answer as error:
            if process.find() is None or time.monotonic() > deadline:
                raise ServiceStartError(f"{name} did not start: {error}") from error
            time.sleep(0.1)
        else:
            return
