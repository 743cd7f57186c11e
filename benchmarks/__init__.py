"""Measurements: each prints a table and a ratio within one run."""
