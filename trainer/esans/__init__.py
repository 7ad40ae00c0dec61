"""ESANS, the paper: one file per idea, in the order data flows."""
