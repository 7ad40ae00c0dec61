"""Cluster maps on their way: kept in files, folders or Redis, followed, drawn from."""
