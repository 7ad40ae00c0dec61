"""Read the tables that a person made: items, their columns and features. Needs pyarrow."""
