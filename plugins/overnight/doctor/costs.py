"""Whether prices and budgets can be read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from overnight.costs.money import Threshold
from overnight.costs.prices import PriceTable
from overnight.costs.spending import CostBudget, Spending
from overnight.doctor.dag_uses import DagUse
from overnight.doctor.finding import Finding, fail, ok
from overnight.doctor.object_store import cut_template
from overnight.doctor.survey import find_aws_connection
from overnight.hooks.storage import connected_storage


def check_prices() -> Finding:
    """Read the table of prices that comes with the package."""
    table = PriceTable.shipped()
    return ok(f"Prices of {len(table.models)} models, of {table.date}.")


def check_costs(use: DagUse) -> Finding:
    """
    Read the prices, the limits and the budget of a DAG.

    :raises OvernightError: one of them cannot be read.
    """
    storage = connected_storage(find_aws_connection(use))
    settings = use.settings
    table = PriceTable.of(settings.get("prices"), storage)
    read: list[str] = [f"Prices of {len(table.models)} models"]
    limits: dict[str, Threshold] = {}
    if value := settings.get("max_cost"):
        limits["max_cost"] = Threshold.parse(value, "max_cost")
    if value := settings.get("cost_budget"):
        budget = CostBudget.parse(value)
        limits["cost_budget"] = budget.limit
        if folder := _find_folder(use):
            records = Spending(folder, budget, storage).read(datetime.now(UTC))
            read.append(f"{len(records)} records of the budget {budget}")
    for name, limit in limits.items():
        if limit.money is not None:
            limit.money.require_currency(table.currency, name)
            model = settings.get("model")
            if model and table.find(str(model)) is None:
                return fail(
                    f"There is no price of the model {model!r}, so a run with {name} is refused. Give it in prices: "
                    f'{{"models": {{"{model}": {{"input": 0.02}}}}}}, per 1,000,000 tokens.'
                )
    return ok(f"{', '.join(read)}.")


def _find_folder(use: DagUse) -> str | None:
    """Return the folder of a DAG's budget; ``None`` where it is known at run time only."""
    given: Any = use.settings.get("cost_budget_uri")
    uri = str(given or "")
    return uri if uri and cut_template(uri) == uri else None
