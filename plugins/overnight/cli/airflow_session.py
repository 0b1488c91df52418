"""Airflow within a command: where connections are looked up, and where the log goes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_VARIABLES: Final = {
    # Airflow looks connections up in its metadata database, too, as for its own commands.
    "_AIRFLOW_PROCESS_CONTEXT": "server",
    # Its log goes to stdout, where a command's result is.
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL",
}


@contextmanager
def airflow_session() -> Iterator[None]:
    """Have Airflow, which is to be imported in here, find connections and be silent; our warnings go to stderr."""
    before = {name: os.environ.get(name) for name in _VARIABLES}
    # Also in place of a deployment's own level: its lines would stand before a command's JSON.
    os.environ.update(_VARIABLES)
    logger = logging.getLogger("overnight")
    propagate, logger.propagate = logger.propagate, False
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
