"""Demo: a generated shop, trained and served by one command."""
