"""Offline training: train a two-tower model on interactions and publish it as a bundle."""
