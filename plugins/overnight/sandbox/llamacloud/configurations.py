"""``/api/v1/beta/configurations``."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from overnight.sandbox.llamacloud.access import Emulator, Paging, Project, listed
from overnight.sandbox.llamacloud.errors import invalid
from overnight.sandbox.llamacloud.schemas import PARAMETERS, ConfigurationCreate, ConfigurationUpdate, ProductType
from overnight.sandbox.llamacloud.store import Record

router = APIRouter(prefix="/api/v1/beta/configurations")


@router.post("")
def upsert_configuration(body: ConfigurationCreate, state: Emulator, project: Project) -> Record:
    """Make a configuration, or change the one of the same name and product."""
    parameters = _checked(body.parameters)
    product = parameters["product_type"]
    same = (body.name, product)
    for record in state.store.all("configuration", parent=project):
        if (record["name"], record["product_type"]) == same:
            return _change(state, record["id"], {"parameters": parameters})
    record = {"name": body.name, "product_type": product, "parameters": parameters, "project_id": project}
    version = state.store.now().isoformat()
    return state.store.add("configuration", {**record, "version": version, "deleted_at": None}, parent=project)


@router.get("")
def list_configurations(
    state: Emulator,
    project: Project,
    paging: Paging,
    *,
    name: str | None = None,
    product_type: Annotated[list[ProductType] | None, Query()] = None,
    latest_only: bool = False,
) -> Record:
    """List configurations, the newest first. Every one is the latest of its name here."""
    del latest_only

    def wanted(record: Record) -> bool:
        return (
            not record["deleted_at"]
            and (name is None or record["name"] == name)
            and (product_type is None or record["product_type"] in product_type)
        )

    return listed(
        state.store.page("configuration", parent=project, token=paging.token, size=paging.size, wanted=wanted)
    )


@router.get("/{configuration_id}")
def get_configuration(configuration_id: str, state: Emulator, project: Project) -> Record:
    """Return one configuration."""
    return state.store.get("configuration", configuration_id, parent=project)


@router.put("/{configuration_id}")
def update_configuration(configuration_id: str, body: ConfigurationUpdate, state: Emulator, project: Project) -> Record:
    """Change a configuration; its product stays."""
    current = state.store.get("configuration", configuration_id, parent=project)
    changes: dict[str, Any] = {"name": body.name} if body.name else {}
    if body.parameters is not None:
        changes["parameters"] = _checked(body.parameters)
        if changes["parameters"]["product_type"] != current["product_type"]:
            raise invalid(("body", "parameters", "product_type"), "a configuration's product cannot be changed")
    return _change(state, configuration_id, changes)


@router.delete("/{configuration_id}", status_code=204)
def delete_configuration(configuration_id: str, state: Emulator, project: Project) -> Response:
    """Delete a configuration."""
    state.store.get("configuration", configuration_id, parent=project)
    with state.store.change("configuration", configuration_id) as record:
        record["deleted_at"] = state.store.now().isoformat()
    return Response(status_code=204)


def _change(state: Emulator, configuration_id: str, changes: dict[str, Any]) -> Record:
    with state.store.change("configuration", configuration_id) as record:
        record.update(changes, version=state.store.now().isoformat())
    return record


def _checked(parameters: dict[str, Any]) -> dict[str, Any]:
    product = parameters.get("product_type")
    if product not in PARAMETERS:
        raise invalid(("body", "parameters", "product_type"), "parse_v2 or extract_v2 is expected", product)
    try:
        read = PARAMETERS[product].model_validate(parameters)
    except ValidationError as error:
        raise RequestValidationError(
            [{**one, "loc": ("body", "parameters", *one["loc"])} for one in error.errors(include_context=False)]
        ) from error
    return read.model_dump(exclude_none=True)
