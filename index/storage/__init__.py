"""Pointers and versioned blobs, in a folder or in Redis, and a polling watcher."""
