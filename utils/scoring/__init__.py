"""Scores of a segmentation: the loop, the confusion matrix and further scores, and the files made from them."""
