"""Whether what is installed here is new enough."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from packaging.version import InvalidVersion, Version

from overnight import __version__
from overnight.doctor.finding import Finding, fail, ok

PYTHON: Final = "3.11"
AIRFLOW: Final = "apache-airflow"
REQUIRED: Final[Mapping[str, str]] = {
    AIRFLOW: "3.3",
    "apache-airflow-providers-amazon": "9.39",
    "apache-airflow-providers-opensearch": "1.15",
}
"""The oldest versions that work; ``pyproject.toml`` has the same."""
OPTIONAL: Final[Mapping[str, str]] = {
    "apache-airflow-providers-common-ai": "1",
    "apache-airflow-providers-google": "17",
    "apache-airflow-providers-microsoft-azure": "12",
    "apache-airflow-providers-openlineage": "2.10",
}
"""The oldest versions of what an extra brings, where it is installed."""


def check_versions() -> Finding:
    """Compare the installed versions with those that work."""
    python = sys.version.split()[0]
    found, wrong = [f"Overnight {__version__}", f"Python {python}"], []
    if Version(python) < Version(PYTHON):
        wrong.append(f"Python {python} is older than {PYTHON}")
    for package, oldest in {**REQUIRED, **OPTIONAL}.items():
        installed = find_version(package)
        if installed is None:
            if package in REQUIRED:
                wrong.append(f"{package} is not installed")
            continue
        found.append(f"{_shorten(package)} {installed}")
        if installed < Version(oldest):
            wrong.append(f"{package} {installed} is older than {oldest}")
    if not wrong:
        return ok(", ".join(found) + ".")
    needed = " ".join(f"'{package}>={oldest}'" for package, oldest in REQUIRED.items() if package in " ".join(wrong))
    remedy = f"pip install {needed}" if needed else f"Install what is named, with Python {PYTHON} or newer"
    return fail(f"{'; '.join(wrong)}. {remedy}, on every worker and triggerer, with Airflow's constraint file.")


def find_version(package: str) -> Version | None:
    """Return the version of a package that is installed here, or ``None``."""
    try:
        return Version(version(package))
    except (PackageNotFoundError, InvalidVersion, TypeError):
        return None


def _shorten(package: str) -> str:
    return package.removeprefix("apache-airflow-providers-").replace(AIRFLOW, "Airflow")
