"""Ids that are never returned: written down, kept, followed, changed by hand."""
