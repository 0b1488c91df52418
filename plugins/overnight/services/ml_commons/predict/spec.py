"""What a batch prediction is asked to do."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import Field, JsonValue, field_validator

from overnight.jobs.service import JobSpec

_SECRET = re.compile(r"(access|secret|api|openai|cohere)_?key|session_?token|password|authorization", re.IGNORECASE)


class MLCommonsPredictSpec(JobSpec):
    """
    One batch prediction.

    :param model_id: A deployed remote model, whose connector has the actions ``batch_predict`` and
        ``batch_predict_status``.
    :param parameters: What overrides the connector's own parameters for this job. Objects are given as objects.
    :param allow_unnamed: Submit also through a connector that passes no name on to its service. A job without a name
        is not found again when the worker dies before it has recorded the task's id: a retry then pays twice.
    """

    model_id: str = Field(min_length=1)
    parameters: Mapping[str, JsonValue] = Field(default_factory=dict)
    # It does not change the work, and so not the fingerprint.
    allow_unnamed: bool = Field(default=False, exclude=True)

    @field_validator("parameters")
    @classmethod
    def _no_secret(cls, parameters: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        secrets = [name for name in parameters if _SECRET.search(name)]
        if secrets:
            raise ValueError(
                f"{secrets} look like credentials, which belong into the connector (and reach it from an Airflow "
                "connection), not into a job's parameters"
            )
        return parameters
