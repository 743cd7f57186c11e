"""Measurements: each module is a command that prints a table and a ratio within one run."""
