"""How a task waits for its job: every parameter parsed and checked before anything is submitted."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from overnight.errors import SpecError, shorten
from overnight.jobs.allowance import Allowance
from overnight.jobs.choices import OnChangedSpec, OnClear
from overnight.jobs.queue import Budget, QueueRequest
from overnight.jobs.record import JobRecord

_DURATION = TypeAdapter(timedelta)


def parse_seconds(value: Any) -> Any:
    """
    Return a duration in seconds.

    :param value: A number or its text, a timedelta, or a duration as text: ``PT1H30M`` (ISO 8601), ``01:30:00``.
    :raises ValueError: it is none of these.
    """
    if isinstance(value, bool):
        raise ValueError("is no duration; give seconds, a timedelta, or a text such as 'PT1H' or '01:00:00'")  # noqa: TRY004
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            try:
                return _DURATION.validate_python(value.strip()).total_seconds()
            except ValidationError:
                raise ValueError(
                    "is no duration; give seconds, a timedelta, or a text such as 'PT1H' or '01:00:00'"
                ) from None
    return value


def _parse_optional(value: Any) -> Any:
    # What a template makes of an absent value.
    return None if isinstance(value, str) and value.strip().lower() in ("", "none", "null") else value


def _parse_allowance(value: Any) -> Any:
    return value if isinstance(value, Allowance) else Allowance.parse(value)


def _parse_budget(value: Any) -> Any:
    return Budget.parse(value)


Seconds = Annotated[float, BeforeValidator(parse_seconds)]


class WaitSettings(BaseModel):
    """
    How a task attaches to its job and waits for it. The parameters are those of an operator, also as template text.

    :param poll_interval: Seconds between polls, above 0.
    :param deadline: Seconds from the submit, above 0; ``None`` for none.
    :param patience: Seconds without a usable answer after which the polling ends, from 0 on.
    :param cancel_on_deadline: Cancel the job when the deadline passes.
    :param cancel_on_kill: Cancel the job when the task is killed, marked or cleared while it waits.
    :param allowed_failures: How many items may fail.
    :param wait_for_completion: ``False``: return once the job is submitted.
    :param deferrable: Wait in the triggerer.
    :param durable: ``False``: every try submits and pays anew.
    :param budget: What the service's queue may hold, of all jobs that are not over; without it, what the service takes.
    :param queue_deadline: Seconds that a job waits for room in the queue, from its first refusal; ``None`` for ever.
    :param on_changed_spec: What is done with a job of the task that runs with another spec.
    :param on_clear: What a task does that was cleared after its success.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True)

    poll_interval: Annotated[Seconds, Field(gt=0, allow_inf_nan=False)] = 60.0
    deadline: Annotated[
        Annotated[Seconds, Field(gt=0, allow_inf_nan=False)] | None, BeforeValidator(_parse_optional)
    ] = 25 * 3600.0
    patience: Annotated[Seconds, Field(ge=0, allow_inf_nan=False)] = 3600.0
    cancel_on_deadline: bool = True
    cancel_on_kill: bool = True
    allowed_failures: Annotated[Allowance, BeforeValidator(_parse_allowance)] = Allowance(count=0)
    wait_for_completion: bool = True
    deferrable: bool = False
    durable: bool = True
    on_changed_spec: OnChangedSpec = "fail"
    on_clear: OnClear = "resubmit"
    budget: Annotated[Budget, BeforeValidator(_parse_budget)] = Budget()
    queue_deadline: Annotated[
        Annotated[Seconds, Field(gt=0, allow_inf_nan=False)] | None, BeforeValidator(_parse_optional)
    ] = 24 * 3600.0

    @classmethod
    def parse(cls, **parameters: Any) -> Self:
        """
        Parse the parameters.

        :raises SpecError: one is out of its range, or no number, duration or truth value; all of them are named.
        """
        try:
            return cls.model_validate(parameters)
        except ValidationError as error:
            faults = "; ".join(
                f"{fault['loc'][0]}={shorten(repr(parameters.get(str(fault['loc'][0]))), 200)}: "
                f"{fault['msg'].removeprefix('Value error, ')}"
                for fault in error.errors(include_url=False, include_input=False)
            )
            raise SpecError(f"{faults}. Nothing was submitted.") from None

    def get_queue_deadline(self, request: QueueRequest) -> float | None:
        """Return the end of a job's waiting for room, in epoch seconds."""
        return request.since.timestamp() + self.queue_deadline if self.queue_deadline is not None else None

    def get_deadline(self, record: JobRecord) -> float | None:
        """Return the deadline of a job in epoch seconds: it counts from the submit, whatever the try."""
        submitted_at = (record.submitted_at or record.intent_at).timestamp()
        return submitted_at + self.deadline if self.deadline is not None else None
