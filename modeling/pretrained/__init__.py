"""Weights trained elsewhere, and trained networks."""
