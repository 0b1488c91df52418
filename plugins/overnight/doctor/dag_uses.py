"""
What DAGs use of what can be checked: connections, folders, prices, a triggerer.

``python -m overnight.doctor.dag_uses OUTCOME [FOLDER]`` reads the DAG files, whose code may print, hang or end the
process, and writes a :class:`DagFiles` as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

SAGEMAKER: Final = "sagemaker"
ML_COMMONS: Final = "ml_commons"
KNN: Final = "knn"
_MODULES: Final[Mapping[str, str]] = {
    "overnight.operators.sagemaker": SAGEMAKER,
    "overnight.operators.ml_commons": ML_COMMONS,
}
"""What an operator needs that its connection alone does not say."""
_FIELDS: Final = ("work_uri", "prices", "cost_budget", "cost_budget_uri", "max_cost", "model")


class DagUse(BaseModel):
    """
    What one DAG uses, as it is without a run's conf.

    :param connections: By id, the parameter that names it (``openai_conn_id``).
    :param settings: Of the parameters that are checked, those that are set.
    :param needs: Of :data:`SAGEMAKER`, :data:`ML_COMMONS` and :data:`KNN`, what it needs.
    :param defers: Whether one of its tasks waits in the triggerer.
    """

    dag_id: str
    connections: dict[str, str] = {}
    settings: dict[str, Any] = {}
    needs: set[str] = set()
    defers: bool = False


class DagFiles(BaseModel):
    """
    The DAG files of a folder, or of all bundles.

    :param folders: Those that were read.
    :param count: Of all DAGs in them.
    :param uses: Of those with a task of this package.
    :param broken: By file, the last line of the error that it is imported with.
    """

    folders: list[str] = []
    count: int = 0
    uses: list[DagUse] = []
    broken: dict[str, str] = {}


def read_files(folder: str | None = None) -> DagFiles:
    """
    Import DAG files, as Airflow does, and return what they use.

    :param folder: That they are in; ``None`` for all of Airflow's DAG bundles.
    """
    # Only the process that reads the files needs them.
    from airflow.dag_processing.bundles.manager import DagBundlesManager  # noqa: PLC0415
    from airflow.dag_processing.dagbag import BundleDagBag  # noqa: PLC0415

    found = DagFiles()
    places = [Path(folder)] if folder is not None else []
    if folder is None:
        manager: Any = DagBundlesManager  # its constructor has no types
        for bundle in manager().get_all_dag_bundles():
            bundle.initialize()
            places.append(bundle.path)
    for place in places:
        bag = BundleDagBag(place, bundle_path=place, bundle_name=place.name)
        found.folders.append(str(place))
        found.count += len(bag.dags)
        found.uses += [find_use(dag) for dag in bag.dags.values() if any(_find_modules(dag))]
        for file, text in bag.import_errors.items():
            lines = (line for line in reversed(text.strip().splitlines()) if line.strip())
            found.broken[file] = next(lines, "no reason is known")
    return found


def find_use(dag: Any) -> DagUse:
    """Return what a DAG uses by its params and by its operators' arguments, as far as they are no templates."""
    params = {name: param.value for name, param in dag.params.items()}
    given = [params, *map(_get_arguments, dag.tasks)]
    connections: dict[str, str] = {}
    settings: dict[str, Any] = {}
    for values in given:
        for name, value in values.items():
            if name.endswith("conn_id") and _is_text(value):
                connections.setdefault(value, name)
            elif name in _FIELDS and (_is_text(value) or isinstance(value, int | float | Mapping)) and value:
                settings.setdefault(name, value)
    needs = {_MODULES[module] for module in _find_modules(dag) if module in _MODULES}
    if any(values.get("engine") == "server" for values in given):
        needs.add(ML_COMMONS)
    bodies = [params, *(values.get("body") for values in given)]
    if '"knn_vector"' in json.dumps(bodies, default=str):
        needs.add(KNN)
    defers = any(values.get("deferrable") is True for values in given)
    return DagUse(dag_id=dag.dag_id, connections=connections, settings=settings, needs=needs, defers=defers)


def _find_modules(dag: Any) -> Iterator[str]:
    """Yield the modules of the DAG's operators that are of this package."""
    for task in dag.tasks:
        module = getattr(task, "operator_class", type(task)).__module__
        if module.startswith("overnight."):
            yield module


def _get_arguments(task: Any) -> Mapping[str, Any]:
    """Return an operator's own arguments, those of a mapped one that are the same for all its tasks."""
    kind = getattr(task, "operator_class", type(task))
    if not kind.__module__.startswith("overnight."):
        return {}
    partial: Mapping[str, Any] | None = getattr(task, "partial_kwargs", None)
    if partial is not None:
        return partial
    names = {*kind.template_fields, "deferrable", "conn_id"}
    return {name: getattr(task, name, None) for name in names}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and "{{" not in value and "{%" not in value


def main() -> None:
    """Read the arguments, read the DAG files, write what they use."""
    parser = argparse.ArgumentParser()
    parser.add_argument("outcome", type=Path)
    parser.add_argument("folder", nargs="?")
    arguments = parser.parse_args()
    # Airflow's examples are bundles, too, and need packages that nobody has.
    os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
    arguments.outcome.write_text(read_files(arguments.folder).model_dump_json())


if __name__ == "__main__":
    main()
