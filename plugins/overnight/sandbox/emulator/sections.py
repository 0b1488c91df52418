"""The parts of an emulator's settings that can be changed while it runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ValidationError

from overnight.sandbox.emulator.draws import Draws
from overnight.sandbox.emulator.requests import ADMIN


class SectionError(Exception):
    """
    There is no such part of the settings, or it cannot be what it is to be.

    :param status: 404 or 400.
    """

    def __init__(self, status: int, section: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.section = section


class Sections:
    """
    Shows and changes parts of the settings.

    :param settings: Changed in place.
    :param draws: Begin anew when the faults change.
    :param names: The fields that are such parts.
    :param beside: What else there is under ``/_sandbox``.
    """

    def __init__(self, settings: BaseModel, draws: Draws, names: tuple[str, ...], beside: tuple[str, ...]) -> None:
        self._settings = settings
        self._draws = draws
        self._names = names
        self._beside = beside

    def show(self, name: str) -> dict[str, Any]:
        """
        Return a part as JSON.

        :raises SectionError: 404.
        """
        return self._find(name).model_dump(mode="json")

    def replace(self, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """
        Set a part anew; what is left out has its default again.

        :raises SectionError: 404, 400.
        """
        try:
            section = type(self._find(name)).model_validate(values)
        except ValidationError as error:
            raise SectionError(400, name, f"{name} cannot be set: {error}") from error
        setattr(self._settings, name, section)
        if name == "faults":
            self._draws.reset()
        return section.model_dump(mode="json")

    def merge(self, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """
        Change some of a part.

        :raises SectionError: 404, 400.
        """
        return self.replace(name, self.show(name) | dict(values))

    def add_routes(self, router: APIRouter, body: Callable[[Request], Awaitable[dict[str, Any]]]) -> None:
        """
        Add the routes that show and change every section, behind all of the router's own.

        :param body: Reads a request's JSON object.
        """

        @router.get("/{section}")
        def show(section: str) -> dict[str, Any]:
            return self.show(section)

        @router.put("/{section}")
        async def replace(section: str, request: Request) -> dict[str, Any]:
            self._find(section)
            return self.replace(section, await body(request))

        @router.patch("/{section}")
        async def merge(section: str, request: Request) -> dict[str, Any]:
            self._find(section)
            return self.merge(section, await body(request))

    def _find(self, name: str) -> BaseModel:
        if name not in self._names:
            known = ", ".join((*self._names, *self._beside))
            raise SectionError(404, name, f"There is no {ADMIN}/{name}; there are {known}.")
        section: BaseModel = getattr(self._settings, name)
        return section
