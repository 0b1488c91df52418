from __future__ import annotations

from pathlib import Path

import pytest

from overnight.ingest.map.row_index import RowIndex
from overnight.storage_errors import StorageError


def fill(folder: Path) -> None:
    with RowIndex((), str(folder)) as index:
        index._database.execute("PRAGMA max_page_count=4")
        for number in range(10_000):
            index.see(b"%032d" % number)


def test_a_disk_that_is_full_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=rf"ids in {tmp_path} cannot be written: .*full.*spool_dir"):
        fill(tmp_path)
    assert list(tmp_path.iterdir()) == []
