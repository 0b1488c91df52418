"""What the executor of a task means for where files may lie."""

from __future__ import annotations

from airflow.sdk.configuration import conf

from overnight.errors import SpecError

SECTION = "overnight"
SHARED_OPTION = "local_work_uri_is_shared"
SHARED_VARIABLE = f"AIRFLOW__{SECTION.upper()}__{SHARED_OPTION.upper()}"

_ONE_MACHINE = frozenset({"LocalExecutor", "SequentialExecutor"})
_ONE_PROCESS = frozenset({"file", "memory"})


def require_shared(work_uri: str, executor: str | None = None, *, name: str = "work_uri") -> None:
    """
    Refuse a folder that only this machine, or this process, can read when tasks run on several machines.

    :param work_uri: A URI, or a path on this machine.
    :param executor: The task's own executor: a name, an alias, a class path, or ``alias:class path``. ``None`` takes
        the first of ``[core] executor``, as Airflow does.
    :param name: The parameter that names the folder, for the error's text.
    :raises SpecError: The folder is local, and tasks run neither under Airflow's ``LocalExecutor`` nor in this
        process (``dag.test()``). A disk that all workers mount at the same path is allowed by the option
        ``[overnight] local_work_uri_is_shared``.
    """
    from overnight.storage import parse_location  # noqa: PLC0415 - not at parse

    if parse_location(work_uri).scheme not in _ONE_PROCESS:
        return
    executor = get_executor_name(executor)
    if executor in _ONE_MACHINE or runs_in_process() or conf.getboolean(SECTION, SHARED_OPTION, fallback=False):
        return
    raise SpecError(
        f"The folder {work_uri} is on the disk of one machine, but the executor {executor} runs tasks on several: "
        f"what one task writes there, the next one cannot read. Set {name} to an object store (s3://, gs://, az://). "
        f"If every worker mounts that path from one shared file system, set {SHARED_VARIABLE}=True on all of them."
    )


def get_executor_name(executor: str | None = None) -> str:
    """Return the class name of a task's executor, or of the default one of this Airflow."""
    if not executor:
        # "CeleryExecutor", "LocalExecutor,CeleryExecutor", "an_alias:a.class.path", "=a;team=b" with several teams:
        # https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/executor/index.html
        executor = conf.get("core", "executor").split(";")[0].removeprefix("=").split(",")[0]
    else:
        listed = conf.get("core", "executor").replace(";", ",").split(",")
        paths = dict(entry.strip().split(":", 1) for entry in listed if ":" in entry)
        executor = paths.get(executor, executor)
    return executor.strip().rpartition(":")[2].rpartition(".")[2]


def runs_in_process() -> bool:
    """Return whether this task runs in the process that runs the whole DAG, as ``dag.test()`` does."""
    # Every task has loaded these, and no DAG that is parsed needs them.
    from airflow.sdk.execution_time import task_runner  # noqa: PLC0415
    from airflow.sdk.execution_time.supervisor import InProcessSupervisorComms  # noqa: PLC0415

    return isinstance(getattr(task_runner, "SUPERVISOR_COMMS", None), InProcessSupervisorComms)
