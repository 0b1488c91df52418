"""Pipelines as DAGs: typed config in, DAG out."""
