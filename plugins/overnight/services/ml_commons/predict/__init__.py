"""Batch prediction: a model's connector starts a job at a remote service, and the cluster follows it."""
