"""Approximate nearest neighbours: the FAISS index, what it probes, how that is tuned."""
