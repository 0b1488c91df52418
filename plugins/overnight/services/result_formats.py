"""The result formats of all services: those in this package, and those of other packages' entry points."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec

import overnight.services
from overnight.errors import SpecError
from overnight.jobs.result_format import ENTRY_POINT_GROUP, ResultFormat

PLAIN = "plain"
"""Names no format: every line is a document, whatever is in it."""


@cache
def load_result_formats() -> Mapping[str, ResultFormat]:
    """Return every format that is installed, by its service's name."""
    found: dict[str, ResultFormat] = {}
    for package in pkgutil.iter_modules(overnight.services.__path__, f"{overnight.services.__name__}."):
        if package.ispkg and find_spec(f"{package.name}.result_format") is not None:
            own: ResultFormat = importlib.import_module(f"{package.name}.result_format").RESULT_FORMAT
            found[own.service] = own
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        found[entry.name] = entry.load()()
    return found


def get_result_format(service: str) -> ResultFormat | None:
    """
    Return the format of a service's results; ``None`` for :data:`PLAIN`.

    :raises SpecError: there is none of that name.
    """
    if service == PLAIN:
        return None
    formats = load_result_formats()
    if service not in formats:
        raise SpecError(f"There is no result format {service!r}. Known are {', '.join(sorted(formats))}, and {PLAIN}.")
    return formats[service]


def find_result_format(scheme: str) -> ResultFormat | None:
    """Return the format of the service whose own files have this URI scheme."""
    return next((one for one in load_result_formats().values() if scheme in one.schemes), None)
