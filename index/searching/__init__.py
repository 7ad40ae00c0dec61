"""The search within what is eligible: index effort, exact scores, sets of rows."""
