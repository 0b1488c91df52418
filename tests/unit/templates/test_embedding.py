"""What follows from the config of a pipeline that embeds."""

from __future__ import annotations

from typing import Any

import pytest

from overnight.templates.embedding import BATCHES_IN_BUDGET, EmbeddingConfig

CONTEXT: Any = {"dag": None, "dag_run": None, "run_id": "manual", "ti": None}


@pytest.mark.parametrize(
    ("budget", "limits"),
    [
        (None, {"requests": 7}),
        ({"jobs": 2}, {"requests": 7}),
        ({"tokens": 3_000_000}, {"requests": 7, "tokens": 3_000_000 // BATCHES_IN_BUDGET}),
        ({"tokens": 1}, {"requests": 7, "tokens": 1}),
    ],
)
def test_batches_are_cut_so_that_several_fit_the_budget(
    budget: dict[str, int] | None, limits: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overnight.templates.embedding.run_folder", lambda uri, _: f"{uri}/run")
    config = EmbeddingConfig(work_uri="/work", index_name="i", batch_requests=7, budget=budget)
    assert config.settings(CONTEXT)["limits"] == limits
