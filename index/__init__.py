"""The contract: what a bundle is, and how answers come from one. Knows no torch, no web."""
