"""What the DAG processor pays at every parse: each module of operators and sensors, and each DAG that comes with it."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

from records import Record, describe_machine

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "plugins" / "overnight"
ROUNDS = 3
# In one process: what Airflow's own import takes changes more from one process to the next than what is measured.
CODE = """
import time
from airflow.sdk import DAG, BaseOperator
import runpy
{}
start = time.process_time()
{}
print(1_000 * (time.process_time() - start))
"""


def run() -> dict[str, Record]:
    """Return the processor time of the imports over Airflow's own, and of the DAGs over an empty one."""
    modules = {path.stem: f"import overnight.operators.{path.stem}" for path in _list_modules("operators")}
    modules |= {f"sensors.{path.stem}": f"import overnight.sensors.{path.stem}" for path in _list_modules("sensors")}
    dags = {path.stem: f"runpy.run_path({str(path)!r})" for path in sorted((ROOT / "dags").glob("*.py"))}
    # The first DAG of a process has Airflow import its timetables, whatever is in it.
    return {"import": _measure(modules), "dag_parse": _measure(dags, before="DAG('empty', schedule=None)")}


def _list_modules(folder: str) -> list[Path]:
    return sorted((PACKAGE / folder).glob("[!_]*.py"))


def _measure(codes: dict[str, str], before: str = "") -> Record:
    times: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(ROUNDS):
        for name, code in codes.items():
            command = [sys.executable, "-c", CODE.format(before, code)]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            times[name].append(float(printed.split()[-1]))
    medians = {name: statistics.median(values) for name, values in times.items()}
    # Nothing of another's is beside these: ours is the dearest, and the rest says where it lies.
    found = ", ".join(f"{name} {ms:.0f}" for name, ms in medians.items())
    return {
        "ours": round(max(medians.values()), 1),
        "peers": {},
        "ratio": {},
        "unit": f"ms of CPU, the dearest of {found}",
        "machine": describe_machine(),
    }
