"""What is live: bundle, cluster map and deny list, followed in the background and swapped."""
