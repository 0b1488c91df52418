"""ML Commons behind an OpenSearch connection, and the credentials that the cluster is given from other connections."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from airflow.sdk import BaseHook
from airflow.sdk.log import mask_secret

from overnight.errors import SpecError
from overnight.hooks.aws import naming_aws
from overnight.hooks.job import JobHook
from overnight.hooks.opensearch import OpenSearchHook, parse_connection
from overnight.hooks.storage import DEFAULT_AWS_CONN_ID

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from overnight.jobs.client import JobClient
    from overnight.jobs.service import Service
    from overnight.services.ml_commons.ingest.credential import Credential, S3Credential
    from overnight.services.ml_commons.ingest.service import MLCommonsIngestService
    from overnight.services.ml_commons.predict.service import MLCommonsPredictService, RemoteLookup
    from overnight.transport.flow import Flow
    from overnight.transport.opensearch import OpenSearchConnection

ServiceT = TypeVar("ServiceT", bound="Service[Any]")


class _MLCommonsHook(JobHook[ServiceT]):
    """Reach the plugin through the connection of an :class:`~overnight.hooks.opensearch.OpenSearchHook`."""

    default_conn_name: ClassVar[str] = OpenSearchHook.default_conn_name
    conn_type: ClassVar[str] = OpenSearchHook.conn_type
    hook_name: ClassVar[str] = OpenSearchHook.hook_name

    @abstractmethod
    def service(self, config: OpenSearchConnection) -> ServiceT:
        """Return the service for a cluster."""

    def client_from(self, connection: Connection, extra: Mapping[str, Any]) -> JobClient[ServiceT]:
        """Return a client for a connection; an AWS connection that it names is looked up, blocking."""
        return self._client(parse_connection(connection, extra, self.get_connection))

    async def aclient(self) -> JobClient[ServiceT]:
        """Look the connections up on the event loop and return a client. For triggerers."""
        return self._client(await OpenSearchHook(self.conn_id).aget_config())

    def probe(self, service: ServiceT) -> Flow[str]:
        """List one ML task, which needs the plugin and the right to use it."""
        from overnight.services.ml_commons.answers import ask  # noqa: PLC0415 - not at parse
        from overnight.services.ml_commons.connection import ML  # noqa: PLC0415 - not at parse
        from overnight.transport.http import HttpCall  # noqa: PLC0415 - not at parse

        del service
        body = {"size": 1, "query": {"match_all": {}}}
        yield from ask(HttpCall("POST", f"{ML}/tasks/_search", json=body))
        return "ML Commons answers."

    def _client(self, config: OpenSearchConnection) -> JobClient[ServiceT]:
        from overnight.jobs.client import JobClient  # noqa: PLC0415 - not at parse
        from overnight.services.ml_commons.connection import transport  # noqa: PLC0415 - not at parse

        return JobClient(self.service(config), transport(config))


class MLCommonsPredictHook(_MLCommonsHook["MLCommonsPredictService"]):
    """
    Reach batch prediction.

    :param conn_id: The OpenSearch connection.
    :param look_up_remote: Where an orphan is looked for that the cluster has no task of.
    """

    def __init__(
        self, conn_id: str | None = None, *, look_up_remote: RemoteLookup | None = None, **kwargs: Any
    ) -> None:
        super().__init__(conn_id, **kwargs)
        self.look_up_remote = look_up_remote

    def service(self, config: OpenSearchConnection) -> MLCommonsPredictService:
        """Return the service for a cluster."""
        from overnight.services.ml_commons.predict.service import MLCommonsPredictService  # noqa: PLC0415 - not at parse

        del config
        return MLCommonsPredictService(self.conn_id, self.look_up_remote)


class MLCommonsIngestHook(_MLCommonsHook["MLCommonsIngestService"]):
    """
    Reach batch ingestion.

    :param conn_id: The OpenSearch connection.
    :param aws_conn_id: Whose keys the cluster gets for S3; looked up at submit only.
    :param openai_conn_id: Whose key the cluster gets for OpenAI's files; the same.
    :param give_credential: ``False`` when a connector has the credential.
    """

    def __init__(
        self,
        conn_id: str | None = None,
        *,
        aws_conn_id: str | None = DEFAULT_AWS_CONN_ID,
        openai_conn_id: str | None = "openai_default",
        give_credential: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(conn_id, **kwargs)
        self.aws_conn_id = aws_conn_id
        self.openai_conn_id = openai_conn_id
        self.give_credential = give_credential

    def service(self, config: OpenSearchConnection) -> MLCommonsIngestService:
        """Return the service for a cluster."""
        from overnight.services.ml_commons.ingest.service import MLCommonsIngestService  # noqa: PLC0415 - not at parse

        return MLCommonsIngestService(self.conn_id, config, self._credential if self.give_credential else None)

    def _credential(self, source_type: str) -> Credential:
        from overnight.services.ml_commons.ingest.credential import OpenAICredential  # noqa: PLC0415 - not at parse

        if source_type == "openAI":
            return OpenAICredential(api_key(self.openai_conn_id or "openai_default"))
        return s3_credential(self.aws_conn_id)


def s3_credential(aws_conn_id: str | None) -> S3Credential:
    """
    Return the keys of an AWS connection, to be handed to a cluster.

    :raises SpecError: it has none, or no region.
    """
    from overnight.services.ml_commons.ingest.credential import S3Credential  # noqa: PLC0415 - not at parse

    with naming_aws(aws_conn_id):
        from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook  # noqa: PLC0415 - boto3 takes its time

        session = AwsBaseHook(aws_conn_id=aws_conn_id).get_session()
        found = session.get_credentials()
    if found is None:
        raise SpecError(f"The AWS connection {aws_conn_id!r} has no keys, and the cluster needs some to read S3.")
    if not session.region_name:
        raise SpecError(f"Put region_name into the extra of the AWS connection {aws_conn_id!r}.")
    keys = found.get_frozen_credentials()
    # An assumed role's keys are in no connection, so Airflow does not know them for secrets yet.
    for secret in filter(None, (keys.secret_key, keys.token)):
        mask_secret(secret)
    return S3Credential(keys.access_key, keys.secret_key, session.region_name, keys.token)


def api_key(conn_id: str) -> str:
    """
    Return the password of a connection, which is an API key.

    :raises SpecError: it has none.
    """
    key = (BaseHook.get_connection(conn_id).password or "").strip()
    if not key:
        raise SpecError(f"The connection {conn_id!r} has no API key; put it into the password field.")
    return key


def connector_credential(kind: Literal["sagemaker", "openai", "cohere"], conn_id: str | None) -> dict[str, str]:
    """
    Return what a connector of a kind calls its credential, from an Airflow connection.

    :param conn_id: An AWS connection for ``sagemaker``; else one with the API key as password.
    """
    # Needed by the step that makes a connector alone, and not when a DAG is parsed.
    from overnight.services.ml_commons.connectors import CREDENTIALS  # noqa: PLC0415

    if kind == "sagemaker":
        keys = s3_credential(conn_id or DEFAULT_AWS_CONN_ID)
        token = {"session_token": keys.session_token} if keys.session_token else {}
        return dict(zip(CREDENTIALS[kind], (keys.access_key, keys.secret_key), strict=True)) | token
    (name,) = CREDENTIALS[kind]
    return {name: api_key(conn_id or f"{kind}_default")}
