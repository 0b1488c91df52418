"""
ML Commons connectors: a blueprint (a connector without account and credential) and a typed config that fills it.

The blueprints are data, in ``include/connectors/``; this package takes any, as a path or a mapping, and carries none.
https://docs.opensearch.org/latest/ml-commons-plugin/remote-models/blueprints/.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import orjson
from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from overnight.errors import SpecError, shorten
from overnight.validation import describe_faults

NEEDED: Final = ("batch_predict", "batch_predict_status")
"""Actions without which no job runs; ``predict`` and ``cancel_batch_predict`` may be left out."""
_HEADERLESS: Final = ("batch_predict", "batch_predict_status")
"""Actions whose own headers the server ignores (seen on 2.19.6)."""
_PLACEHOLDER = re.compile(r"\$\{(parameters|credential)\.([A-Za-z0-9_.-]+)\}")
_SECRET_LIKE = re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{12,}\b|\bsk-[A-Za-z0-9_-]{16,}|Bearer (?!\$\{)[^\s\"]{8,}")
_BLANK = re.compile(r"<[^<>]*>")
# What is known only when a job runs: the caller's input, or what the service answered.
_LATER: Final = frozenset(
    {"input", "texts", "id", "job_id", "name", "metadata", "input_file_id", "dataset_id", "EndpointName"}
    | {"TransformJobName", "TransformJobArn", "TransformInput", "TransformOutput"}
)


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = Field(min_length=1, max_length=256)
    description: str | None = None
    parameters: Mapping[str, JsonValue] = Field(default_factory=dict)
    """Further parameters, and other values for the blueprint's own."""

    def filling(self) -> dict[str, JsonValue]:
        """Return the parameters that this config gives the blueprint."""
        own = self.model_dump(exclude={"kind", "name", "description", "parameters", "role_arn"}, exclude_none=True)
        return {**own, **self.parameters}


