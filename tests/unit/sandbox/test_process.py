"""Real processes; nothing here is pretended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from overnight.sandbox.errors import ServiceStartError
from overnight.sandbox.process import Launch, ProcessId, free_port, start, wait_ready


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


def launch(folder: Path, code: str, **changes: object) -> Launch:
    options = {
        "name": "thing",
        "argv": (sys.executable, "-c", code),
        "url": "http://127.0.0.1:9",
        "health": "http://127.0.0.1:9/",
        "cwd": folder,
        "log": folder / "logs" / "thing.log",
    }
    return Launch(**(options | changes))  # type: ignore[arg-type]


def test_a_process_is_found_by_its_number_and_its_start(sleeper: subprocess.Popen[bytes]) -> None:
    identity = ProcessId.of(sleeper.pid)
    found = identity.find()
    assert found is not None
    assert found.pid == sleeper.pid


def test_a_number_that_was_used_again_is_left_alone(sleeper: subprocess.Popen[bytes]) -> None:
    gone = ProcessId(sleeper.pid, ProcessId.of(sleeper.pid).started - 60.0)
    assert gone.find() is None
    assert gone.stop() is False
    assert sleeper.poll() is None


def test_a_zombie_does_not_run(sleeper: subprocess.Popen[bytes]) -> None:
    identity = ProcessId.of(sleeper.pid)
    sleeper.kill()
    # Not waited for, so it is a zombie until the fixture's end.
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(sleeper.pid).status() == psutil.STATUS_ZOMBIE
    assert identity.find() is None


def test_stopping_ends_a_process_that_listens(tmp_path: Path) -> None:
    process = start(launch(tmp_path, "import time; time.sleep(600)"))
    assert process.stop() is True
    assert not psutil.pid_exists(process.pid)
    assert process.stop() is False


def test_stopping_ends_one_that_does_not_listen_and_its_child(tmp_path: Path) -> None:
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    process = start(launch(tmp_path, code))
    log = tmp_path / "logs" / "thing.log"
    while not log.read_text().strip():
        time.sleep(0.02)
    child = ProcessId.of(int(log.read_text()))
    process.stop(timeout=0.5)
    assert process.find() is None
    assert child.find() is None


def test_a_server_is_beyond_the_reach_of_the_terminals_ctrl_c(tmp_path: Path) -> None:
    process = start(launch(tmp_path, "import time; time.sleep(600)"))
    try:
        assert os.getsid(process.pid) == process.pid
    finally:
        process.stop()


def test_the_environment_is_ours_with_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAKEN", "away")
    monkeypatch.setenv("KEPT", "yes")
    code = "import os; print(os.environ.get('TAKEN'), os.environ['KEPT'], os.environ['ADDED'])"
    process = start(launch(tmp_path, code, environ={"TAKEN": None, "ADDED": "too"}))
    while process.find() is not None:
        time.sleep(0.02)
    process.stop()
    assert (tmp_path / "logs" / "thing.log").read_text() == "None yes too\n"


def test_a_server_that_ends_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    broken = launch(tmp_path, "raise SystemExit('no such disk')")
    with pytest.raises(ServiceStartError, match=r"(?s)thing ended while it was starting.*no such disk"):
        wait_ready(broken, start(broken))


def test_a_server_that_stays_silent_is_reported(tmp_path: Path) -> None:
    silent = launch(tmp_path, "import time; time.sleep(600)", ready_within=0.3)
    process = start(silent)
    try:
        with pytest.raises(ServiceStartError, match="not ready"):
            wait_ready(silent, process)
    finally:
        process.stop()


def test_a_program_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ServiceStartError, match="thing cannot be started"):
        start(launch(tmp_path, "", argv=(str(tmp_path / "nothing"),)))


def test_a_port_in_use_is_passed_over() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        assert free_port(taken) not in (0, taken)
    free = free_port()
    assert free_port(free) == free


def test_stopping_a_process_that_another_started_needs_no_parent(tmp_path: Path) -> None:
    # A grandchild, as `down` finds it: its parent has gone without waiting for it.
    code = (
        "import subprocess, sys; null = subprocess.DEVNULL;"
        "argv = [sys.executable, '-c', 'import time; time.sleep(600)'];"
        "print(subprocess.Popen(argv, stdout=null, stderr=null).pid)"
    )
    pid = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    identity = ProcessId.of(pid)
    try:
        assert identity.stop() is True
        assert identity.find() is None
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
