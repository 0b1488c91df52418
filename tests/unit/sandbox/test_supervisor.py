"""The supervisor with services of the smallest kind: Python's own web server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import msgspec
import psutil
import pytest

from overnight.sandbox.errors import SandboxError, ServiceStartError
from overnight.sandbox.process import LOCALHOST, Launch, ProcessId, free_port
from overnight.sandbox.services import Plan, Service
from overnight.sandbox.supervisor import STATE, Running, Sandbox, State
from patience import PATIENCE


def web(name: str, *, argv: tuple[str, ...] | None = None) -> Service:
    def prepare(plan: Plan) -> Launch:
        folder = plan.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        port = str(plan.ports[name])
        server = (sys.executable, "-m", "http.server", "--bind", LOCALHOST, port)
        url = f"http://{LOCALHOST}:{port}"
        return Launch(name=name, argv=argv or server, url=url, health=url, cwd=folder, log=folder / "log")

    return Service(name, 0, (), prepare, lambda port: {f"{name.upper()}_URL": f"http://{LOCALHOST}:{port}"})


def processes_in(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def test_services_go_up_and_down_together(tmp_path: Path) -> None:
    Sandbox(tmp_path).up([web("one"), web("two")])
    # Another object, as another process would have it: all that is known is in the folder.
    sandbox = Sandbox(tmp_path)
    environment = sandbox.environment()
    assert set(environment) == {"ONE_URL", "TWO_URL"}
    assert all(httpx.get(url).is_success for url in environment.values())
    assert [(status.service.name, status.alive) for status in sandbox.status()] == [("one", True), ("two", True)]
    assert len(processes_in(tmp_path)) == 2
    assert sandbox.down() == ("one", "two")
    assert processes_in(tmp_path) == []
    assert sandbox.status() == ()
    assert sandbox.down() == ()
    with pytest.raises(SandboxError, match="sandbox up"):
        sandbox.environment()


def test_when_one_does_not_start_none_is_left(tmp_path: Path) -> None:
    broken = web("broken", argv=(sys.executable, "-c", "raise SystemExit('no luck')"))
    sandbox = Sandbox(tmp_path)
    with pytest.raises(ServiceStartError, match="no luck"):
        sandbox.up([web("fine"), broken])
    assert processes_in(tmp_path) == []
    assert sandbox.status() == ()


def test_a_second_up_in_the_same_folder_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path)
    sandbox.up([web("one")])
    try:
        with pytest.raises(SandboxError, match="one already running"):
            Sandbox(tmp_path).up([web("two")])
        assert [status.alive for status in sandbox.status()] == [True]
    finally:
        sandbox.down()


def test_a_service_that_died_is_shown_and_can_be_started_again(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path)
    sandbox.up([web("one")])
    (status,) = sandbox.status()
    status.service.process.stop()
    assert [status.alive for status in sandbox.status()] == [False]
    sandbox.up([web("one")])
    assert [status.alive for status in sandbox.status()] == [True]
    sandbox.down()


def test_a_process_that_took_over_a_number_is_never_stopped(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as innocent:
        stale = ProcessId(innocent.pid, ProcessId.of(innocent.pid).started - 3600)
        state = State(stale, (Running("one", stale, "http://127.0.0.1:9", "log", {}),))
        (tmp_path / STATE).write_bytes(msgspec.json.encode(state))
        assert Sandbox(tmp_path).down() == ()
        assert innocent.poll() is None
        innocent.kill()
    assert not (tmp_path / STATE).exists()


def test_a_damaged_state_file_is_named(tmp_path: Path) -> None:
    (tmp_path / STATE).write_text('{"services": 1}')
    with pytest.raises(SandboxError, match=r"state\.json is not a state file"):
        Sandbox(tmp_path).status()


def test_purge_deletes_what_lies_behind_a_link_too(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "segment").write_text("documents")
    folder = tmp_path / "sandbox"
    folder.mkdir()
    (folder / "node").symlink_to(elsewhere)
    Sandbox(folder).purge()
    assert not folder.exists()
    assert not elsewhere.exists()
    Sandbox(folder).purge()


FOREGROUND = """
import sys
from pathlib import Path
from rich.console import Console
from overnight.sandbox.supervisor import Sandbox
sys.path[:0] = {folders!r}
from test_supervisor import web
Sandbox(Path({folder!r}), console=Console(stderr=True)).up([web("one"), web("two")], stay=True)
"""


def foreground(folder: Path) -> subprocess.Popen[str]:
    """Start ``up`` in a process of its own, and return when it says that everything is ready."""
    folders = [str(Path(__file__).parents[level]) for level in (0, 2)]
    code = FOREGROUND.format(folders=folders, folder=str(folder))
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = ""
    while "Ready." not in said and (line := process.stderr.readline()):
        said += line
    assert "Ready." in said
    return process


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_foreground_stops_the_children(tmp_path: Path, number: signal.Signals) -> None:
    with foreground(tmp_path) as process:
        assert len(processes_in(tmp_path)) == 2
        process.send_signal(number)
        assert process.wait(PATIENCE) == 0
    assert processes_in(tmp_path) == []
    assert not (tmp_path / STATE).exists()


def test_down_ends_the_foreground_too(tmp_path: Path) -> None:
    with foreground(tmp_path) as process:
        assert Sandbox(tmp_path).down() == ("one", "two")
        assert process.wait(PATIENCE) == 0
    assert processes_in(tmp_path) == []


def test_after_a_killed_foreground_down_finds_its_children(tmp_path: Path) -> None:
    with foreground(tmp_path) as process:
        process.kill()
        process.wait(PATIENCE)
        assert len(processes_in(tmp_path)) == 2
        assert Sandbox(tmp_path).down() == ("one", "two")
    assert processes_in(tmp_path) == []


def test_the_foreground_fails_when_a_service_ends_by_itself(tmp_path: Path) -> None:
    with foreground(tmp_path) as process:
        os.kill(Sandbox(tmp_path).status()[0].service.process.pid, signal.SIGKILL)
        assert process.wait(PATIENCE) != 0
        assert process.stderr is not None
        assert "Ended by itself: one" in process.stderr.read()
    assert processes_in(tmp_path) == []


def test_the_state_file_holds_what_a_person_would_look_for(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path)
    sandbox.up([web("one")])
    try:
        (service,) = json.loads((tmp_path / STATE).read_text())["services"]
        assert psutil.Process(service["process"]["pid"]).is_running()
        assert service["log"] == str(tmp_path / "one" / "log")
    finally:
        sandbox.down()


def test_a_port_that_is_taken_moves_the_service(tmp_path: Path) -> None:
    preferred = free_port()
    service = web("one")
    with subprocess.Popen(
        [sys.executable, "-m", "http.server", "--bind", LOCALHOST, str(preferred)], stderr=subprocess.DEVNULL
    ) as other:
        while not _answers(f"http://{LOCALHOST}:{preferred}"):
            time.sleep(0.05)
        sandbox = Sandbox(tmp_path)
        sandbox.up([Service("one", preferred, (), service.prepare, service.environment)])
        assert not sandbox.environment()["ONE_URL"].endswith(f":{preferred}")
        sandbox.down()
        other.kill()
