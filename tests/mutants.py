"""
Mutation scores of the modules that decide what is paid and what is lost.

``make mutants`` changes each of these modules in one place at a time (mutmut) and runs the unit tests of that module
against every change. A change that no test notices is printed with the command that shows it. The score is the share of
changes that were noticed; when that of a whole group is below ``--floor``, the command fails.

Lines that only make or log a message are left alone: a test that holds the wording is not wanted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHILDREN = 2 * (os.cpu_count() or 2)
NOTICED = {1: "killed", 3: "killed", 24: "timeout", 36: "timeout", 152: "timeout", 255: "timeout", -24: "timeout"}
UNNOTICED = {0: "survived", 5: "no tests", 33: "no tests"}


@dataclass(frozen=True)
class Group:
    """
    Modules that are changed together, and the tests that are run against each change.

    :param modules: Paths below the package.
    :param tests: Paths below ``tests/unit``. Those that do not exist yet are left out.
    """

    modules: tuple[str, ...]
    tests: tuple[str, ...]


GROUPS = {
    "jobs": Group(
        ("jobs/*.py",),
        (
            "jobs",
            "operators/test_job.py",
            "operators/test_job_queue.py",
            "services/llamacloud/test_causes.py",
            "services/test_queues.py",
            "services/test_result_formats.py",
            "triggers",
        ),
    ),
    "create": Group(("services/create.py",), ("services/test_create.py",)),
    "bulk": Group(("ingest/write/bulk.py",), ("ingest/write/test_bulk.py", "ingest/write/test_bulk_answers.py")),
    # Not the parameters, which are tested with those that have them, nor the test that kills processes: it is slow.
    "cache": Group(
        ("cache/[a-z]*.py",),
        (
            "cache/test_answers.py",
            "cache/test_digest_columns.py",
            "cache/test_renewal.py",
            "retention/test_result_cache.py",
        ),
    ),
    "rows": Group(("ingest/map/rows.py",), ("ingest/map", "ingest/test_load.py", "services/openai/test_incomplete.py")),
}
# A test that a change makes endless fails by its own timeout. mutmut's, for all tests of a change together, is so large
# that a busy machine does not count as a noticed change.
SETTINGS = r"""
[tool.mutmut]
source_paths = ["src/overnight"]
only_mutate = [{modules}]
do_not_mutate = ["src/overnight/__init__.py"]
pytest_add_cli_args = ["-p", "no:xdist", "-p", "no:cacheprovider", "--timeout=20"]
pytest_add_cli_args_test_selection = [{tests}]
also_copy = ["docs", "include", "dags"]
do_not_mutate_patterns = [
  '^\s*(self\.)?_?log\.',
  '^\s*raise \w+\(f?".*"\)',
  '^\s*f?"[^"]* [^"]*"[,)]*$',
]
track_dependencies = false
use_git_change_detection = false
timeout_multiplier = 30.0
"""


def copy_project(group: Group, folder: Path, only: Sequence[str] = ()) -> None:
    """
    Write a project of mutmut's layout: it finds packages in ``src`` only.

    :param only: Modules that are changed in place of all of the group's.
    """
    shutil.rmtree(folder, ignore_errors=True)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "plugins" / "overnight", folder / "src" / "overnight", ignore=ignore)
    for name in ("tests", "docs", "include", "dags"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    modules = [f"src/overnight/{module}" for module in only or group.modules]
    tests = [f"tests/unit/{test}" for test in group.tests if (ROOT / "tests" / "unit" / test).exists()]
    lists = {key: ", ".join(map(json.dumps, values)) for key, values in (("modules", modules), ("tests", tests))}
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text() + SETTINGS.format(**lists))


def read_outcomes(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the module, the name and the outcome of every change that mutmut made."""
    mutants = folder / "mutants"
    for meta in sorted(mutants.rglob("*.py.meta")):
        module = str(meta.relative_to(mutants / "src" / "overnight")).removesuffix(".meta")
        for name, code in json.loads(meta.read_text())["exit_code_by_key"].items():
            yield module, name, NOTICED.get(code) or UNNOTICED.get(code) or f"exit code {code}"


def run_group(name: str, folder: Path, only: Sequence[str] = ()) -> Iterator[tuple[str, str, str]]:
    """Change the modules of a group, run its tests, and yield what :func:`read_outcomes` does."""
    copy_project(GROUPS[name], folder, only)
    environment = {**os.environ, "HYPOTHESIS_PROFILE": "mutants", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(Path(sys.executable).with_name("mutmut")), "run", "--max-children", str(CHILDREN)]
    log = folder / "mutmut.log"
    with log.open("wb") as output:
        done = subprocess.run(command, cwd=folder, env=environment, stdout=output, stderr=output, check=False)
    if done.returncode:
        raise SystemExit(f"mutmut failed for {name}:\n{log.read_text(errors='replace')[-4000:]}")
    return read_outcomes(folder)


def compute_score(outcomes: Counter[str]) -> float:
    """Return the share of changes that were noticed, in percent; 0 when there were none."""
    noticed = sum(outcomes[outcome] for outcome in set(NOTICED.values()))
    return 100 * noticed / outcomes.total() if outcomes else 0.0


def describe(name: str, outcomes: Counter[str]) -> str:
    """Return the line of a module or a group."""
    detail = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    return f"{name:28} {compute_score(outcomes):5.1f} %  of {outcomes.total():4}  ({detail})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", help=f"some of {', '.join(GROUPS)}; all when left out")
    parser.add_argument("--floor", type=float, default=0.0, help="the lowest allowed score of a group, in percent")
    parser.add_argument("--only", action="append", default=[], metavar="MODULE", help="one of a group: jobs/attach.py")
    parser.add_argument("--folder", type=Path, default=ROOT / ".mutants")
    arguments = parser.parse_args()
    if unknown := set(arguments.groups) - set(GROUPS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    if arguments.only and len(arguments.groups) != 1:
        parser.error("--only goes with one group")
    low = []
    for group in arguments.groups or GROUPS:
        started = time.monotonic()
        folder = arguments.folder / group
        counts: dict[str, Counter[str]] = {}
        for module, mutant, outcome in run_group(group, folder, arguments.only):
            counts.setdefault(module, Counter())[outcome] += 1
            if outcome not in NOTICED.values():
                print(f"  {outcome}: (cd {folder} && {Path(sys.executable).with_name('mutmut')} show {mutant})")
        for module, outcomes in counts.items():
            print(describe(module, outcomes))
        whole = sum(counts.values(), Counter())
        print(f"{describe(group, whole)}, {time.monotonic() - started:.0f} s", flush=True)
        if compute_score(whole) < arguments.floor:
            low.append(group)
    if low:
        raise SystemExit(f"below {arguments.floor} %: {', '.join(low)}")


if __name__ == "__main__":
    main()
