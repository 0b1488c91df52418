"""The name of the machine that a process pretends to run on; Airflow's ``[core] hostname_callable`` here."""

from __future__ import annotations

import os

VARIABLE = "OVERNIGHT_TEST_MACHINE"


def read_name() -> str:
    """Return the name that the process was started with."""
    return os.environ.get(VARIABLE, "localhost")
