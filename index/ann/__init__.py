"""Approximate nearest neighbour search: FAISS index, probing policies, tuning."""
