"""Approximate nearest neighbours: the FAISS index, which lists it probes, how that is tuned."""
