"""The demo: a generated shop, and one command that trains on it and serves it."""
