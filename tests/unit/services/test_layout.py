"""Every service package has the same file names, so that a reader of one finds the way in the others."""

from __future__ import annotations

from pathlib import Path

import pytest

import overnight.services

SERVICES = Path(overnight.services.__file__).parent
PACKAGES = sorted(path.parent.relative_to(SERVICES) for path in SERVICES.rglob("service.py"))
OWN = ("spec.py", "service.py", "results.py")
# Two services of one API share these, one level up.
SHARED = ("connection.py", "status.py", "causes.py")
# The one name for the calls whose answers are checked is answers.py.
OTHER_NAMES = ("api.py", "calls.py", "client.py", "models_api.py", "errors.py", "utils.py")


def test_each_api_has_a_package() -> None:
    assert {package.parts[0] for package in PACKAGES} == {
        path.name for path in SERVICES.iterdir() if (path / "__init__.py").exists()
    }


@pytest.mark.parametrize("package", PACKAGES, ids=str)
def test_a_service_has_the_common_files(package: Path) -> None:
    there = {path.name for path in (SERVICES / package).glob("*.py")}
    above = {path.name for path in (SERVICES / package.parts[0]).glob("*.py")}
    assert set(OWN) - there == set()
    assert set(SHARED) - there - above == set()
    assert not (there | above) & set(OTHER_NAMES)
