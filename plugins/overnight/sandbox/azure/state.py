"""What the parts of a running emulator share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from overnight.sandbox.azure import index, jobs
from overnight.sandbox.azure.draws import Draws
from overnight.sandbox.azure.index import IndexStore
from overnight.sandbox.azure.jobs import JobStore
from overnight.sandbox.azure.runner import Runner
from overnight.sandbox.azure.settings import Settings
from overnight.sandbox.emulator.clock import Clock
from overnight.sandbox.emulator.database import Database
from overnight.sandbox.emulator.requests import Requests


@dataclass
class State:
    """The stores, the runner, and the settings they all read."""

    settings: Settings
    database: Database
    clock: Clock
    jobs: JobStore
    indexes: IndexStore
    runner: Runner
    draws: Draws
    blobs: Path
    requests: Requests = field(default_factory=Requests)

    @classmethod
    def open(cls, settings: Settings) -> State:
        """Open the data folder, which is made when it is missing."""
        blobs = settings.data_dir / "blobs"
        blobs.mkdir(parents=True, exist_ok=True)
        database = Database(settings.data_dir / "state.sqlite", jobs.SCHEMA + index.SCHEMA)
        clock = Clock(database)
        store = JobStore(database, clock, settings.status_kept)
        indexes = IndexStore(database)
        runner = Runner(settings, store, indexes, blobs)
        return cls(settings, database, clock, store, indexes, runner, Draws(settings.seed), blobs)
