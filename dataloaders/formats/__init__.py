"""Annotations of other tools, read for `python -m dataloaders.convert`: a file a format, and what they share."""
