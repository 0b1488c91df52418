"""What ends a command that reads or writes files and an index: a sentence and an exit status."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from overnight.cli.exit_codes import INTERRUPTED


@contextmanager
def refusals(errors: Console) -> Iterator[None]:
    """
    End with a sentence instead of a traceback.

    :param errors: Where it goes.
    :raises typer.Exit: with the status of what was raised; an exit that was raised passes.
    """
    try:
        yield
    except typer.Exit:
        raise
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        from overnight.cli.load_errors import explain_unwritten  # noqa: PLC0415

        status, text = explain_unwritten(error)
        errors.print(text, markup=False)
        raise typer.Exit(status) from None
