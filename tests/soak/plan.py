"""All of a soak that is random, decided by its seed: which runs, of what size, what is killed, and which calls fail."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

SHARE: Final = 0.2
"""Part of the calls to each server that go wrong."""

PIPELINES: Final = (
    "soak_openai",
    "soak_openai_on_worker",
    "soak_transform",
    "soak_predict",
    "soak_llamacloud",
    "soak_azure",
)
"""The DAGs, one of each at least."""

FAULTS: Final[Mapping[str, tuple[str, ...]]] = {
    "openai": ("rate_limited", "server_error", "server_error_after", "lost_answer", "cut_body", "broken_json"),
    "sagemaker": ("throttled", "unavailable", "internal_error", "internal_error_after", "lost_answer"),
    "llamacloud": ("rate_limited", "server_error", "lost_answer", "cut_body"),
    "azure": ("refused", "refused_after", "lost_answer"),
    "s3": ("rate_limited", "server_error", "lost_answer", "cut_body"),
    "opensearch": ("rate_limited", "server_error"),
}
"""By emulator, or by server behind a gateway, the ways in which a call goes wrong, in the order of the draws."""

FAILED_LINES: Final = "t$"
MISSING_LINES: Final = "y$"
"""Lines of OpenAI's batches that fail, or get no result, by their ``custom_id``: so there are rejected and missing
documents to count."""
LINES: Final = {
    "lines_failed": {"share": 1, "custom_id": FAILED_LINES},
    "lines_missing": {"share": 1, "custom_id": MISSING_LINES},
}

VICTIMS: Final = {"task": 9, "worker": 3, "triggerer": 3, "scheduler": 3, "node": 2}
"""What is killed, and how often beside the others: one task's process, a part of Airflow with all that it started, or
the OpenSearch node."""


@dataclass(frozen=True)
class PlannedRun:
    """
    One DAG run.

    :param start: Of its documents, in the corpus.
    :param documents: How many, or how many files where the pipeline takes files.
    :param parts: Batches, or input files, that they are spread over.
    """

    number: int
    dag_id: str
    start: int
    documents: int
    parts: int


@dataclass(frozen=True)
class PlannedKill:
    """
    One SIGKILL.

    :param after: Seconds since the one before.
    :param pick: In [0, 1): which of several.
    :param down: Seconds after which a killed server is started again.
    """

    after: float
    victim: str
    pick: float
    down: float


def plan_runs(seed: int) -> Iterator[PlannedRun]:
    """Yield runs without an end: every pipeline once in each round, in an order of its own."""
    rng = random.Random(f"{seed}:runs")
    number = 0
    while True:
        for dag_id in rng.sample(PIPELINES, len(PIPELINES)):
            yield PlannedRun(number, dag_id, rng.randrange(500), rng.randint(20, 80), rng.randint(1, 3))
            number += 1


def plan_kills(seed: int) -> Iterator[PlannedKill]:
    """Yield kills without an end."""
    rng = random.Random(f"{seed}:kills")
    while True:
        (victim,) = rng.choices(list(VICTIMS), list(VICTIMS.values()))
        yield PlannedKill(rng.uniform(6, 20), victim, rng.random(), rng.uniform(0, 6))


def plan_faults(seed: int) -> dict[str, dict[str, Any]]:
    """Return what to set each server's faults to, so that :data:`SHARE` of its calls go wrong."""
    return {name: _spread(random.Random(f"{seed}:{name}"), kinds) for name, kinds in FAULTS.items()}


def _spread(rng: random.Random, kinds: tuple[str, ...]) -> dict[str, Any]:
    weights = {kind: 0.5 + rng.random() for kind in kinds}
    shares, left = {}, 1.0
    for kind, weight in weights.items():
        share = SHARE * weight / sum(weights.values())
        # The emulator draws for one kind after another; a later one is asked only when no earlier one struck.
        shares[kind] = round(share / left, 4)
        left -= share
    return shares
