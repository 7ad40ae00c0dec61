"""Methods compared fairly: samplers x budgets x seeds x datasets, from one plan."""
