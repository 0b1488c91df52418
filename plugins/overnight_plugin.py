"""
What Airflow's plugin scanner sees of Overnight when this folder is its plugins folder.

The scanner puts the folder on ``sys.path``, which is all that DAGs need to import ``overnight``; it must not load the
package's modules by itself (see ``.airflowignore``). The link is registered here because a plugins folder, unlike an
installed wheel, has no provider entry point.
"""

from airflow.plugins_manager import AirflowPlugin

from overnight.links.job import JobLink


class OvernightPlugin(AirflowPlugin):
    """Registers the link from a task to its remote job."""

    name = "overnight"
    operator_extra_links = [JobLink()]
