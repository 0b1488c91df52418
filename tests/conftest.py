"""Nothing of the developer's own environment reaches a test: no keys, no endpoints, no Airflow connections."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings

# Examples that first touch a disk or a compiler take longer than hypothesis' 200 ms; tests do not measure time.
# Each run draws the same examples, so that none needs luck.
settings.register_profile("overnight", deadline=None, derandomize=True, database=None)
# Draws others each time.
settings.register_profile("explore", deadline=None, max_examples=1_000, print_blob=True)
# Run once for every mutant; what fails fails again, and the smallest example of it interests nobody.
settings.register_profile(
    "mutants",
    deadline=None,
    max_examples=20,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.differing_executors],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "overnight"))

_PREFIXES = ("AIRFLOW_CONN_", "AWS_", "AZURE_", "LLAMA_CLOUD_", "OPENAI_", "OPENSEARCH_")
# Where certificates lie is about the machine, not about an account.
_KEPT = {"AWS_CA_BUNDLE"}


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(_PREFIXES) and name not in _KEPT:
            monkeypatch.delenv(name)
