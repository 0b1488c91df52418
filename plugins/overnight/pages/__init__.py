"""The page *Overnight* in Airflow: jobs, reports, a search. It runs in the API server."""
