"""``make up``: the sandbox and an Airflow with this project's DAGs, until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from overnight.sandbox.airflow import Airflow, read_airflow_settings, split_connections
from overnight.sandbox.errors import SandboxError
from overnight.sandbox.seed import seed
from overnight.sandbox.services import SERVICES, select
from overnight.sandbox.store import BUCKET
from overnight.sandbox.supervisor import Sandbox

AIRFLOW_PORT = 8080
ALL_ADMINS = "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"
USERS = "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"
TEST_BUTTONS = "AIRFLOW__CORE__TEST_CONNECTION"


def main() -> int:
    """Start everything, say where it is, wait, and stop everything."""
    parser = argparse.ArgumentParser(prog="make up", description=__doc__)
    parser.add_argument("--project", type=Path, default=Path.cwd(), help="Where dags/ and plugins/ are.")
    parser.add_argument("--only", default=",".join(SERVICES), help="Services of the sandbox, separated by commas.")
    parser.add_argument("--folder", type=Path, help="Where .sandbox/ and .airflow/ go; the project when left out.")
    parser.add_argument("--users", help="Logins, such as admin:admin,viewer:viewer; everybody is admin when left out.")
    arguments = parser.parse_args()
    project: Path = arguments.project.absolute()
    folder: Path = (arguments.folder or project).absolute()
    console = Console(soft_wrap=True, highlight=False)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    services = arguments.only.split(",")
    sandbox = Sandbox(folder / ".sandbox", console=console)
    variables = {TEST_BUTTONS: "Enabled"}
    if arguments.users:
        variables |= {ALL_ADMINS: "False", USERS: arguments.users}
    airflow = Airflow(folder / ".airflow", dags=project / "dags", plugins=project / "plugins", variables=variables)
    try:
        with ThreadPoolExecutor(1) as beside:
            migrated = beside.submit(airflow.migrate)
            sandbox.up(select(services), ml_commons=True)
            environment = sandbox.environment()
            seed(environment)
            migrated.result()
        # Where a port was taken, the sandbox knows better than the file.
        settings = {**read_airflow_settings(project / "airflow_settings.yaml"), **environment}
        connections, others = split_connections(settings)
        airflow = replace(airflow, variables={**(airflow.variables or {}), **others})
        airflow.import_connections(connections)
        console.print("Airflow starts; this takes about half a minute.")
        with airflow.standalone(AIRFLOW_PORT) as url:
            if url.rpartition(":")[2] != str(AIRFLOW_PORT):
                console.print(f"Port {AIRFLOW_PORT} is taken: Airflow takes another.")
            login = "with a password, which is in the log" if arguments.users else "without a login"
            console.print(f"Airflow: {url}, {login} (log: {airflow.home / 'standalone.log'}).")
            if "openai" in services and "s3" in services:
                faulty = f"s3://{BUCKET}/documents"
                console.print(
                    "Trigger a DAG as its form is: there are documents for the last seven days. For a failure worth "
                    f"seeing, give openai_batch_to_index  {faulty}/bad-lines/  or  {faulty}/too-long/"
                )
            console.print("Ctrl-C stops everything; documents, index and history are kept.")
            stop.wait()
    except SandboxError as error:
        console.print(str(error), markup=False)
        return 1
    finally:
        sandbox.down()
    return 0


if __name__ == "__main__":
    sys.exit(main())
