"""One reader of Airflow connections for all hooks: the address, and what the extra may hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from overnight.errors import SpecError
from overnight.validation import describe_faults

if TYPE_CHECKING:
    from airflow.sdk import Connection

_YES: Final = frozenset({"true", "yes", "on", "1", ""})
_NO: Final = frozenset({"false", "no", "off", "0"})


def _read_verify(value: Any) -> Any:
    # A form saves text, and a field that was left empty as null or an empty text.
    if value is None:
        return True
    if not isinstance(value, str | int):
        return value
    word = value.strip().lower() if isinstance(value, str) else value
    if word in (0, 1):
        return bool(word)
    return True if word in _YES else False if word in _NO else value


Verify: TypeAlias = Annotated[bool | str, BeforeValidator(_read_verify)]
"""Whether certificates are checked, also as text; or the path of a CA file or folder."""

Timeout: TypeAlias = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
"""Seconds for each read and write of a call."""

ExtraT = TypeVar("ExtraT", bound=BaseModel)


def read_extra(model: type[ExtraT], extra: Mapping[str, Any], service: str, remedy: str = "") -> ExtraT:
    """
    Read a connection's extra.

    :param service: The name that an error's text starts with.
    :param remedy: Ends an error's text.
    :raises SpecError: a field is wrong. Its text has places and reasons only: a value may be a key.
    """
    try:
        return model.model_validate(extra)
    except ValidationError as error:
        wrong = describe_faults(error, "the extra")
        raise SpecError(f"{service}: the connection's extra cannot be used: {wrong}. {remedy}".rstrip()) from None


def check_extra(connection: Connection) -> None:
    """
    Refuse an extra that is no JSON object: Airflow logs a traceback and goes on as if there were none.

    :raises SpecError: it is none; the text does not quote it.
    """
    if not (connection.extra or "").strip():
        return
    try:
        is_object = isinstance(json.loads(connection.extra or ""), dict)
    except (ValueError, RecursionError):
        is_object = False
    if not is_object:
        raise SpecError(
            f"The connection {connection.conn_id!r} has an extra that is no JSON object. Write it as "
            '{"name": "value"}, or leave it empty.'
        )


async def aread_extra_dejson(connection: Connection) -> dict[str, Any]:
    """Return a connection's extra, decoded, on an event loop."""
    from asgiref.sync import sync_to_async  # noqa: PLC0415 - not at parse

    if hasattr(connection, "aextra_dejson"):
        return await connection.aextra_dejson()
    # Airflow 3.3.0 and 3.3.1 have the blocking one only: it masks what it finds, and waits for the supervisor to do so.
    return await sync_to_async(lambda: connection.extra_dejson)()


def read_address(
    connection: Connection,
    service: str,
    *,
    default: str | None = None,
    scheme: str = "https",
    port: int | None = None,
) -> str:
    """
    Return the address that a connection's host, port and schema name, without a slash at its end.

    The host is a name or a URL. A URL's own scheme, port and path count before the other fields. The schema is a scheme
    where it says ``http`` or ``https``, as in a form; else the path, as Airflow reads a connection that is given as a
    URI (``type://host:port/path``).

    :param service: The name that an error's text starts with.
    :param default: The address of a connection without a host; ``None`` where there must be one.
    :param scheme: Where the connection says none.
    :param port: Of a bare name whose connection says none.
    :raises SpecError: there is no host; the scheme is another; a user, a password or a query is in the host, or it has
        another port or path than the connection's own fields.
    """
    given = (connection.host or "").strip()
    schema = (connection.schema or "").strip().strip("/")
    is_scheme = schema.lower() in ("http", "https")
    if not given:
        if default is None:
            raise _refuse(service, connection, "has no host. Put the server's address there, https://host or a name")
        return default.rstrip("/")
    has_scheme = "://" in given
    try:
        parts = urlsplit(given if has_scheme else f"//{given}")
        name, own_port = parts.hostname, parts.port
    except ValueError:
        raise _refuse(service, connection, "has a host that is no address; write https://host:port or a name") from None
    if parts.username is not None or parts.password is not None:
        what = "has a user or a password in its host; put them into the login and password fields"
        raise _refuse(service, connection, what)
    if parts.query or parts.fragment or any(character.isspace() for character in given):
        what = "has a query, a fragment or a blank in its host; leave them out (an API version goes into the extra)"
        raise _refuse(service, connection, what)
    chosen = parts.scheme.lower() if has_scheme else schema.lower() if is_scheme else scheme.lower()
    if chosen not in ("http", "https") or not name:
        raise _refuse(service, connection, "has another scheme than http or https in its host, or no name behind it")
    if own_port is not None and connection.port is not None and own_port != connection.port:
        raise _refuse(
            service, connection, f"has the port {own_port} in its host and {connection.port} in its own field"
        )
    number = own_port if own_port is not None else connection.port
    if number is None and not has_scheme:
        number = port
    path, other = parts.path.strip("/"), "" if is_scheme else schema
    if path and other and path != other:
        raise _refuse(service, connection, f"has the path {path!r} in its host and {other!r} as its schema")
    host = f"[{name}]" if ":" in name else name
    address = f"{chosen}://{host}" if number is None else f"{chosen}://{host}:{number}"
    return f"{address}/{path or other}".rstrip("/")


def _refuse(service: str, connection: Connection, what: str) -> SpecError:
    return SpecError(f"{service}: the connection {connection.conn_id!r} {what}.")
