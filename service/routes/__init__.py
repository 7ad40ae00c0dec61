"""The calls: each reads, asks, writes."""
