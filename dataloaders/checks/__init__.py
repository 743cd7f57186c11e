"""Checks of a dataset: layout (folders and lists), pairs (image and label), annotations (COCO), scan (all pairs)."""
