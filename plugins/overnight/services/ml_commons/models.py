"""
Connectors and remote models of ML Commons, kept by name: asking twice for the same one makes one.

API: https://docs.opensearch.org/latest/ml-commons-plugin/api/connector-apis/ and …/api/model-apis/.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson

from overnight.errors import JobFailedError, RequestRefusedError, ServiceError, SpecError, UnavailableError, shorten
from overnight.services.ml_commons.answers import MAX_ID, SEARCH_LAG, ask, get_task, quote_answer, quote_part, read_hits
from overnight.services.ml_commons.connection import ML
from overnight.transport.flow import Flow, Pause
from overnight.transport.http import HttpCall, Retry

log = logging.getLogger(__name__)

COMPARED: Final = ("version", "protocol", "parameters", "actions")
DEPLOY_WAITS: Final = (0.5, 0.5, 1.0, 1.0, 2.0, 2.0, 5.0, 5.0, 10.0, 10.0, 20.0, 30.0, 30.0)
"""Seconds between looks at a model that is being deployed; a remote one has nothing to load."""
DEPLOY_TRIES: Final = 3
DUPLICATE: Final = "Duplicate deploy model task"
DUPLICATE_WAITS: Final = (1.0, 2.0, 5.0)
"""Seconds between looks at a model that something else is deploying, as the plugin says."""
REGISTERED_LOOKS: Final = 2
"""Looks at a model that is registered and not being deployed, before it is deployed from here."""
UNDER_WAY: Final = frozenset({"REGISTERING", "DEPLOYING"})
"""States of a model that end by themselves."""
_MISSING: Final = frozenset({"connector_not_found", "model_not_found"})


def ensure_connector(body: Mapping[str, Any], *, update: bool = False) -> Flow[str]:
    """
    Return the id of the connector with a name, creating it when there is none.

    The server keeps no credential that could be read back, so that is not compared.

    :param body: As :func:`overnight.services.ml_commons.connectors.checked` returns it.
    :param update: Bring a connector of that name to this content and credential. The server refuses that while a
        deployed model uses it.
    :raises SpecError: there is one with another content, or several; nothing was changed.
    """
    hits = yield from _named("connectors", {"term": {"name.keyword": body["name"]}})
    if not hits:
        # Retry.REJECTED: two of them would be a clash for every later run.
        answer = yield from ask(HttpCall("POST", f"{ML}/connectors/_create", json=body, retry=Retry.REJECTED))
        return _get_id(answer, "connector_id")
    if len(hits) > 1:
        raise SpecError(
            f"There are {len(hits)} connectors named {body['name']!r}: {', '.join(hits)}. Delete all but one, or use "
            "another name."
        )
    ((connector_id, found),) = hits.items()
    changed = [name for name in COMPARED if _comparable(name, found.get(name)) != _comparable(name, body.get(name))]
    if update:
        patch = {name: value for name, value in body.items() if name != "name"}
        yield from ask(HttpCall("PUT", f"{ML}/connectors/{quote_part(connector_id)}", json=patch))
    elif changed:
        raise SpecError(
            f"The connector {body['name']!r} ({connector_id}) is there with other {', '.join(changed)}. Use another "
            "name, or set update=True (undeploy the models that use it first)."
        )
    return connector_id


def delete_connector(connector_id: str) -> Flow[None]:
    """
    Delete a connector; one that is not there is fine.

    :raises RequestRefusedError: models still use it.
    """
    yield from ask(HttpCall("DELETE", f"{ML}/connectors/{quote_part(connector_id)}"))


def ensure_model(name: str, connector_id: str, description: str | None = None) -> Flow[str]:
    """
    Return the id of the deployed remote model with a name, registering and deploying it where it is not.

    :raises SpecError: a model of that name uses another connector; nothing was changed.
    :raises JobFailedError: registering or deploying failed.
    """
    # Versions that were split into chunks have one document for each; remote models have none.
    hits = yield from _named("models", {"term": {"name.keyword": name}})
    models = {key: model for key, model in hits.items() if "chunk_number" not in model}
    mine = {key: model for key, model in models.items() if model.get("connector_id") == connector_id}
    if models and not mine:
        raise SpecError(
            f"The model {name!r} ({', '.join(models)}) is there with another connector than {connector_id}. Delete it "
            "with MLCommonsDeleteModelOperator, or use another name."
        )
    if mine:
        model_id = next(iter(mine))
        yield from _ensure_deployed(model_id)
        return model_id
    body = {"name": name, "function_name": "remote", "connector_id": connector_id}
    if description is not None:
        body["description"] = description
    register = f"{ML}/models/_register"
    call = HttpCall("POST", register, params={"deploy": "true"}, json=body, retry=Retry.REJECTED)
    task = yield from _finished((yield from ask(call)))
    model_id = _get_id(task, "model_id")
    yield from _ensure_deployed(model_id)
    return model_id


def delete_model(model_id: str) -> Flow[None]:
    """Undeploy and delete a model; one that is not there is fine."""
    path = f"{ML}/models/{quote_part(model_id)}"
    try:
        yield from ask(HttpCall("POST", f"{path}/_undeploy"))
        for seconds in DEPLOY_WAITS:
            try:
                yield from ask(HttpCall("DELETE", path))
            except RequestRefusedError as error:
                if error.code != "in_use":
                    raise
                yield Pause(seconds)
            else:
                return
    except ServiceError as error:
        if error.code in _MISSING:
            return
        raise
    raise UnavailableError(f"The model {model_id} is still being undeployed; delete it later.")


def _finished(answer: Any) -> Flow[dict[str, Any]]:
    """Wait for the task that an answer names."""
    task_id = _get_id(answer, "task_id")
    for seconds in DEPLOY_WAITS:
        task = yield from get_task(task_id)
        if task["state"] in ("FAILED", "CANCELLED"):
            what = shorten(f"({task.get('task_type')}) failed: {task.get('error')}")
            raise JobFailedError(f"The ML task {task_id} {what}")
        if task["state"] not in ("CREATED", "RUNNING"):
            return task
        yield Pause(seconds)
    raise UnavailableError(
        f"The ML task {task_id} is still {shorten(task['state'], 80)}. Registering right after the cluster's start can "
        "hang: try again."
    )


def _ensure_deployed(model_id: str) -> Flow[None]:
    """
    Deploy a model, unless it is deployed or is about to be.

    The plugin refuses a second deployment beside a first (:data:`DUPLICATE`) and then notes the model as DEPLOY_FAILED,
    whoever asked for which. So what is under way is waited for, and one that failed is tried again. A node in which a
    deployment broke off takes it for under way until the model is undeployed or the node starts again (seen on 2.19).
    """
    for remaining in reversed(range(DEPLOY_TRIES)):
        state = yield from _settled(model_id)
        if state == "DEPLOYED":
            return
        log.info("The model %s is there and %s; deploying it.", model_id, shorten(state, 80))
        try:
            yield from _finished((yield from ask(HttpCall("POST", f"{ML}/models/{quote_part(model_id)}/_deploy"))))
        except JobFailedError as error:
            if not remaining:
                raise
            if DUPLICATE in str(error) and not (yield from _becomes_deployed(model_id)):
                log.info("No deployment of the model %s comes to an end; undeploying it before the next.", model_id)
                yield from ask(HttpCall("POST", f"{ML}/models/{quote_part(model_id)}/_undeploy"))
        except RequestRefusedError as error:
            # Somebody else is deploying it right now.
            if error.status != HTTPStatus.CONFLICT:
                raise
    state = yield from _settled(model_id)
    if state != "DEPLOYED":
        raise JobFailedError(
            f"The model {model_id} could not be deployed, it is {shorten(state, 80)}; the log of the cluster's nodes "
            "says why."
        )


def _becomes_deployed(model_id: str) -> Flow[bool]:
    """Return whether the deployment that something else asked for comes to an end soon."""
    for seconds in DUPLICATE_WAITS:
        yield Pause(seconds)
        if (yield from _settled(model_id)) == "DEPLOYED":
            return True
    return False


def _settled(model_id: str) -> Flow[str]:
    """Return a model's state once no deployment is under way."""
    state = ""
    for looks, seconds in enumerate(DEPLOY_WAITS):
        model = yield from ask(HttpCall("GET", f"{ML}/models/{quote_part(model_id)}"))
        found = model.get("model_state") if isinstance(model, dict) else None
        if not isinstance(found, str):
            raise UnavailableError(f"OpenSearch's answer about the model {model_id} is none: {quote_answer(model)}.")
        state = found
        # With deploy=true the task of registering is over a moment before the deployment begins.
        about_to_begin = state == "REGISTERED" and looks < REGISTERED_LOOKS
        if state not in UNDER_WAY and not about_to_begin:
            return state
        yield Pause(seconds)
    raise UnavailableError(f"The model {model_id} is still {shorten(state, 80)}; it was not deployed in time.")


def _named(what: str, query: Mapping[str, Any]) -> Flow[dict[str, dict[str, Any]]]:
    found = yield from _search(what, query)
    if not found:
        # What a run before has just made may not be in the list yet.
        yield Pause(SEARCH_LAG)
        found = yield from _search(what, query)
    return found


def _search(what: str, query: Mapping[str, Any]) -> Flow[dict[str, dict[str, Any]]]:
    answer = yield from ask(HttpCall("POST", f"{ML}/{what}/_search", json={"size": 100, "query": query}))
    return {hit["_id"]: hit["_source"] for hit in read_hits(answer, f"ML {what}")}


def _get_id(answer: Any, name: str) -> str:
    value = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID:
        raise UnavailableError(f"OpenSearch answered without a {name}: {quote_answer(answer)}.")
    return value


def _comparable(name: str, value: Any) -> Any:
    if name == "parameters" and isinstance(value, dict):
        # Everything that is no text is kept as its JSON.
        return {key: _json(item) for key, item in value.items()}
    if name == "actions" and isinstance(value, list):
        return [
            {**action, "action_type": str(action.get("action_type")).lower()} if isinstance(action, dict) else action
            for action in value
        ]
    return value or {} if name == "parameters" else value


def _json(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    return value
