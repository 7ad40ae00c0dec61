"""A dataset folder, read, checked and laid out: who took what, for which part of the work."""
