from __future__ import annotations

import pytest

from overnight.sandbox.openai.errors import ApiError
from overnight.sandbox.openai.settings import Settings
from overnight.sandbox.openai.state import State


@pytest.fixture
def state(tmp_path):
    made = State.open(Settings(data_dir=tmp_path / "data"))
    yield made
    made.database.close()


def adopt(state, part, *, or_empty=False):
    return state.files.adopt(
        part, name="batch_1.output", purpose="batch_output", filename="o.jsonl", lifetime=None, or_empty=or_empty
    )


def test_taking_in_the_same_result_twice_changes_nothing(state, tmp_path):
    part = tmp_path / "part"
    part.write_bytes(b"{}\n")
    first = adopt(state, part)
    assert not part.exists()
    assert adopt(state, part) == first
    assert adopt(state, part, or_empty=True) == first
    assert state.files.path(first).read_bytes() == b"{}\n"
    assert len(state.files.page(after=None, limit=9, newest_first=True, purpose=None).items) == 1


def test_a_result_moved_before_the_crash_is_recorded_after_it(state, tmp_path):
    part = tmp_path / "part"
    part.write_bytes(b"{}\n")
    file_id = adopt(state, part)
    with state.database.transaction() as connection:
        connection.execute("DELETE FROM files")
    assert adopt(state, part, or_empty=True) == file_id
    assert state.files.get(file_id).bytes == 3


def test_no_result_is_no_file_unless_one_is_wanted(state, tmp_path):
    assert adopt(state, tmp_path / "none") is None
    file_id = adopt(state, tmp_path / "none", or_empty=True)
    assert state.files.get(file_id).bytes == 0


def test_half_an_upload_is_gone_after_a_restart(tmp_path):
    settings = Settings(data_dir=tmp_path)
    state = State.open(settings)
    (state.incoming / "half").write_bytes(b"x")
    state.database.close()
    again = State.open(settings)
    assert list(again.incoming.iterdir()) == []
    again.database.close()


def test_the_clock_keeps_its_offset(tmp_path):
    settings = Settings(data_dir=tmp_path)
    state = State.open(settings)
    before = state.clock.now()
    state.clock.advance(86_400)
    state.database.close()
    again = State.open(settings)
    assert again.clock.now() >= before + 86_400
    again.database.close()


def test_a_failed_transaction_leaves_nothing(state):
    class OnPurposeError(Exception):
        pass

    def write():
        with state.database.transaction() as connection:
            connection.execute("INSERT INTO state VALUES ('a', 'b')")
            raise OnPurposeError

    with pytest.raises(OnPurposeError):
        write()
    assert state.database.get("a") is None


def batch(state, **settings):
    path = state.incoming / "in"
    path.write_bytes(b'{"custom_id": "a"}\n')
    file = state.files.add(path, purpose="batch", filename="in.jsonl", lifetime=None)
    request = {"input_file_id": file.id, "endpoint": "/v1/embeddings", "completion_window": "24h"}
    return state.batches.create(request, state.settings, by_deployment=False, draw=lambda: "normal")


def test_a_batch_keeps_its_input_when_the_file_is_deleted(state):
    made = batch(state)
    state.files.delete(made.input_file_id)
    assert state.batches.part(made.id, "input").read_bytes() == b'{"custom_id": "a"}\n'


def test_batches_are_numbered_in_the_order_of_their_creation(state):
    first, second = batch(state), batch(state)
    assert first.number < second.number == state.batches.get(second.id).number


def test_cancelling_twice_is_cancelling_once(state):
    made = batch(state)
    first = state.batches.cancel(made.id, state.settings.quirks)
    assert state.batches.cancel(made.id, state.settings.quirks) == first
    with state.batches.change(made.id) as record:
        record.status = "cancelled"
    with pytest.raises(ApiError) as caught:
        state.batches.cancel(made.id, state.settings.quirks)
    assert caught.value.status == 409
    assert state.batches.unfinished() == []


def test_the_key_is_not_in_what_can_be_printed(tmp_path):
    assert "sk-secret" not in repr(Settings(data_dir=tmp_path, api_key="sk-secret"))
