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
    set_here = _VARIABLES.keys() - os.environ.keys()
    os.environ.update({name: _VARIABLES[name] for name in set_here})
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
        for name in set_here:
            os.environ.pop(name, None)
