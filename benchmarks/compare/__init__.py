"""The study of samplers: methods x budgets x seeds x datasets, trained and compared fairly."""
