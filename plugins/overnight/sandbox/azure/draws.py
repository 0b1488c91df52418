"""Who is hit by a fault."""

from __future__ import annotations

import re

from overnight.sandbox.azure.settings import Faults
from overnight.sandbox.openai.decisions import Decisions
from overnight.sandbox.openai.settings import HttpFault

HTTP_FAULTS = ("timeout", "refused", "refused_after", "lost_answer")


class Draws(Decisions):
    """The same draws as the OpenAI emulator's, for the faults of this one."""

    def request(self, faults: Faults, method: str, path: str) -> str | None:
        """Return the fault that hits a request, if any."""
        for kind in HTTP_FAULTS:
            fault: HttpFault = getattr(faults, kind)
            if fault.methods and method not in fault.methods:
                continue
            if fault.path and re.search(fault.path, path) is None:
                continue
            if self._hit(kind, fault):
                return kind
        return None

    def job_fate(self, faults: Faults) -> str | None:
        """Return what becomes of a job that is created now: an error code, ``stuck``, or nothing unusual."""
        if self._hit("job_failed", faults.job_failed):
            return faults.job_failed_code
        return "stuck" if self._hit("job_stuck", faults.job_stuck) else None
