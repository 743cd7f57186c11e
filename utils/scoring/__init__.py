"""Scores of a segmentation: the loop, the confusion matrix, and what is drawn and written from them."""
