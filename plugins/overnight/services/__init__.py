"""One module per remote API: its spec, its calls. HTTP, no Airflow."""
