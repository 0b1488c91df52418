"""What the jobs of a pipeline cost, beside what they would cost at most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

from overnight.costs.estimate import CostEstimate
from overnight.costs.prices import PriceTable
from overnight.costs.spending import Spent
from overnight.costs.usage_cost import AnswerUsage, UsageCost
from overnight.jobs import JobState
from overnight.templates.report import JobReport, PartReport


class JobCosts(NamedTuple):
    """
    What jobs cost, by the usage that their service says.

    :param estimate: What was said before they were submitted; ``None`` where nothing was.
    :param total: ``None`` when none has been submitted.
    :param jobs: By a job's id, as far as it is known.
    :param is_final: Whether it is known of all parts, so that nothing of the estimate is still to come.
    """

    estimate: CostEstimate | None = None
    total: UsageCost | None = None
    jobs: Mapping[str, Spent] = {}
    is_final: bool = False

    @classmethod
    def of(cls, parts: Sequence[PartReport], estimate: CostEstimate, table: PriceTable) -> Self:
        """Price the usage of the parts that were sent."""
        usage: list[AnswerUsage] = []
        jobs: dict[str, Spent] = {}
        for job in (part.job for part in parts if part.job is not None):
            is_free = job.state in (JobState.QUEUED, JobState.FAILED) or job.succeeded == 0
            # Of a further round that is lost, what the rounds before it cost is not known here.
            if is_free and not job.usage and not job.former_rounds:
                # It was never submitted, refused as a whole, or ended before it had an answer.
                jobs[job.id] = Spent()
                continue
            used = _read_usage(job, estimate, table)
            usage.append(used)
            cost = table.cost(used.model, input=used.input, output=used.output)
            if cost is not None and not used.gap:
                jobs[job.id] = Spent(cost=cost, tokens=used.input + used.output)
        total = UsageCost.of(usage, table) if usage else None
        return cls(estimate, total, jobs, is_final=len(jobs) == len(parts))


def price_reused(parts: Sequence[PartReport], table: PriceTable) -> UsageCost | None:
    """Price the answers that were loaded and not paid for; ``None`` when there are none."""
    usage = [one for part in parts for one in part.reused_usage]
    return UsageCost.of(usage, table) if usage else None


def _read_usage(job: JobReport, estimate: CostEstimate, table: PriceTable) -> AnswerUsage:
    # A deployment may be called otherwise than the model that answers, and either may have the price.
    model = job.model if table.find(job.model) is not None else estimate.model
    used = job.usage
    return AnswerUsage(model=model, answers=job.items or 0, input=used.get("input", 0), output=used.get("output", 0))
