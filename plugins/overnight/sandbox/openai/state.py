"""What the parts of a running emulator share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from overnight.sandbox.emulator.clock import Clock
from overnight.sandbox.emulator.database import Database
from overnight.sandbox.emulator.requests import Requests
from overnight.sandbox.openai.batches import BatchStore
from overnight.sandbox.openai.decisions import Decisions
from overnight.sandbox.openai.files import FileStore
from overnight.sandbox.openai.quota import TokenQueue
from overnight.sandbox.openai.runner import Runner
from overnight.sandbox.openai.settings import Settings

_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    purpose TEXT NOT NULL,
    expires_at INTEGER,
    record TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS batches (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    is_over INTEGER NOT NULL,
    record TEXT NOT NULL
);
"""


@dataclass
class State:
    """The stores, the runner, and the settings they all read."""

    settings: Settings
    database: Database
    clock: Clock
    files: FileStore
    batches: BatchStore
    queue: TokenQueue
    runner: Runner
    decisions: Decisions
    incoming: Path
    requests: Requests = field(default_factory=Requests)

    @classmethod
    def open(cls, settings: Settings) -> State:
        """Open the data folder, which is made when it is missing."""
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        incoming = settings.data_dir / "incoming"
        incoming.mkdir(exist_ok=True)
        for abandoned in incoming.iterdir():
            abandoned.unlink()
        database = Database(settings.data_dir / "state.sqlite", _SCHEMA)
        clock = Clock(database)
        files = FileStore(settings.data_dir / "files", database, clock)
        batches = BatchStore(settings.data_dir / "batches", database, files, clock)
        queue = TokenQueue(settings, batches)
        runner = Runner(settings, batches, files, clock, queue)
        return cls(settings, database, clock, files, batches, queue, runner, Decisions(settings.seed), incoming)
