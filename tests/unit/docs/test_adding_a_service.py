"""The page says how a service is added; the print shop was added so. Neither may change without the other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
SHOP = ROOT / "tests" / "slowprint"


def test_every_block_of_code_is_the_print_shops():
    page = (ROOT / "docs" / "adding-a-service.md").read_text()
    written = "\n".join(path.read_text() for path in sorted(SHOP.glob("*.py")))
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 7
    for block in blocks:
        assert block in written


def test_the_print_shop_touches_nothing_of_the_package():
    package = "\n".join(path.read_text() for path in (ROOT / "plugins").rglob("*.py"))
    assert "slowprint" not in package
