"""Checks of a dataset: folders and lists, image and label, COCO annotations, all of them before a run."""
