"""The online side: HTTP in front of a bundle. Knows nothing about vectors."""
