"""One package per remote API: its spec, its verbs, its words. No Airflow."""
