"""From a task to its job's page."""
