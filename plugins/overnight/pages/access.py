"""Who may see and do what: Airflow's auth manager decides, for each DAG."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.models.dag import DagModel
from fastapi import HTTPException, status
from sqlalchemy.orm import Session

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.base_auth_manager import ResourceMethod
    from airflow.api_fastapi.auth.managers.models.base_user import BaseUser


def may(user: BaseUser, method: ResourceMethod, entity: DagAccessEntity, dag_id: str, session: Session) -> bool:
    """Return whether a user may do something with a part of a DAG, as for Airflow's own pages and API."""
    details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id, session=session))
    return get_auth_manager().is_authorized_dag(method=method, access_entity=entity, details=details, user=user)


def require(user: BaseUser, method: ResourceMethod, entity: DagAccessEntity, dag_id: str, session: Session) -> None:
    """
    Check that a user may do something with a part of a DAG.

    :raises HTTPException: 403, also for a DAG that there is none of: who may not see it learns nothing.
    """
    if not may(user, method, entity, dag_id, session):
        raise HTTPException(status.HTTP_403_FORBIDDEN, "Forbidden")


def select_readable(user: BaseUser, entity: DagAccessEntity, dag_ids: Iterable[str], session: Session) -> set[str]:
    """Return those DAGs of which a user may read a part."""
    return {dag_id for dag_id in set(dag_ids) if may(user, "GET", entity, dag_id, session)}
