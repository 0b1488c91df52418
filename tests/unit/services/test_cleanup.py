"""Files at a service are deleted at the same time, and each answer counts for its own."""

from __future__ import annotations

import pytest

from overnight.errors import NotFoundError, ServiceError
from overnight.services.cleanup import Deleted, delete_each
from overnight.transport.flow import Gather


def test_what_is_gone_is_deleted_and_what_is_refused_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    flow = delete_each({"a": "files/a", "b": "files/b", "c": "files/c"})
    asked = next(flow)
    assert isinstance(asked, Gather)
    assert [(call.method, call.path) for call in asked.calls] == [("DELETE", f"files/{name}") for name in "abc"]
    answers = [{"deleted": True}, NotFoundError("no such file", status=404), ServiceError("in use", status=409)]
    with pytest.raises(StopIteration) as ended:
        flow.send(answers)
    assert ended.value.value == Deleted(("a", "b"), ("c",))
    assert "The service did not delete c: in use" in caplog.text
