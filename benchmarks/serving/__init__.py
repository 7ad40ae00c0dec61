"""Serving benchmarks: HTTP latency and throughput against a floor, a peer and other sizes."""
