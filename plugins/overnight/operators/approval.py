"""The step between an estimate and the first upload: whether a run may cost what it will, by a budget or a person."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from airflow.providers.standard.exceptions import HITLTimeoutError
from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator
from airflow.sdk.exceptions import AirflowFailException

from overnight.errors import SpecError, shorten
from overnight.hooks.outcome import failing_for_good
from overnight.hooks.storage import DEFAULT_AWS_CONN_ID, connected_storage
from overnight.operators.parameters import check_parameters
from overnight.validation import parse_parameter

if TYPE_CHECKING:
    from airflow.sdk import Context

    from overnight.costs.estimate import CostEstimate
    from overnight.costs.money import Threshold
    from overnight.costs.spending import Spending

T = TypeVar("T")

REFUSED_KEY: Final = "refused"
"""The XCom with the sentence that says why a run may not cost what it would; there is none when it may."""
_MAX_NAME: Final = 200


class CostApprovalOperator(HITLOperator):
    """
    Let a run go on that costs little, and ask a person about one that costs more.

    Put it between :class:`~overnight.operators.openai.OpenAIBatchInputOperator` and the tasks that submit. A run whose
    estimate is above ``approve_above``, or has no price that is known, waits for an answer as Airflow's "required
    action": without a worker, and without a triggerer. "Reject" fails the task without a retry, and nothing was
    uploaded. Any other run passes through.

    With a ``cost_budget``, a run that would go over it fails without a retry; one that goes on has put its estimate
    down before anything is uploaded, and the pipeline's report replaces that by what was paid.

    The XCom is ``{"asked", "by", "spending_uri"}``: whether a person was asked, the name of who approved, and the run's
    record of the budget. A run that is refused leaves the reason as the XCom ``refused``.

    :param estimate: The XCom ``estimate`` of the step that made the batches' input
        (``XComArg(prepare, key="estimate")``).
    :param approve_above: Money (``"5 USD"``, or a number in the currency of the prices) or tokens
        (``"20000000 tokens"``) that a run may cost unasked; ``None`` asks about none.
    :param approval_hours: How long an answer is waited for; after that the run is refused. ``None`` for any time.
    :param cost_budget: What all runs may cost together in a day, a week or a month of UTC: ``"50 USD/month"``,
        ``"20000000 tokens/day"``.
    :param cost_budget_uri: The folder of its records, a small file for each run. Whoever shares it shares the budget.
    :param aws_conn_id: The connection for an ``s3://`` URI.
    :param kwargs: Those of Airflow's ``HITLOperator``, such as ``notifiers`` and ``assigned_users``.
    """

    template_fields: Sequence[str] = (
        "estimate", "approve_above", "approval_hours", "cost_budget", "cost_budget_uri", "aws_conn_id",
    )  # fmt: skip

    def __init__(
        self,
        *,
        estimate: Mapping[str, Any],
        approve_above: float | str | None = None,
        approval_hours: float | str | None = None,
        cost_budget: str | None = None,
        cost_budget_uri: str | None = None,
        aws_conn_id: str | None = DEFAULT_AWS_CONN_ID,
        **kwargs: Any,
    ) -> None:
        # What it really asks is known when the estimate is.
        # An ApprovalOperator skips what follows a rejection: the run would be a success that indexed nothing.
        super().__init__(
            subject="What this run costs", options=[ApprovalOperator.APPROVE, ApprovalOperator.REJECT], **kwargs
        )
        self.estimate = estimate
        self.approve_above = approve_above
        self.approval_hours = approval_hours
        self.cost_budget = cost_budget
        self.cost_budget_uri = cost_budget_uri
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Pass a run through, or begin to wait for a person's answer."""
        with failing_for_good():
            check_parameters(self)
            estimate = self._parse_estimate()
            threshold = _parse_threshold(self.approve_above)
            self.response_timeout = _parse_hours(self.approval_hours)
            is_above = threshold is not None and estimate.exceeds(threshold, "approve_above")
            if is_above and (spending := self._open_spending()) is not None:
                # Nobody is asked about what would be refused.
                self._within_budget(context, lambda: spending.check(_get_owner(context), estimate))
        if not is_above:
            return self._allow(context, estimate)
        self.subject = f"{context['dag'].dag_id}: {_describe_cost(estimate)}"
        numbers = "\n".join(f"* {line}" for line in estimate.describe())
        self.body = (
            f"The run `{context['run_id']}` waits to send {_describe_cost(estimate)}; it asks because of "
            f"approve_above={threshold}. Nothing has been uploaded.\n\n{numbers}\n\n"
            "If it is rejected, it fails and nothing is paid."
        )
        self.log.info("%s. Approve or reject it under 'Required Actions'.", self.subject)
        # Raises what parks the task.
        super().execute(context)
        raise AssertionError("the wait for an answer has begun")

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """
        Go on after the answer.

        :raises AirflowFailException: it is no, or there was none in time.
        """
        with failing_for_good():
            estimate = self._parse_estimate()
            spending = self._open_spending()
        cost = _describe_cost(estimate)
        try:
            answer = super().execute_complete(context, event)
        except HITLTimeoutError:
            self._refuse(context, f"Nobody approved {cost} within approval_hours={self.approval_hours}.", spending)
        user = event.get("responded_by_user") or {}
        name = shorten(str(user.get("name") or user.get("id") or "somebody"), _MAX_NAME)
        approved = answer["chosen_options"] == [ApprovalOperator.APPROVE]
        self.hitl_summary_extra["approved"] = approved
        if not approved:
            self._refuse(context, f"{name} rejected {cost}.", spending)
        self.log.info("%s approved %s.", name, cost)
        return self._allow(context, estimate, by=name)

    def _allow(self, context: Context, estimate: CostEstimate, by: str | None = None) -> dict[str, Any]:
        uri = None
        with failing_for_good():
            if (spending := self._open_spending()) is not None:
                uri = self._within_budget(context, lambda: spending.reserve(_get_owner(context), estimate))
                self.log.info("Within cost_budget=%s. The record of this run is %s.", self.cost_budget, uri)
        return {"asked": by is not None, "by": by, "spending_uri": uri}

    def _within_budget(self, context: Context, look: Callable[[], T]) -> T:
        """Leave the reason for the report when a run would go over the budget."""
        try:
            return look()
        except SpecError as error:
            context["ti"].xcom_push(key=REFUSED_KEY, value=shorten(str(error)))
            raise

    def _refuse(self, context: Context, reason: str, spending: Spending | None) -> NoReturn:
        text = f"{reason} Nothing was uploaded. Clear the task {self.task_id} to be asked again."
        context["ti"].xcom_push(key=REFUSED_KEY, value=text)
        if spending is not None:
            # Of a former try that was approved.
            with failing_for_good():
                spending.release(_get_owner(context))
        raise AirflowFailException(text)

    def _open_spending(self) -> Spending | None:
        from overnight.costs.spending import CostBudget, Spending  # noqa: PLC0415 - not at parse

        if self.cost_budget in (None, "", "None"):
            return None
        if self.cost_budget_uri in (None, "", "None"):
            raise SpecError("cost_budget needs cost_budget_uri, the folder of its records. Nothing was uploaded.")
        budget = CostBudget.parse(self.cost_budget)
        return Spending(str(self.cost_budget_uri), budget, connected_storage(self.aws_conn_id))

    def _parse_estimate(self) -> CostEstimate:
        from overnight.costs.estimate import CostEstimate  # noqa: PLC0415 - not at parse

        return parse_parameter(CostEstimate, self.estimate, "estimate")


def _get_owner(context: Context) -> tuple[str, str]:
    return context["dag"].dag_id, context["run_id"]


def _describe_cost(estimate: CostEstimate) -> str:
    price = f"about {estimate.price}" if estimate.cost is not None else "a price that is not known"
    return f"{estimate.requests:,} requests for {price}"


def _parse_threshold(value: float | str | None) -> Threshold | None:
    from overnight.costs.money import Threshold  # noqa: PLC0415 - not at parse

    return None if value in (None, "", "None") else Threshold.parse(value, "approve_above")


def _parse_hours(value: float | str | None) -> timedelta | None:
    """
    Read how long an answer is waited for.

    :raises SpecError: it is no number above 0.
    """
    from overnight.costs.money import parse_number  # noqa: PLC0415 - not at parse

    if value in (None, "", "None"):
        return None
    hours = parse_number(str(value))
    try:
        if hours:
            return timedelta(hours=float(hours))
    except OverflowError:
        pass
    raise SpecError(f"approval_hours={shorten(repr(value), _MAX_NAME)} is no number of hours above 0.")
