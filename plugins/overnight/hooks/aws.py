"""What is checked of an AWS connection before the amazon provider, or boto, fails on it with an error of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, TypeAlias
from urllib.parse import urlsplit

from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException
from pydantic import AfterValidator, BaseModel, ConfigDict

from overnight.errors import ConnectionConfigError, CredentialsError, OvernightError, shorten
from overnight.hooks.connection import read_extra


def _check_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port)
    except ValueError:
        is_address = False
    if not is_address or any(character.isspace() for character in url):
        raise ValueError("is no address such as https://host:port")
    return url


Url: TypeAlias = Annotated[str, AfterValidator(_check_url)]


class _ServiceConfig(BaseModel):
    # Built with the first connection that is read: a DAG that is parsed reads none.
    model_config = ConfigDict(extra="allow", hide_input_in_errors=True, defer_build=True)

    endpoint_url: Url | None = None


class AwsExtra(BaseModel):
    """The types of what the amazon provider reads of an AWS connection's extra."""

    # Built with the first connection that is read: a DAG that is parsed reads none.
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True, defer_build=True)

    aws_access_key_id: str | None = None
    aws_secret_access_key: str | None = None
    aws_session_token: str | None = None
    region_name: str | None = None
    profile_name: str | None = None
    endpoint_url: Url | None = None
    role_arn: str | None = None
    assume_role_method: str | None = None
    assume_role_kwargs: dict[str, Any] = {}
    assume_role_with_saml: dict[str, Any] = {}
    session_kwargs: dict[str, Any] = {}
    config_kwargs: dict[str, Any] = {}
    service_config: dict[str, _ServiceConfig] = {}


def read_aws_extra(extra: Mapping[str, Any], conn_id: str) -> dict[str, Any]:
    """
    Return an AWS connection's extra without the fields that a form left empty.

    :raises SpecError: a field is of a type that the amazon provider cannot use.
    """
    given = {name: value for name, value in extra.items() if value is not None and value != ""}
    read_extra(AwsExtra, given, f"AWS ({conn_id})")
    return given


@contextmanager
def naming_aws(conn_id: str | None) -> Iterator[None]:
    """
    Name the connection when no session or client can be made of it.

    :raises CredentialsError: the amazon provider refuses it.
    :raises ConnectionConfigError: the provider or boto broke on it; not quoted, since a value may be a secret.
    """
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - who comes here makes a boto client

    try:
        yield
    except (OvernightError, BotoCoreError, ClientError, AirflowNotFoundException, OSError):
        raise
    except (AirflowException, NotImplementedError) as error:
        raise CredentialsError(f"The AWS connection {conn_id!r} cannot be used: {shorten(str(error), 500)}") from None
    except Exception as error:
        raise ConnectionConfigError(
            f"The AWS connection {conn_id!r} cannot be used ({type(error).__name__}). Correct its extra: region_name, "
            "endpoint_url, role_arn with assume_role_method, config_kwargs, session_kwargs and service_config."
        ) from None
