"""Waiting for jobs as a DAG step."""
