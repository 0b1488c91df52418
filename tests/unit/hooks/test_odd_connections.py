"""Every hook with every odd connection: it makes a client, or refuses in words that quote no secret."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest
from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

import overnight.hooks
from overnight.errors import OvernightError, SpecError
from overnight.hooks.aws import AwsExtra
from overnight.hooks.connection import check_extra
from overnight.hooks.job import _BUILT_IN, JobHook
from overnight.hooks.opensearch import OpenSearchHook

NOBODY = "http://127.0.0.1:9"
SECRET = "sk-of-the-odd-connection"
MAX_TEXT = 5_000
Change: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]


def fields(**changed: Any) -> Change:
    return lambda connection: {**connection, **changed}


def extra(**added: Any) -> Change:
    return lambda connection: {**connection, "extra": {**(connection.get("extra") or {}), **added}}


def without(*names: str) -> Change:
    return lambda connection: {name: value for name, value in connection.items() if name not in names}


ODD: dict[str, Change] = {
    "of another type": fields(conn_type="postgres"),
    "of no type": without("conn_type"),
    "without a password": without("login", "password"),
    "blank password": fields(password="  "),
    "password of two lines": fields(password=f"{SECRET}\nrest"),
    "password with a typographic quote": fields(password=f"“{SECRET}”"),
    "password with half of a surrogate pair": fields(password=f"{SECRET}\ud800"),
    "password that is a number": fields(password=12_345),
    "password that is a list": fields(password=[SECRET]),
    "login of two lines": fields(login="me\nyou"),
    "login that is a number": fields(login=5),
    **{
        f"extra {text[:12]}": fields(extra=text)
        for text in ("{not json", "[1]", "5", '"text"', "null", "", " ", '{"a":' + "[" * 5_000 + "]" * 5_000 + "}")
    },
    "extra with unknown names": extra(colour="blue", nested={"a": [SECRET]}),
    "extra beyond ASCII": extra(region="ü", region_name="ü", organization="ü", project_id="ü", api_version="ü"),
    "extra of two lines": extra(region="a\nb", region_name="a\nb", project="a\nb", api_version="a\n", url_prefix="\n"),
    "extra with half of a surrogate pair": extra(region_name="\ud800", project_id="\ud800", url_prefix="\ud800"),
    **{
        f"timeout {value!r:.9}": extra(timeout=value, openai_client_kwargs={"timeout": value})
        for value in (0, -1, "nan", "inf", 1e300, True, [SECRET], {"read": SECRET})
    },
    **{
        f"CA file {path!r}": extra(verify=path, ca_certs=path, verify_certs=True)
        for path in ("/no/such.pem", "/etc", "/etc/hostname", "/a\x00b")
    },
    "verify 2": extra(verify=2, verify_certs=2),
    "verify of another type": extra(verify=[SECRET], verify_certs={"a": SECRET}),
    **{
        f"headers {headers!r:.30}": extra(headers=headers)
        for headers in (
            [SECRET], {"a": 5}, {"a": {"b": SECRET}}, {"a": f"{SECRET}\n"}, {"a b\n": "c"}, {"": "c"}, {"é": "c"},
            {"Content-Length": "5"}, {"Transfer-Encoding": "chunked"}, {"Host": "else"},
        )
    },
    **{
        f"host {host!r:.30}": fields(host=host)
        for host in (
            None, "", "  ", f"{NOBODY}/a/b", f"{NOBODY}/../..", f"{NOBODY}/a b", f"{NOBODY}/%zz", f"{NOBODY}/ü",
            "http://münchen.invalid", "http://a\x01b", "http://a\nb", "http://a\x00b", "http://\ud800.x", "*", "::1",
            f"http://{'a' * 300}.invalid", "http://a..b", "127.0.0.1:9", "[::1]", "http://[::1]:9", "http://[::1",
            "http://[zz]:9", "http://[fe80::1%25eth0]:9", "http://999.999.999.999", f"http://u:{SECRET}@127.0.0.1",
            "file:///etc/passwd", "s3://bucket", "http:\\\\127.0.0.1:9", "http:///x", 5, ["a"],
        )
    },
    **{
        f"port {port!r:.20}": fields(host="127.0.0.1", port=port)
        for port in (0, 99_999, -1, "http", 9.5, [1], 10**30, "")
    },
    **{
        f"schema {schema!r}": fields(host="127.0.0.1", port=9, schema=schema)
        for schema in ("nonsense", "ftp", "a\nb", 5, "a?b#c", "HTTPS")
    },
    **{
        f"endpoint_url {url!r}": extra(endpoint_url=url, service_config={"sagemaker": {"endpoint_url": url}})
        for url in ("nonsense", 5, "ftp://x", "http://x:99999", "http://a\nb", "http://[::1", f"http://u:{SECRET}@")
    },
    **{f"region_name {name!r}": extra(region_name=name) for name in ("nowhere", 5, ["eu"], "eu west", None, "")},
    **{
        f"{name} {value!r:.30}": extra(**{name: value})
        for name in ("service_config", "config_kwargs", "session_kwargs", "openai_client_kwargs", "assume_role_kwargs")
        for value in ([1], "text", None, {"sagemaker": None}, {"sagemaker": [1]}, {"http_client": SECRET})
    },
    "config_kwargs of other types": extra(config_kwargs={"retries": "many", "connect_timeout": "x"}),
    "role that is a number": extra(role_arn=5),
    "role by an unknown method": extra(role_arn="arn:aws:iam::1:role/x", assume_role_method="nonsense"),
    "role by SAML without more": extra(role_arn="arn:aws:iam::1:role/x", assume_role_method="assume_role_with_saml"),
    "role by a token that is not there": extra(
        role_arn="arn:aws:iam::123456789012:role/x",
        assume_role_method="assume_role_with_web_identity",
        assume_role_with_web_identity_federation="file",
        assume_role_with_web_identity_token_file="/no",
    ),
    "profile that is not there": extra(profile_name="nope", session_kwargs={"profile_name": "nope"}),
    "token that is a number": extra(aws_session_token=5, aws_access_key_id=5),
    **{f"aws_conn_id {name!r}": extra(aws_conn_id=name) for name in ("nope", "opensearch_default", 5, ["a"])},
    "aws_service nonsense": extra(aws_service="nonsense"),
    "region of two lines": extra(aws_conn_id="aws_default", aws_service="aoss", region_name="\n"),
    "scheme gopher": extra(scheme="gopher"),
    "use_ssl perhaps": extra(use_ssl="perhaps"),
    "url_prefix with a query": extra(url_prefix="../..?x#y"),
    "url_prefix 5": extra(url_prefix=5),
    "base_url nonsense": extra(openai_client_kwargs={"base_url": "nonsense"}),
    "base_url of half an address": extra(openai_client_kwargs={"base_url": "http://[::1"}),
    "a billion retries": extra(openai_client_kwargs={"max_retries": 10**9}),
    "key of two lines": extra(openai_client_kwargs={"api_key": f"{SECRET}\nb"}),
    "auth_style nonsense": extra(auth_style="nonsense"),
    "api_version 5": extra(api_version=5),
    "credentials of other types": extra(search_service_endpoint=5, storage_connection_string=[SECRET]),
    "credentials of two lines": extra(search_service_api_key=f"{SECRET}\n", storage_connection_string="x\n"),
}  # fmt: skip
TEXTS = (
    "nonsense", "://", "http://h:port/", "http://h:99999/", "[]", "{}", '{"conn_type":', '{"conn_type":"x","colour":1}',
    "http://k:p@[::1/", "http://k:%zz@h/", f"http://k:{SECRET}@h/?__extra__=notjson", "http://h/?__extra__=%5B1%5D",
)  # fmt: skip
"""What an environment variable of a connection may hold by mistake."""


def find_hooks() -> Iterator[type[Any]]:
    for found in pkgutil.iter_modules(overnight.hooks.__path__):
        module = importlib.import_module(f"overnight.hooks.{found.name}")
        for name, kind in vars(module).items():
            if not inspect.isclass(kind) or not issubclass(kind, BaseHook) or inspect.isabstract(kind):
                continue
            if kind.__module__ == module.__name__ and name[0] != "_":
                yield kind


HOOKS = list(find_hooks())


def set_connection(monkeypatch: pytest.MonkeyPatch, hook: type[Any], text: str) -> None:
    aws = {"conn_type": "aws", "login": "k", "password": "s", "extra": {"region_name": "eu-west-1"}}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(aws))
    monkeypatch.setenv(f"AIRFLOW_CONN_{hook.default_conn_name.upper()}", text)


def build(hook: type[Any]) -> dict[str, Any]:
    connection: dict[str, Any] = {"conn_type": hook.conn_type, "host": NOBODY, "login": "k", "password": SECRET}
    if hook.conn_type == "aws":
        connection["extra"] = {"endpoint_url": NOBODY, "region_name": "eu-west-1"}
        del connection["host"]
    return connection


def is_read(hook: type[Any], name: str) -> bool:
    """Whether a change is one of what the hook reads; a client of boto takes a second to make."""
    if hook.conn_type != "aws":
        return True
    good, odd = build(hook), ODD[name](build(hook))
    given = odd.get("extra")
    if isinstance(given, dict):
        odd["extra"] = {key: value for key, value in given.items() if key in AwsExtra.model_fields}
    return any(good.get(key) != odd.get(key) for key in ("conn_type", "login", "password", "extra"))


TRIED = [(hook, name) for hook in HOOKS for name in ODD if is_read(hook, name)]


def ask(hook: type[Any]) -> None:
    if hook is OpenSearchHook:
        config = hook().get_config()
        with config.transport(attempts=1) as transport:
            transport.run(config.probe())
        return
    with hook().client() as client:
        client.run(hook().probe(client.service))


async def ask_async(hook: type[Any]) -> None:
    if issubclass(hook, JobHook):
        async with await hook().aclient() as client:
            client.service.console_url  # noqa: B018 - a client is all that is asked for
    else:
        await hook().aget_config()


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    # What waits between attempts waits for nothing here.
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


def test_every_job_hook_is_tried() -> None:
    assert OpenSearchHook in HOOKS
    assert {f"{kind.__module__}.{kind.__name__}" for kind in HOOKS} >= set(_BUILT_IN.values())


def check(text: str) -> None:
    assert len(text) < MAX_TEXT
    assert SECRET not in text
    assert "input_value" not in text


@pytest.mark.parametrize(("hook", "name"), TRIED)
def test_an_odd_connection_is_used_or_refused(monkeypatch: pytest.MonkeyPatch, hook: type[Any], name: str) -> None:
    set_connection(monkeypatch, hook, json.dumps(ODD[name](build(hook))))
    for attempt in (lambda: ask(hook), lambda: asyncio.run(ask_async(hook))):
        try:
            attempt()
        except (OvernightError, AirflowNotFoundException) as error:
            check(str(error))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("hook", HOOKS)
def test_an_odd_variable_is_used_or_refused(monkeypatch: pytest.MonkeyPatch, hook: type[Any], text: str) -> None:
    set_connection(monkeypatch, hook, text)
    try:
        ask(hook)
    except (OvernightError, AirflowNotFoundException) as error:
        check(str(error))


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("extra", ["{not json", "[1]", "null", "5"])
def test_an_extra_that_is_no_object_is_refused(monkeypatch: pytest.MonkeyPatch, hook: type[Any], extra: str) -> None:
    set_connection(monkeypatch, hook, json.dumps({"conn_type": hook.conn_type, "host": NOBODY, "extra": extra}))
    with pytest.raises(SpecError, match="has an extra that is no JSON object"):
        ask(hook)


def test_an_extra_may_be_empty() -> None:
    for text in (None, "", " ", "{}"):
        check_extra(type("Connection", (), {"conn_id": "c", "extra": text})())  # type: ignore[arg-type]
