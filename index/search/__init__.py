"""From a query to candidates: filters, ANN search, exclusions, exact scores."""
