"""What it costs and what it is worth: every figure in README.md comes from a command here."""
