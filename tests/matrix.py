"""
Run the unit tests with several versions of Python and of what the package needs, each in an environment of its own.

.. code-block:: shell

    make matrix                                        # all of them
    make matrix MATRIX="3.13"                          # these only
    make matrix PYTHON312=/opt/python3.12/bin/python3  # an interpreter that uv does not find by its version

Exit status 1 when tests failed in one of them, or there was no such interpreter.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

PROJECT = Path(__file__).parents[1]
FOLDER = PROJECT / ".venv" / "matrix"
UV = Path(sys.executable).with_name("uv")
SHOWN = ("apache-airflow", "apache-airflow-providers-amazon", "apache-airflow-providers-opensearch")


@dataclass(frozen=True)
class Environment:
    """
    One environment.

    :param resolution: How uv chooses versions: the ``lowest-direct`` that pyproject.toml allows, or the ``highest``;
        ``None`` takes those of requirements.txt.
    """

    name: str
    python: str
    resolution: str | None = None

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return FOLDER / self.name

    @property
    def interpreter(self) -> str:
        """What uv is asked for: a version, or the path that the environment names for it."""
        return os.environ.get(f"PYTHON{self.python.replace('.', '')}") or self.python

    def make(self) -> Path:
        """Create or renew it, and return its Python."""
        python = self.folder / "bin" / "python"
        if not python.exists():
            uv("venv", "--python", self.interpreter, str(self.folder))
        if self.resolution is None:
            locked, options = PROJECT / "requirements.txt", ["--require-hashes"]
        else:
            locked, options = self.folder / "requirements.txt", []
            given = [str(PROJECT / "pyproject.toml"), "--extra", "dev", "--output-file", str(locked), "--upgrade"]
            uv("pip", "compile", "--python", str(python), "--resolution", self.resolution, *given)
        uv("pip", "sync", "--python", str(python), "--compile-bytecode", *options, str(locked))
        uv("pip", "install", "--python", str(python), "--no-deps", "--no-build-isolation", "--editable", str(PROJECT))
        return python


@dataclass(frozen=True)
class Outcome:
    """What came of the tests in one environment."""

    versions: tuple[str, ...]
    summary: str
    passed: bool
    seconds: float


ENVIRONMENTS = (
    Environment("3.11-lowest", "3.11", "lowest-direct"),
    Environment("3.11-newest", "3.11", "highest"),
    Environment("3.12", "3.12"),
    Environment("3.13", "3.13"),
)


def uv(*arguments: str) -> str:
    """Run uv and return what it prints; stop with its own words when it fails."""
    done = subprocess.run([UV, "--quiet", *arguments], cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"uv {' '.join(arguments)}:\n{done.stderr}")
    return done.stdout


def measure(environment: Environment) -> Outcome:
    """Run the tests."""
    python = environment.make()
    frozen = dict(line.split("==") for line in uv("pip", "freeze", "--python", str(python)).split() if "==" in line)
    start = time.monotonic()
    command = [python, "-m", "pytest", "tests/unit", "-n", "2", "-q", "-p", "no:cacheprovider"]
    log = environment.folder / "pytest.log"
    with log.open("w") as output:
        done = subprocess.run(command, cwd=PROJECT, stdout=output, stderr=subprocess.STDOUT, check=False)
    found = re.findall(r"\d+ (?:passed|failed|errors?)", log.read_text().rstrip().rpartition("\n")[2])
    return Outcome(
        tuple(frozen.get(name, "?") for name in SHOWN),
        ", ".join(found) if done.returncode == 0 else f"{', '.join(found)}: {log.relative_to(PROJECT)}",
        done.returncode == 0,
        time.monotonic() - start,
    )


def main() -> None:
    """Run what is asked for, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(one.name for one in ENVIRONMENTS)}; all by default")
    names = parser.parse_args().names
    unknown = sorted(set(names) - {one.name for one in ENVIRONMENTS})
    if unknown:
        parser.error(f"there is no environment {', '.join(unknown)}")
    console = Console(width=120)
    table = Table("environment", *(name.removeprefix("apache-airflow-providers-") for name in SHOWN), "tests", "s")
    outcomes = []
    for environment in ENVIRONMENTS:
        if not names or environment.name in names:
            console.print(f"{environment.name} …")
            outcomes.append(found := measure(environment))
            table.add_row(environment.name, *found.versions, found.summary, f"{found.seconds:.0f}")
    console.print(table)
    sys.exit(not all(one.passed for one in outcomes))


if __name__ == "__main__":
    main()
