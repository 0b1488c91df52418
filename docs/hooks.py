"""What mkdocs does to a page: a link to a file of the repository leads to the repository."""

from __future__ import annotations

import re
from typing import Any

_OUTSIDE = re.compile(r"\]\(\.\./([^)]+)\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Return a page's text with links out of ``docs/`` made whole."""
    del files
    depth = page.file.src_uri.count("/")
    return markdown if depth else _OUTSIDE.sub(rf"]({config.repo_url}/blob/main/\1)", markdown)
