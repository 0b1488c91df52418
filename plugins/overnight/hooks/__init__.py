"""Connections to the services, the cluster and object stores."""