class SageMakerConnector(_Config):
    """
    Batch transform jobs and, if there is one, an endpoint of Amazon SageMaker.

    :param region: Of the model.
    :param ModelName: The SageMaker model that jobs run; a job's parameters may name another.
    :param EndpointName: For single predictions.
    :param TransformInput: As in ``CreateTransformJob``; mostly left to each job's parameters.
    :param TransformOutput: The same.
    :param TransformResources: Instance type and count.
    :param role_arn: On Amazon OpenSearch Service: the role that the domain assumes, instead of keys.
    :param api_url: Of SageMaker's control plane; the region's public one when left out.
    """

    kind: Literal["sagemaker"] = "sagemaker"
    region: str = Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")
    ModelName: str = Field(pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$")
    EndpointName: str | None = None
    BatchStrategy: Literal["MultiRecord", "SingleRecord"] | None = None
    MaxPayloadInMB: int | None = Field(default=None, ge=0, le=100)
    DataProcessing: Mapping[str, JsonValue] | None = None
    TransformInput: Mapping[str, JsonValue] | None = None
    TransformOutput: Mapping[str, JsonValue] | None = None
    TransformResources: Mapping[str, JsonValue] | None = None
    role_arn: str | None = Field(default=None, pattern=r"^arn:[a-z-]+:iam::\d{12}:role/.+$")
    api_url: str | None = None
    runtime_url: str | None = None

    def filling(self) -> dict[str, JsonValue]:
        """Return the parameters, with the region's own addresses."""
        return {
            "api_url": f"https://api.sagemaker.{self.region}.amazonaws.com",
            "runtime_url": f"https://runtime.sagemaker.{self.region}.amazonaws.com",
            **super().filling(),
        }


class OpenAIConnector(_Config):
    """
    Batches and single requests of OpenAI, or of a compatible server.

    :param endpoint: What every line of a batch is for.
    :param base_url: Up to and including the version.
    """

    kind: Literal["openai"] = "openai"
    model: str = Field(min_length=1)
    endpoint: str = Field(default="/v1/embeddings", pattern=r"^/[A-Za-z0-9._/-]+$")
    base_url: str = "https://api.openai.com/v1"


class CohereConnector(_Config):
    """
    Embed jobs and single requests of Cohere.

    :param input_type: What the embeddings are for.
    """

    kind: Literal["cohere"] = "cohere"
    model: str = Field(default="embed-english-v3.0", min_length=1)
    input_type: Literal["search_document", "search_query", "classification", "clustering"] = "search_document"
    base_url: str = "https://api.cohere.com/v1"


ConnectorConfig = Annotated[SageMakerConnector | OpenAIConnector | CohereConnector, Field(discriminator="kind")]
_CONFIG: Final[TypeAdapter[SageMakerConnector | OpenAIConnector | CohereConnector]] = TypeAdapter(ConnectorConfig)


def read_config(config: Mapping[str, Any]) -> SageMakerConnector | OpenAIConnector | CohereConnector:
    """
    Read a config, whose ``kind`` is ``sagemaker``, ``openai`` or ``cohere``.

    :raises SpecError: a field is missing, wrong or unknown.
    """
    try:
        return _CONFIG.validate_python(config)
    except ValidationError as error:
        raise SpecError(f"The connector's config is wrong: {describe_faults(error, 'config')}.") from None


CREDENTIALS: Final[Mapping[str, tuple[str, ...]]] = {
    "sagemaker": ("access_key", "secret_key"),
    "openai": ("openAI_key",),
    "cohere": ("cohere_key",),
}
"""What a connector of each kind calls the parts of its credential."""


def name_credential(config: SageMakerConnector | OpenAIConnector | CohereConnector) -> tuple[str, ...]:
    """Return what a connector calls the parts of its credential; none where the cluster has a role."""
    has_role = isinstance(config, SageMakerConnector) and config.role_arn
    return () if has_role else CREDENTIALS[config.kind]


def read_blueprint(blueprint: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """
    Read a blueprint from a JSON file, or take it as it is.

    :raises SpecError: there is no such file, or it is not a JSON object.
    """
    if isinstance(blueprint, Mapping):
        return dict(blueprint)
    try:
        read = orjson.loads(Path(blueprint).read_bytes())
    except OSError as error:
        raise SpecError(f"The blueprint {blueprint} cannot be read: {error.strerror}.") from error
    except orjson.JSONDecodeError as error:
        raise SpecError(f"The blueprint {blueprint} is not JSON: {error}.") from error
    except ValueError as error:
        raise SpecError(f"The blueprint {shorten(repr(blueprint), 200)} is no path of a file: {error}.") from error
    if not isinstance(read, dict):
        raise SpecError(f"The blueprint {blueprint} is not a JSON object.")
    return read


def fill(
    blueprint: Mapping[str, Any],
    config: SageMakerConnector | OpenAIConnector | CohereConnector,
) -> dict[str, Any]:
    """Return the blueprint with a config's name and parameters; the credential comes with :func:`checked`."""
    body = {
        **blueprint,
        "name": config.name,
        "parameters": {**(blueprint.get("parameters") or {}), **config.filling()},
    }
    if config.description is not None:
        body["description"] = config.description
    if isinstance(config, SageMakerConnector) and config.role_arn:
        body["credential"] = {**(blueprint.get("credential") or {}), "roleArn": config.role_arn}
    return body


def checked(connector: Mapping[str, Any], credential: Mapping[str, str]) -> dict[str, Any]:
    """
    Return a connector with its credential, once it is one that will work.

    The server finds most of these out when the first job is submitted, polled or cancelled, if at all.

    An action without a ``request_body`` gets an empty object, without which the server answers 500. A placeholder in
    the place of a credential (``"<your openAI key>"``) is replaced by the connection's.

    :param credential: From an Airflow connection.
    :raises SpecError: an action or a value is missing, a body is not JSON, an address is not HTTPS, or a credential is
        written into it. Its text quotes no credential.
    """
    whole = {**connector, "actions": [_complete(action) for action in connector.get("actions") or ()]}
    problems = [*_problems(whole, credential)]
    if problems:
        raise SpecError(f"The connector {connector.get('name')!r} would not work: {'; '.join(problems)}.")
    return {**whole, "credential": {**(connector.get("credential") or {}), **credential}}


def _complete(action: Any) -> Any:
    return {"request_body": "{}", **action} if isinstance(action, Mapping) else action


def _problems(connector: Mapping[str, Any], credential: Mapping[str, str]) -> Iterator[str]:
    parameters = connector.get("parameters") or {}
    protocol = connector.get("protocol")
    yield from (f"{name!r} is missing" for name in ("name", "version", "protocol") if not connector.get(name))
    if protocol not in ("http", "aws_sigv4"):
        yield "protocol must be 'http' or 'aws_sigv4'"
    if _SECRET_LIKE.search(str({name: value for name, value in connector.items() if name != "credential"})):
        yield "a credential is written into it; put it into the Airflow connection, and ${credential.…} in its place"
    inline = {
        name
        for name, value in (connector.get("credential") or {}).items()
        if name != "roleArn" and not (name in credential and _BLANK.fullmatch(str(value)))
    }
    if inline:
        yield f"credential {sorted(inline)} is written into it; put it into the Airflow connection"
    given = {*credential, *(connector.get("credential") or {})}
    if protocol == "aws_sigv4":
        yield from (f"parameters.{name} is missing" for name in ("region", "service_name") if not parameters.get(name))
        if "roleArn" not in given and not {"access_key", "secret_key"} <= given:
            yield "it needs access_key and secret_key from an AWS connection, or role_arn on Amazon OpenSearch Service"
    actions = {str(action.get("action_type")).lower(): action for action in connector.get("actions") or ()}
    yield from (f"the action {name!r} is missing" for name in NEEDED if name not in actions)
    headers = [actions[name].get("headers") for name in ("predict", *_HEADERLESS) if name in actions]
    if "predict" not in actions and protocol == "http" and any(headers):
        yield "without the action 'predict' the server sends no headers, as it takes that one's for the others"
    elif any(other != headers[0] for other in headers):
        yield f"the headers of 'predict' are also sent with {', '.join(_HEADERLESS)}, so theirs must be the same"
    for name, action in actions.items():
        yield from (f"{name}: {problem}" for problem in _action_problems(action, parameters, given))


def _action_problems(action: Mapping[str, Any], parameters: Mapping[str, Any], given: set[str]) -> Iterator[str]:
    body = action.get("request_body")
    if not body:
        yield 'request_body is empty; where nothing is to be sent it must be "{}" (the server answers 400 to "")'
    for scope, name in _PLACEHOLDER.findall(f"{action.get('url')} {action.get('headers')} {body}"):
        if scope == "credential" and name not in given:
            yield f"${{credential.{name}}} has no value; name the Airflow connection that has it"
        if scope == "parameters" and name not in parameters and name not in _LATER:
            yield f"${{parameters.{name}}} has no value"
    if body and not _is_json(body, parameters):
        yield "request_body is not JSON once its parameters are filled in"
    url = _PLACEHOLDER.sub(lambda match: str(parameters.get(match[2], "x")), str(action.get("url")))
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost")):
        yield f"the address {url} is not https"


def _is_json(body: str, parameters: Mapping[str, Any]) -> bool:
    def value(match: re.Match[str]) -> str:
        given = parameters.get(match[2])
        quoted = body[match.start() - 1 : match.start()] == '"'
        if given is None:
            return "x" if quoted else "null"
        return given if isinstance(given, str) else orjson.dumps(given).decode()

    try:
        orjson.loads(_PLACEHOLDER.sub(value, body))
    except orjson.JSONDecodeError:
        return False
    return True
