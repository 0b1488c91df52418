"""What ``overnight run`` shows while it works: bars on a terminal, otherwise a line when something changed."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from overnight.jobs.model import JobStatus

if TYPE_CHECKING:
    from overnight.ingest.report.load_report import Progress as LoadProgress


class RunDisplay:
    """
    A bar for each job that is waited for, and for each load. The jobs' threads call it, too.

    :param console: Of stderr.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, str] = {}
        self._bars = (
            Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.fields[counts]}"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
                # The counts of a service change every few minutes; by default the rate is of the last 30 s.
                speed_estimate_period=3600,
            )
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._console.print(text, markup=False, highlight=False)

    def show_status(self, name: str, status: JobStatus) -> None:
        """Show what the service says of a job."""
        if self._bars is None:
            self._say_news(name, f"{name} is {status.describe()}.")
            return
        share = status.get_share_done()
        counted = f", {status.counts.total:,} items" if status.counts.total else ""
        self._update(name, share, 1.0 if share is not None else None, f"{status.state}{counted}")

    def show_load(self, name: str, progress: LoadProgress) -> None:
        """Show how far a load is."""
        if self._bars is None:
            self._say_news(name, f"{name}: {progress}")
            return
        self._update(name, progress.stored_bytes, progress.total_bytes, str(progress))

    def finish(self, name: str) -> None:
        """Take a bar away."""
        task = self._tasks.pop(name, None)
        if self._bars is not None and task is not None:
            self._bars.remove_task(task)

    def _update(self, name: str, completed: float | None, total: float | None, counts: str) -> None:
        if self._bars is None:
            return
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=None, counts="")
        self._bars.update(self._tasks[name], completed=completed or 0, total=total, counts=counts)

    def _say_news(self, name: str, text: str) -> None:
        if self._said.get(name) != text:
            self._said[name] = text
            self.say(text)
