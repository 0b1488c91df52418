"""A connection that is opened again, in Airflow's page or by its API, shows no secret of any type of connection."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from airflow._shared.secrets_masker import DEFAULT_SENSITIVE_FIELDS, _secrets_masker
from airflow.api_fastapi.core_api.datamodels.connections import ConnectionResponse
from airflow.models.connection import Connection
from pydantic import AliasChoices, BaseModel

import overnight.hooks
from overnight.hooks.azure_ingestion import AzureIngestionExtra
from overnight.hooks.openai import OpenAIExtra
from overnight.hooks.opensearch import OpenSearchExtra
from overnight.provider_info import get_provider_info

SECRET = "planted-secret-7c1"
FORMS = {entry["connection-type"]: entry for entry in get_provider_info()["connection-types"]}


def list_extras() -> dict[str, type[BaseModel]]:
    """Return the models of all connections' extras."""
    modules = [path.stem for path in Path(overnight.hooks.__file__).parent.glob("[a-z]*.py")]
    return {
        f"{name}.{value.__name__}": value
        for name in modules
        for value in vars(importlib.import_module(f"overnight.hooks.{name}")).values()
        if isinstance(value, type) and issubclass(value, BaseModel) and value.__name__.endswith("Extra")
    }


def name_secrets(extra: type[BaseModel]) -> dict[str, bool]:
    """Return the names of a model's secrets, and whether each is an object of texts."""
    names = {}
    for name, field in extra.model_fields.items():
        if field.repr:
            continue
        alias = field.validation_alias
        names[str(alias.choices[0]) if isinstance(alias, AliasChoices) else name] = "dict" in str(field.annotation)
    return names


def reopen(conn_type: str, extra: dict[str, Any]) -> str:
    connection = Connection(conn_id="c", conn_type=conn_type, password=SECRET, extra=json.dumps(extra))
    return ConnectionResponse.model_validate(connection, from_attributes=True).model_dump_json()


@pytest.fixture(autouse=True)
def masked_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mask by the names that Airflow comes with, as its API server does once it is configured."""
    monkeypatch.setattr(_secrets_masker(), "sensitive_variables_fields", list(DEFAULT_SENSITIVE_FIELDS))


@pytest.mark.parametrize("conn_type", FORMS)
def test_no_secret_of_a_form_is_shown_again(conn_type: str) -> None:
    fields = FORMS[conn_type].get("conn-fields", {})
    secrets = [name for name, field in fields.items() if field["schema"].get("format") == "password"]
    assert SECRET not in reopen(conn_type, dict.fromkeys(secrets, SECRET))


@pytest.mark.parametrize("extra", list_extras().values(), ids=list_extras())
def test_no_secret_of_an_extra_is_shown_again(extra: type[BaseModel]) -> None:
    planted = {name: {"X-Gate": SECRET} if is_object else SECRET for name, is_object in name_secrets(extra).items()}
    assert SECRET not in reopen("generic", planted)
    # They are read under these names.
    read = extra.model_validate(planted).model_dump()
    assert json.dumps(read).count(SECRET) == len(planted)


def test_the_arguments_of_the_openai_providers_client_hide_the_key() -> None:
    assert SECRET not in reopen("openai", {"openai_client_kwargs": {"api_key": SECRET}})


def test_every_secret_is_looked_at() -> None:
    assert {name for extra in list_extras().values() for name in name_secrets(extra)} == {
        "search_service_api_key", "storage_connection_string", "embedding_api_key", "secret_headers",
    }  # fmt: skip


def test_the_names_of_the_first_version_are_still_read() -> None:
    azure = AzureIngestionExtra.model_validate({"search_service_admin_key": "a", "embedding_key": "b"})
    assert (azure.search_service_admin_key, azure.embedding_key) == ("a", "b")
    for extra in (OpenAIExtra, OpenSearchExtra):
        assert extra.model_validate({"headers": {"X": "y"}}).headers == {"X": "y"}  # type: ignore[attr-defined]
