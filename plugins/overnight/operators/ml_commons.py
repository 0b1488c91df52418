"""ML Commons as DAG steps: connectors, remote models, and batch prediction. Ingestion is next door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator

from overnight.errors import SpecError
from overnight.hooks.job import hook_for
from overnight.hooks.ml_commons import MLCommonsPredictHook, connector_credential
from overnight.hooks.opensearch import OpenSearchHook
from overnight.hooks.outcome import failing_for_good
from overnight.operators.job import JobOperator
from overnight.operators.parameters import check_parameters

if TYPE_CHECKING:
    from airflow.sdk import Context

    from overnight.hooks.job import JobHook
    from overnight.jobs import FoundJob, JobKey
    from overnight.jobs.client import JobClient
    from overnight.services.ml_commons.predict.spec import MLCommonsPredictSpec


class _MLCommonsOperator(BaseOperator):
    """A step that keeps something in the cluster as it should be, and so can be repeated."""

    template_fields: Sequence[str] = ("conn_id",)

    def __init__(self, *, conn_id: str = OpenSearchHook.default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id

    def _run(self, flow: Any) -> Any:
        from overnight.services.ml_commons.connection import transport  # noqa: PLC0415 - not at parse

        with transport(OpenSearchHook(self.conn_id).get_config()) as plugin:
            return plugin.run(flow)


class MLCommonsConnectorOperator(_MLCommonsOperator):
    """
    Make sure that a connector is there. The XCom is its id; a second run finds the first one's connector, by name.

    :param blueprint: A connector without account and credential: the path of a JSON file, such as those in
        ``include/connectors/``, or its content.
    :param config: What fills it: the fields of :class:`~overnight.services.ml_commons.connectors.SageMakerConnector`,
        :class:`~overnight.services.ml_commons.connectors.OpenAIConnector` or
        :class:`~overnight.services.ml_commons.connectors.CohereConnector`, and ``kind``: ``sagemaker``, ``openai``,
        ``cohere``.
    :param credential_conn_id: Whose credential the connector gets: an AWS connection for SageMaker, else one with the
        API key as its password. The cluster keeps it encrypted and never shows it. Temporary AWS keys end, and the
        connector with them.
    :param update: Bring a connector that is there to this content and credential; models that use it must be
        undeployed.
    :param conn_id: The OpenSearch connection.
    :raises AirflowFailException: the connector would not work, or another one has the name.
    """

    template_fields: Sequence[str] = ("blueprint", "config", "credential_conn_id", *_MLCommonsOperator.template_fields)

    def __init__(
        self,
        *,
        blueprint: str | Mapping[str, Any],
        config: Mapping[str, Any],
        credential_conn_id: str | None = None,
        update: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.blueprint = blueprint
        self.config = config
        self.credential_conn_id = credential_conn_id
        self.update = update

    def execute(self, context: Context) -> str:
        """Create the connector, or find it."""
        from overnight.services.ml_commons.connectors import checked, fill, name_credential, read_blueprint, read_config  # noqa: PLC0415 - not at parse
        from overnight.services.ml_commons.models import ensure_connector  # noqa: PLC0415 - not at parse

        with failing_for_good():
            check_parameters(self)
            config = read_config(self.config)
            has_role = not name_credential(config)
            credential = {} if has_role else connector_credential(config.kind, self.credential_conn_id)
            body = checked(fill(read_blueprint(self.blueprint), config), credential)
            connector_id: str = self._run(ensure_connector(body, update=self.update))
        self.log.info("The connector %r is %s.", config.name, connector_id)
        return connector_id


class MLCommonsDeleteConnectorOperator(_MLCommonsOperator):
    """
    Delete a connector; one that is not there is fine.

    :param connector_id: Its id; templated.
    :param conn_id: The OpenSearch connection.
    :raises AirflowFailException: models still use it.
    """

    template_fields: Sequence[str] = ("connector_id", *_MLCommonsOperator.template_fields)

    def __init__(self, *, connector_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.connector_id = connector_id

    def execute(self, context: Context) -> None:
        """Delete it."""
        from overnight.services.ml_commons.models import delete_connector  # noqa: PLC0415 - not at parse

        with failing_for_good():
            check_parameters(self)
            self._run(delete_connector(self.connector_id))


class MLCommonsRegisterModelOperator(_MLCommonsOperator):
    """
    Make sure that a remote model is registered and deployed. The XCom is its id.

    A model of that name with that connector is used again, and deployed where it is not. Waits for its tasks.

    :param model_name: Its name in the cluster.
    :param connector_id: The connector that it stands for.
    :param description: For people.
    :param conn_id: The OpenSearch connection.
    :raises AirflowFailException: registering failed, or a model of that name has another connector.
    """

    template_fields: Sequence[str] = ("model_name", "connector_id", "description", *_MLCommonsOperator.template_fields)

    def __init__(self, *, model_name: str, connector_id: str, description: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.connector_id = connector_id
        self.description = description

    def execute(self, context: Context) -> str:
        """Register and deploy the model, or find it."""
        from overnight.services.ml_commons.models import ensure_model  # noqa: PLC0415 - not at parse

        with failing_for_good():
            check_parameters(self)
            model_id: str = self._run(ensure_model(self.model_name, self.connector_id, self.description))
        self.log.info("The model %r is %s, and deployed.", self.model_name, model_id)
        return model_id


class MLCommonsDeleteModelOperator(_MLCommonsOperator):
    """
    Undeploy and delete a model; one that is not there is fine.

    :param model_id: Its id; templated.
    :param conn_id: The OpenSearch connection.
    """

    template_fields: Sequence[str] = ("model_id", *_MLCommonsOperator.template_fields)

    def __init__(self, *, model_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model_id = model_id

    def execute(self, context: Context) -> None:
        """Delete it."""
        from overnight.services.ml_commons.models import delete_model  # noqa: PLC0415 - not at parse

        with failing_for_good():
            check_parameters(self)
            self._run(delete_model(self.model_id))


class MLCommonsBatchPredictOperator(JobOperator["MLCommonsPredictSpec"]):
    """
    Run one batch prediction and wait for its end.

    The remote job bears a name of this task instance, passed through the connector (``TransformJobName`` for SageMaker,
    ``metadata`` for OpenAI), so that a retry finds it. The results are where the remote service put them.

    :param model_id: A deployed remote model; templated.
    :param parameters: What overrides the connector's own parameters: ``input_file_id`` for OpenAI, ``TransformInput``
        and ``TransformOutput`` for SageMaker …; objects as objects. No credential.
    :param allow_unnamed: Run the job also through a connector that passes no name on to its service, as the one of ML
        Commons' documentation. When a worker dies before it has recorded the task's id, a retry then pays twice;
        ``durable=False`` accepts that, too.
    :param remote_service: With ``remote_conn_id``: the service behind the connector, ``sagemaker`` or ``openai``, where
        a job is looked for that was created and never became a task of the cluster. One that is found is not created
        again: the task fails and names it.
    :param remote_conn_id: The connection of that service.
    :param conn_id: The OpenSearch connection, ``opensearch_default`` when left out.

    All further parameters are those of :class:`~overnight.operators.job.JobOperator`.
    """

    template_fields: Sequence[str] = (
        "model_id",
        "parameters",
        "allow_unnamed",
        "remote_service",
        "remote_conn_id",
        *JobOperator.template_fields,
    )
    hook_class: ClassVar[type[JobHook[Any]]] = MLCommonsPredictHook

    def __init__(
        self,
        *,
        model_id: str,
        parameters: Mapping[str, Any] | None = None,
        allow_unnamed: bool | str = False,
        remote_service: str | None = None,
        remote_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_id = model_id
        self.parameters = parameters
        self.allow_unnamed = allow_unnamed
        self.remote_service = remote_service
        self.remote_conn_id = remote_conn_id

    def build_spec(self, context: Context) -> MLCommonsPredictSpec:
        """Return the spec; credentials among the parameters are refused."""
        from overnight.services.ml_commons.predict.spec import MLCommonsPredictSpec  # noqa: PLC0415 - not at parse

        fields = {"model_id": self.model_id, "parameters": self.parameters or {}, "allow_unnamed": self.allow_unnamed}
        spec = MLCommonsPredictSpec.model_validate(fields)
        # A task that remembers no job finds none again, whatever its name.
        return spec if self.parse_settings().durable else spec.model_copy(update={"allow_unnamed": True})

    def make_client(self) -> JobClient[Any]:
        """Return a client that also knows where the remote jobs are, if it was given them."""
        if (self.remote_service is None) != (self.remote_conn_id is None):
            raise SpecError("Give remote_service and remote_conn_id together, or neither.")
        look_up = self._look_up_remote if self.remote_conn_id is not None else None
        return MLCommonsPredictHook(self.conn_id, look_up_remote=look_up).client()

    def _look_up_remote(self, key: JobKey, since: datetime) -> FoundJob | None:
        from overnight.jobs import JobRef  # noqa: PLC0415 - not at parse

        place = JobRef(service=str(self.remote_service), id=key.name, conn_id=str(self.remote_conn_id))
        with hook_for(place).client() as client:
            found: FoundJob | None = client.run(client.service.find(key, since))
        return found
