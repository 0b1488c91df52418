"""
What the DAGs of a folder use of what can be checked: connections, folders, prices, a triggerer.

``python -m overnight.doctor.dag_uses FOLDER OUTCOME`` reads the DAG files, whose code may print, hang or end the
process, and writes a :class:`DagFolder` as JSON.
"""

from __future__ import annotations

import argparse
import json
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


class DagFolder(BaseModel):
    """
    The DAG files of a folder.

    :param count: Of all its DAGs.
    :param uses: Of those with a task of this package.
    :param broken: By file, the last line of the error that it is imported with.
    """

    count: int = 0
    uses: list[DagUse] = []
    broken: dict[str, str] = {}


def read_folder(folder: str) -> DagFolder:
    """Import the DAG files of a folder, as Airflow does, and return what they use."""
    from airflow.dag_processing.dagbag import DagBag  # noqa: PLC0415 - only the process that reads the files needs it

    bag = DagBag(folder)
    uses = [find_use(dag) for dag in bag.dags.values() if any(_find_modules(dag))]
    broken = {
        file: next((line for line in reversed(text.strip().splitlines()) if line.strip()), "no reason is known")
        for file, text in bag.import_errors.items()
    }
    return DagFolder(count=len(bag.dags), uses=uses, broken=broken)


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
    parser.add_argument("folder")
    parser.add_argument("outcome", type=Path)
    arguments = parser.parse_args()
    arguments.outcome.write_text(read_folder(arguments.folder).model_dump_json())


if __name__ == "__main__":
    main()
