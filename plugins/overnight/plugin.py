"""What Airflow's plugin manager is shown: the page, and the links from a task to its remote job and to the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.plugins_manager import AirflowPlugin

from overnight.links.job import JobLink
from overnight.links.page import PREFIX, PageLink

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class Page:
    """
    The page as an ASGI app that is made when it is first asked for something.

    Every process of Airflow loads the plugins, workers and triggerers, too; only the API server serves the page.
    """

    def __init__(self) -> None:
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if self._app is None:
            from overnight.pages.app import create_app  # noqa: PLC0415

            self._app = create_app()
        await self._app(scope, receive, send)


class OvernightPlugin(AirflowPlugin):
    """Registers the page *Overnight* and the links."""

    name = "overnight"
    operator_extra_links = [JobLink(), PageLink()]
    fastapi_apps: list[Any] = [{"app": Page(), "url_prefix": PREFIX, "name": "Overnight"}]
    external_views: list[Any] = [
        {
            "name": "Overnight",
            "href": f"{PREFIX}/",
            "url_route": "overnight",
            "destination": "nav",
            "category": "browse",
        }
    ]
