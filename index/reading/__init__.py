"""Read the tables that a person made: items, their columns and their features.

The one part of the index that knows pyarrow: for who makes bundles, never for who serves them.
"""
