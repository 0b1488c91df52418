"""What is looked at before a DAG runs: versions, connections, servers, Airflow's parts, the folders of runs."""
