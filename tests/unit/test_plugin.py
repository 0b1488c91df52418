from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

from overnight.plugin import OvernightPlugin

SCANNED = Path(__file__).parents[2] / "plugins" / "overnight_plugin.py"


def test_the_page_is_served_where_its_view_looks_for_it() -> None:
    (app,) = OvernightPlugin.fastapi_apps
    (view,) = OvernightPlugin.external_views
    assert view["href"] == f"{app['url_prefix']}/"
    assert view["url_route"] == "overnight"


def test_an_installed_package_brings_the_plugin() -> None:
    (entry,) = entry_points(group="airflow.plugins", name="overnight")
    assert entry.load() is OvernightPlugin


def test_the_plugins_folder_of_an_installed_package_does_not_bring_it_a_second_time() -> None:
    names: dict[str, object] = {}
    exec(SCANNED.read_text(), names)
    assert "OvernightPlugin" not in names


def test_a_worker_that_loads_the_plugins_does_not_load_the_page() -> None:
    script = "import sys, overnight.plugin; print('overnight.pages.app' in sys.modules, 'fastapi' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-2] == "False"
