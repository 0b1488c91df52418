from __future__ import annotations

import importlib
import json
from collections import defaultdict
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from airflow.providers_manager import ProvidersManager
from airflow.sdk import BaseHook, BaseOperator, BaseSensorOperator
from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime
from airflow.triggers.base import BaseTrigger

import overnight
from overnight.links.job import JobLink
from overnight.provider_info import get_provider_info

INFO = get_provider_info()
PACKAGE = Path(overnight.__file__).parent
CONNECTIONS = {entry["connection-type"]: entry for entry in INFO["connection-types"]}


def imported(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@pytest.fixture(scope="module")
def manager() -> ProvidersManagerTaskRuntime:
    return ProvidersManagerTaskRuntime()


def test_airflow_accepts_it() -> None:
    schema = json.loads(files("airflow").joinpath("provider_info.schema.json").read_text())
    jsonschema.validate(INFO, schema)


def test_airflow_finds_it_by_the_entry_point_of_the_installed_package() -> None:
    found = [
        point for point in entry_points(group="apache_airflow_provider") if point.module == "overnight.provider_info"
    ]
    assert len(found) == 1
    assert found[0].load() is get_provider_info


BASES = {"hooks": BaseHook, "operators": BaseOperator, "sensors": BaseSensorOperator, "triggers": BaseTrigger}


def classes(base: type) -> dict[str, set[str]]:
    """By module, the public classes of a kind that the package defines anywhere but in its sandbox."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] == "sandbox" or "__init__" in parts:
            continue
        module = importlib.import_module(".".join(["overnight", *parts]))
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__:
                found[module.__name__].add(value.__name__)
    return found


@pytest.mark.parametrize("kind", BASES)
def test_every_class_of_a_kind_is_in_a_module_that_it_names(kind: str) -> None:
    defined = classes(BASES[kind])
    if kind == "operators":
        # A sensor is an operator, too; it has a list of its own.
        defined = {name: found for name, found in defined.items() if name not in classes(BaseSensorOperator)}
    named = [name for group in INFO[kind] for name in group["python-modules"]]
    assert sorted(named) == sorted(defined)


def test_every_hook_with_a_connection_of_its_own_is_named() -> None:
    own = {
        f"{value.__module__}.{value.__name__}": value.conn_type
        for path in (PACKAGE / "hooks").glob("[a-z]*.py")
        for value in vars(importlib.import_module(f"overnight.hooks.{path.stem}")).values()
        if isinstance(value, type)
        and value.__module__ == f"overnight.hooks.{path.stem}"
        and not value.__name__.startswith("_")
        and str(vars(value).get("conn_type", "")).startswith("overnight_")
    }
    assert own == {entry["hook-class-name"]: kind for kind, entry in CONNECTIONS.items()}


@pytest.mark.parametrize("kind", CONNECTIONS)
def test_a_hook_is_what_its_connection_type_says(kind: str) -> None:
    hook = imported(CONNECTIONS[kind]["hook-class-name"])
    assert hook.conn_type == kind
    assert hook.hook_name == CONNECTIONS[kind]["hook-name"]
    assert hook.default_conn_name.endswith("_default")
    assert hook.conn_name_attr
    assert callable(hook.test_connection)


@pytest.mark.parametrize("kind", CONNECTIONS)
def test_no_field_of_a_form_that_holds_a_secret_is_shown_in_clear(kind: str) -> None:
    for name, field in CONNECTIONS[kind]["conn-fields"].items():
        secret = any(word in name for word in ("key", "secret", "password", "connection_string"))
        assert (field["schema"].get("format") == "password") == secret, name
        assert field["label"]


@pytest.mark.parametrize("kind", CONNECTIONS)
def test_airflow_offers_the_connection_type_with_its_hook(kind: str, manager: ProvidersManagerTaskRuntime) -> None:
    found = manager.hooks[kind]
    assert found is not None
    assert found.package_name == INFO["package-name"]
    assert found.hook_class_name == CONNECTIONS[kind]["hook-class-name"]
    assert found.hook_name == CONNECTIONS[kind]["hook-name"]


def test_airflow_knows_the_link_to_a_job() -> None:
    assert f"{JobLink.__module__}.{JobLink.__qualname__}" in ProvidersManager().extra_links_class_names
    for name in INFO["extra-links"]:
        assert imported(name).name
