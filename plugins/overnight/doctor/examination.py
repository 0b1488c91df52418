"""All checks of one machine, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Final

from overnight.doctor.checks import Check, run_checks
from overnight.doctor.dag_uses import KNN, ML_COMMONS, DagUse
from overnight.doctor.finding import CheckResult, Finding, State
from overnight.doctor.page import check_page
from overnight.doctor.survey import Survey, list_connections, read_dags
from overnight.doctor.task_state import check_task_state
from overnight.doctor.triggerer import check_triggerer
from overnight.doctor.versions import check_versions
from overnight.transport.flow import call_within

SECONDS: Final = 30.0
"""That a check may take when nobody says otherwise."""
FILES_FACTOR: Final = 6
"""All DAG files together may take so many times as long: each is imported, with what it imports."""
_NO_CONNECTION: Final = "overnight_doctor_no_connection"
_GRACE: Final = 1.0
"""Seconds in which a command or a client says itself that its time is over, and of what."""


@dataclass(frozen=True)
class Options:
    """
    What is known beforehand.

    :param dags: The folder of DAG files; Airflow's DAG bundles when ``None``.
    :param api_url: Of Airflow's API server; the metadata database is asked without one.
    :param connections: Ids to check beside those that are found.
    :param folders: URIs to check beside the DAGs' ``work_uri``.
    :param seconds: That each check may take.
    """

    dags: str | None = None
    api_url: str | None = None
    connections: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    seconds: float = SECONDS


def examine(options: Options) -> list[CheckResult]:
    """
    Carry out all checks. None raises: what breaks is a failure of its own check.

    Connections of the metadata database are found only where Airflow is asked as its own commands do.
    """
    survey = Survey(extra_connections=options.connections, extra_folders=options.folders)
    seconds = options.seconds
    files_seconds = seconds * FILES_FACTOR
    surveyed = run_checks(
        [
            Check("versions", check_versions, seconds),
            Check("database", partial(list_connections, survey, seconds), seconds + _GRACE),
            Check("DAG files", partial(read_dags, survey, options.dags, files_seconds), files_seconds + _GRACE),
        ]
    )
    with suppress(Exception):
        call_within(seconds, _load)
    results = [*surveyed, *run_checks(list(_list_checks(survey, options)))]
    return [*results, *run_checks(list(_list_cluster_checks(survey, options, results)))]


def _load() -> None:
    """
    Import what the checks need, and look one connection up.

    Threads that do either for the first time at the same time wait for each other's locks, for ever: those of
    imports, and that of SQLAlchemy's mappers, which import when they are first used.
    """
    for name in ("connections", "cluster", "object_store", "costs"):
        import_module(f"overnight.doctor.{name}")
    from overnight.doctor.connections import find_connection  # noqa: PLC0415 - Airflow may be missing

    # That of a connection which the environment has ends there; this one is asked for in the database, too.
    find_connection(_NO_CONNECTION)


def _list_checks(survey: Survey, options: Options) -> Iterator[Check]:
    seconds = options.seconds
    defers = any(use.defers for use in survey.uses)
    yield Check("task state", check_task_state, seconds)
    yield Check(
        "triggerer",
        partial(check_triggerer, options.api_url, seconds, is_needed=defers or not survey.uses),
        seconds + _GRACE,
    )
    yield Check("page", partial(check_page, options.api_url, seconds), seconds + _GRACE)
    yield Check("prices", _check_prices, seconds)
    for use in survey.uses:
        if any(use.settings.get(name) for name in ("prices", "max_cost", "cost_budget")):
            yield Check(f"costs of {use.dag_id}", partial(_check_costs, use), seconds)
    for conn_id, parameters in survey.find_connections().items():
        needs = {need for use in survey.uses if conn_id in use.connections for need in use.needs}
        opens_folder = conn_id in survey.find_folder_connections()
        yield Check(conn_id, partial(_check_connection, conn_id, parameters, needs, opens_folder), seconds)
    for uri, aws_conn_id in survey.find_folders().items():
        yield Check("object store", partial(_check_folder, uri, aws_conn_id), seconds)


def _list_cluster_checks(survey: Survey, options: Options, results: list[CheckResult]) -> Iterator[Check]:
    """Yield the checks of each cluster that answered: what is wrong with an address is said once."""
    answered = {result.name for result in results if result.state is not State.FAILURE}
    for conn_id in survey.find_connections():
        if conn_id in answered and _is_cluster(conn_id):
            needs = {need for use in survey.uses if conn_id in use.connections for need in use.needs}
            yield Check(f"{conn_id}: plugins", _on_cluster(conn_id, needs & {KNN, ML_COMMONS}), options.seconds)
            yield Check(f"{conn_id}: ingestion", partial(_check_engine, conn_id), options.seconds)


# The modules of these import Airflow's SDK, which may be missing or too old: a failure of their checks then.


def _check_connection(conn_id: str, parameters: set[str], needs: set[str], opens_folder: bool) -> Finding:
    from overnight.doctor.connections import check_connection  # noqa: PLC0415

    return check_connection(conn_id, parameters, needs, opens_folder=opens_folder)


def _check_folder(uri: str, aws_conn_id: str) -> Finding:
    from overnight.doctor.object_store import check_folder  # noqa: PLC0415

    return check_folder(uri, aws_conn_id)


def _check_prices() -> Finding:
    from overnight.doctor.costs import check_prices  # noqa: PLC0415

    return check_prices()


def _check_costs(use: DagUse) -> Finding:
    from overnight.doctor.costs import check_costs  # noqa: PLC0415

    return check_costs(use)


def _is_cluster(conn_id: str) -> bool:
    from overnight.doctor.connections import find_connection, find_hook  # noqa: PLC0415
    from overnight.hooks.opensearch import OpenSearchHook  # noqa: PLC0415

    connection = find_connection(conn_id)
    return connection is not None and find_hook(connection.conn_type) is OpenSearchHook


def _on_cluster(conn_id: str, needs: set[str]) -> Callable[[], Finding]:
    from overnight.doctor.cluster import check_plugins  # noqa: PLC0415

    return partial(check_plugins, conn_id, needs)


def _check_engine(conn_id: str) -> Finding:
    from overnight.doctor.cluster import check_engine  # noqa: PLC0415

    return check_engine(conn_id)
