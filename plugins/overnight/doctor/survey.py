"""What there is to check: the connections that Airflow lists, and what the DAGs use."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from overnight.doctor.airflow_command import run_airflow, run_python
from overnight.doctor.dag_uses import DagFiles, DagUse
from overnight.doctor.finding import Finding, fail, ok, warn
from overnight.errors import UnavailableError, shorten
from overnight.storage import parse_location

VARIABLE: Final = "AIRFLOW_CONN_"
DEFAULT_AWS_CONN_ID: Final = "aws_default"
_OURS: Final = "overnight_"
"""What our connection types begin with."""


@dataclass
class Survey:
    """
    What is here.

    :param listed: By id, the types of the connections in Airflow's metadata database.
    :param dags: What the DAG files use.
    :param extra_connections: Ids that were asked for.
    :param extra_folders: URIs that were asked for.
    """

    listed: Mapping[str, str] = field(default_factory=dict)
    dags: DagFiles = field(default_factory=DagFiles)
    extra_connections: tuple[str, ...] = ()
    extra_folders: tuple[str, ...] = ()

    @property
    def uses(self) -> list[DagUse]:
        """What each DAG with a task of this package uses."""
        return self.dags.uses

    @property
    def needs(self) -> set[str]:
        """What the DAGs need beside their connections."""
        return {need for use in self.uses for need in use.needs}

    def find_connections(self) -> dict[str, set[str]]:
        """
        Return the ids of the connections to check, each with the parameters of DAGs that name it.

        Those are the connections of this package's own types, all that the DAGs here use, and those asked for.
        """
        found: dict[str, set[str]] = {conn_id: set() for conn_id in self.extra_connections}
        for conn_id, conn_type in self.listed.items():
            if conn_type.startswith(_OURS):
                found.setdefault(conn_id, set())
        for name, value in os.environ.items():
            # As JSON or as a URI, whose scheme has hyphens.
            if name.startswith(VARIABLE) and _OURS in value[:200].replace("-", "_"):
                found.setdefault(name.removeprefix(VARIABLE).lower(), set())
        for use in self.uses:
            for conn_id, parameter in use.connections.items():
                found.setdefault(conn_id, set()).add(parameter)
        return dict(sorted(found.items()))

    def find_folders(self) -> dict[str, str]:
        """Return the folders that runs write to, each with the AWS connection that opens it."""
        found = dict.fromkeys(self.extra_folders, DEFAULT_AWS_CONN_ID)
        for use in self.uses:
            if uri := use.settings.get("work_uri"):
                found.setdefault(str(uri), find_aws_connection(use))
        return found

    def find_folder_connections(self) -> set[str]:
        """Return the connections that those folders in object stores are opened with."""
        places = [(parse_location(uri), aws_conn_id) for uri, aws_conn_id in self.find_folders().items()]
        given = {place.conn_id for place, _ in places if place.conn_id is not None}
        return given | {aws_conn_id for place, aws_conn_id in places if place.scheme == "s3" and place.conn_id is None}


def find_aws_connection(use: DagUse) -> str:
    """Return the AWS connection that a DAG opens its files with."""
    named = (conn_id for conn_id, parameter in use.connections.items() if parameter == "aws_conn_id")
    return next(named, DEFAULT_AWS_CONN_ID)


def list_connections(survey: Survey, seconds: float) -> Finding:
    """Ask Airflow's metadata database for its connections, of which this shows no more than the ids and types."""
    try:
        answer = run_airflow(["connections", "list", "--output", "json"], seconds)
        start = answer.stdout.find("[")
        rows = json.loads(answer.stdout[start:]) if start >= 0 and not answer.status else None
    except ValueError:
        rows = None
    except UnavailableError as error:
        return warn(f"{error} Check that the database can be reached from this machine; --seconds gives it more time.")
    if not isinstance(rows, list):
        reason = f" ({shorten(answer.stderr, 200)})" if answer.stderr else ""
        return warn(
            f"Airflow's database could not be asked for its connections{reason}. Run this where the DAG "
            "processor runs, with its AIRFLOW_HOME and settings, after airflow db migrate."
        )
    survey.listed = {str(row["conn_id"]): str(row.get("conn_type") or "") for row in rows if row.get("conn_id")}
    return ok(f"Airflow's database answers. Connections in it: {len(survey.listed)}.")


def read_dags(survey: Survey, folder: str | None, seconds: float) -> Finding:
    """
    Import DAG files in another process, and keep what they use.

    :param folder: That they are in; ``None`` for all of Airflow's DAG bundles.
    """
    if folder is not None and not Path(folder).is_dir():
        return fail(
            f"There is no folder {folder}. Correct --dags, or leave it out: Airflow's DAG bundles are read then."
        )
    with tempfile.TemporaryDirectory(prefix="overnight-doctor-") as made:
        outcome = Path(made) / "dags.json"
        command = ["-m", "overnight.doctor.dag_uses", str(outcome), *([folder] if folder is not None else [])]
        try:
            answer = run_python(command, seconds)
        except UnavailableError:
            return fail(
                f"The DAG files were not read within {seconds:g} s. Find the one that waits for something when it is "
                "imported, or give --seconds more."
            )
        if not outcome.exists():
            return fail(
                f"The DAG files cannot be read ({shorten(answer.stderr, 200) or 'one of them ends the process'}). Run "
                "airflow dags list-import-errors, and correct what it names."
            )
        survey.dags = DagFiles.model_validate_json(outcome.read_bytes())
    if survey.dags.broken:
        (file, reason), *others = survey.dags.broken.items()
        more = f" {len(others)} more files are broken." if others else ""
        return fail(f"{file} cannot be imported: {shorten(reason, 200)}. Correct it; its DAGs do not run.{more}")
    where = shorten(", ".join(survey.dags.folders), 200)
    if not survey.dags.count:
        return warn(f"There is no DAG in {where}, so nothing is known of what DAGs use. Name their folder with --dags.")
    return ok(f"DAGs in {where}: {survey.dags.count}; with tasks of this package: {len(survey.uses)}.")
