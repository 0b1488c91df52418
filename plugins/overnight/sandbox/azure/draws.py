"""Which requests and items get a fault."""

from __future__ import annotations

from overnight.sandbox.azure.settings import Faults
from overnight.sandbox.emulator.draws import Draws as BaseDraws

HTTP_FAULTS = ("timeout", "refused", "refused_after", "lost_answer")


class Draws(BaseDraws):
    """The draws for requests and jobs."""

    def request(self, faults: Faults, method: str, path: str) -> str | None:
        """Return the fault that hits a request, if any."""
        return self.first(HTTP_FAULTS, faults, method, path)

    def job_fate(self, faults: Faults) -> str | None:
        """Return what becomes of a job that is created now: an error code, ``stuck``, or nothing unusual."""
        if self.hits("job_failed", faults.job_failed):
            return faults.job_failed_code
        return "stuck" if self.hits("job_stuck", faults.job_stuck) else None
