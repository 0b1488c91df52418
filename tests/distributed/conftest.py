from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            # The first test also waits for every server, and for both runs to end.
            item.add_marker(pytest.mark.timeout(1_800))
