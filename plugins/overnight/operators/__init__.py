"""Jobs, loads and indices as DAG steps."""
