"""Reports for people: one HTML file with everything in it, about a run or a comparison."""
