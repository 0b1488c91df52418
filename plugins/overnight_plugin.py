"""
What Airflow's plugin scanner sees of Overnight when this folder is its plugins folder.

The scanner puts the folder on ``sys.path``, which is all that DAGs need to import ``overnight``; it must not load the
package's modules by itself (see ``.airflowignore``). A package that is installed has an entry point for the plugin, and
Airflow refuses the same plugin a second time.
"""

from importlib.metadata import entry_points

if not entry_points(group="airflow.plugins", name="overnight"):
    from overnight.plugin import OvernightPlugin  # noqa: F401 - the scanner looks for it
