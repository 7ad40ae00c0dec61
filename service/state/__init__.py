"""What is live: bundle, cluster map and denylist, watched in the background and swapped."""
