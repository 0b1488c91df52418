"""Offline AI batch jobs for Apache Airflow, landed in an OpenSearch index."""

__version__ = "0.1.0"
