"""The triggers of one process that wait at the same connection use one client, which the last one closes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from overnight.jobs import JobRef, shared_poller
from overnight.triggers import shared
from overnight.triggers.job import JobTrigger
from slowprint.server import Shop


@pytest.fixture(autouse=True)
def _no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_poller, "MIN_GAP", 0.0)


class Hooks:
    """Counts the clients that the hooks of a service hand out, and those that were closed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = self.closed = 0
        real = shared.hook_for

        def counting(ref: JobRef) -> Any:
            hook = real(ref)
            aclient = hook.aclient

            async def opened() -> Any:
                client = await aclient()
                self.opened += 1
                aclose = client.transport.aclose

                async def closed() -> None:
                    self.closed += 1
                    await aclose()

                client.transport.aclose = closed
                return client

            hook.aclient = opened
            return hook

        monkeypatch.setattr(shared, "hook_for", counting)


async def event(order: str) -> dict[str, Any]:
    ref = JobRef(service="slowprint", id=order, conn_id="slowprint_default")
    trigger = JobTrigger(ref=ref.model_dump(mode="json"), poll_interval=0.01, context=ref.model_dump(mode="json"))
    async for one in trigger.run():
        return dict(one.payload)
    raise AssertionError("a trigger always has an event")


@pytest.fixture
def orders(shop: Shop) -> list[str]:
    shop.orders += [
        {"id": f"p{number}", "name": "n", "status": "printed", "pages": 2, "spoiled": 0} for number in range(9)
    ]
    return [order["id"] for order in shop.orders]


async def test_many_triggers_share_a_client_and_the_last_closes_it(
    orders: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = Hooks(monkeypatch)
    events = await asyncio.gather(*map(event, orders))
    assert [one["context"]["id"] for one in events] == orders
    assert {one["status"]["state"] for one in events} == {"succeeded"}
    assert (hooks.opened, hooks.closed) == (1, 1)


async def test_who_comes_after_the_last_gets_a_client_of_its_own(
    orders: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = Hooks(monkeypatch)
    for order in orders[:2]:
        await event(order)
    assert (hooks.opened, hooks.closed) == (2, 2)


async def test_a_cancelled_trigger_leaves_the_poller_to_the_others(
    shop: Shop, orders: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = Hooks(monkeypatch)
    for order in shop.orders:
        order["status"] = "waiting"
    waiting = [asyncio.create_task(event(order)) for order in orders[:2]]
    async with asyncio.timeout(60):
        while not any(path == "/orders/p0" for _, path in shop.requests):  # noqa: ASYNC110 - the shop is a thread
            await asyncio.sleep(0.01)
    waiting[0].cancel()
    await asyncio.gather(waiting[0], return_exceptions=True)
    assert hooks.closed == 0
    shop.finish()
    assert (await waiting[1])["status"]["state"] == "succeeded"
    assert (hooks.opened, hooks.closed) == (1, 1)
