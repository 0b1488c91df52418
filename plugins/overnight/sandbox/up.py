"""``make up``: the sandbox and an Airflow with this project's DAGs, until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from rich.console import Console

from overnight.sandbox.airflow import Airflow, read_airflow_settings
from overnight.sandbox.errors import SandboxError
from overnight.sandbox.services import SERVICES, select
from overnight.sandbox.supervisor import Sandbox

AIRFLOW_PORT = 8080


def main() -> int:
    """Start everything, say where it is, wait, and stop everything."""
    parser = argparse.ArgumentParser(prog="make up", description=__doc__)
    parser.add_argument("--project", type=Path, default=Path.cwd(), help="Where dags/ and plugins/ are.")
    parser.add_argument("--only", default=",".join(SERVICES), help="Services of the sandbox, separated by commas.")
    arguments = parser.parse_args()
    project: Path = arguments.project.absolute()
    console = Console(soft_wrap=True, highlight=False)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    sandbox = Sandbox(project / ".sandbox", console=console)
    try:
        sandbox.up(select(arguments.only.split(",")))
        # Where a port was taken, the sandbox knows better than the file.
        variables = {**read_airflow_settings(project / "airflow_settings.yaml"), **sandbox.environment()}
        airflow = Airflow(project / ".airflow", dags=project / "dags", plugins=project / "plugins", variables=variables)
        console.print("Airflow starts; this takes about half a minute.")
        with airflow.standalone(AIRFLOW_PORT) as url:
            console.print(f"Airflow: {url} (log: {airflow.home / 'standalone.log'}). Ctrl-C stops everything.")
            stop.wait()
    except SandboxError as error:
        console.print(str(error), markup=False)
        return 1
    finally:
        sandbox.down()
    return 0


if __name__ == "__main__":
    sys.exit(main())
